"""A rule keeps its factor in another form: not a = phi(z), but what z is made of, which others keep anyway.

    z = sum_k (s_k x_k + t_k)        a = phi(z)        y_l = B_l(a, w_l) + b_l

B_l is linear in a and in w_l: a convolution, a transposed convolution, a linear layer, a product with a gate.

1. dL/dw_l is B_l's, of a and delta_l = dL/dy_l; dL/dz = (dL/da) phi'(z). They ask for a and z, functions of x_k, s_k
   and t_k, number by number: these are kept, and z and a are computed again where they are needed. The formulas stay
   as they are.
2. Batch norm keeps its input x and two numbers a map. With s = r w and t = b - mu s its output is s x + t
   (functional.norm): so batch norm, activation and convolution together keep x alone, not x, z and a.
3. Where a network adds, multiplies or concatenates, a has more terms: another batch norm's output, an image as it is, a
   value that has a recipe of its own and is computed again first, a gate g in a = phi(z) g.
4. The rules' gradients go to a and to z, and nothing to x_k, s_k and t_k: what z is as a function of these, the rules
   that made it derive. But backward is computed from them, so what is derived from backward, the second derivative,
   goes there.
5. Where several layers take a, as at the head of a residual block or of Inception's, a stands in L once for each:
   dL/da is the sum of theirs. All of the delta_l are there at once, so a is computed again once, for all dL/dw_l.

Shapes: x, z, a [N, C, ...], s, t [C], g broadcast with a. Letters: phi the activation, l counts layers, k terms.
Sources: lecture 002, eq. 2.4; Chen et al. 2016, sec. 3 (computing again what is cheap instead of keeping it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import torch
from torch import Tensor

from manualbp.functional.activation.table import Activation
from manualbp.functional.rule import Rule, keep, kept, run
from manualbp.fuse.affine import Affine
from manualbp.fuse.forms import form_of
from manualbp.kernels import norm as kernels
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.pieces import by_pieces
from manualbp.kernels.transforms import forward_mode, in_place

# A term is s x + t, of three sources; one source as it is; or a value that is made by a recipe of its own.
Term = Union[Literal["affine", "plain"], "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How a = phi(z) is made from `sources`, those of one term behind those of the other.

    z is the sum of the terms; or they are concatenated along `axis`, if that is given. gated: a = phi(z) g, and g is
    the last source. Without an activation, phi(z) = z.
    """

    activation: Activation | None
    terms: tuple[Term, ...]
    gated: bool = False
    axis: int | None = None

    @property
    def takes(self) -> int:
        """How many sources."""
        return sum(map(taken, self.terms)) + self.gated

    @property
    def images(self) -> list[int]:
        """Which of the sources are images, of one shape with z or broadcast with it; the others are s and t."""
        found, first = [], 0
        for term in self.terms:
            found += [first + k for k in term.images] if isinstance(term, Recipe) else [first]
            first += taken(term)
        return found + [first] * self.gated

    @property
    def cost(self) -> int:
        """How many passes over memory a takes, about."""
        each = [term.cost if isinstance(term, Recipe) else int(term == "affine") for term in self.terms]
        return (sum(each) if self.axis is None else max(each)) + self.gated

    @property
    def is_plain(self) -> bool:
        """Whether a is made of images number by number, without s and t, which belong to maps."""
        return all(term.is_plain if isinstance(term, Recipe) else term == "plain" for term in self.terms)

    @property
    def joins(self) -> bool:
        """Whether a part of it is concatenated, so that its images have several shapes."""
        return self.axis is not None or any(isinstance(term, Recipe) and term.joins for term in self.terms)

    def _with(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
        """The sources with other images."""
        some = [*sources]
        for k, x in zip(self.images, images, strict=True):
            some[k] = x
        return some

    def sum(self, *sources: Tensor) -> Tensor:
        """z."""
        parts, first = [], 0
        for term in self.terms:
            own = sources[first : first + taken(term)]
            first += len(own)
            if isinstance(term, Recipe):
                parts.append(term.value(*own))
            else:
                parts.append(run(Affine, *own) if term == "affine" else own[0])
        if self.axis is not None:
            return torch.cat(parts, self.axis)
        z = parts[0]
        new = self.terms[0] != "plain" and in_place()  # the first term, and nothing keeps it
        for part in parts[1:]:
            z = z.add_(part) if new and (z.shape, z.dtype) == (part.shape, part.dtype) else z + part
        return z

    def value(self, *sources: Tensor) -> Tensor:
        """a."""
        z = self.sum(*sources)
        a = z if self.activation is None else self.activation.of(z)
        return a * sources[-1] if self.gated else a

    def again(self, *sources: Tensor) -> Tensor:
        """a: in one pass where a compiled kernel has it, else some samples at a time."""
        phi = "" if self.activation is None else self.activation.name
        if self.terms == ("affine",) and not self.gated:
            x, s, t = sources
            if kernels.activates(phi, x, s, t):
                return kernels.affine(x, s, t, phi)
        if self.joins:
            return self.value(*sources)
        images = [sources[k] for k in self.images]
        return by_pieces(lambda *some: self.value(*self._with(sources, some)), images[0], *images)

    def slope_again(self, delta: Tensor, *sources: Tensor) -> Tensor:
        """delta phi'(z), some samples at a time."""
        phi = self.activation
        if phi is None:
            return delta
        make = self.value if phi.of_output else self.sum
        images = [sources[k] for k in self.images]
        return by_pieces(lambda d, *some: phi.sloped(d, make(*self._with(sources, some))), delta, delta, *images)


def taken(term: Term) -> int:
    """How many sources the term is made of."""
    return term.takes if isinstance(term, Recipe) else 3 if term == "affine" else 1


class Reactivate(Rule):
    """a = phi(z). dL/dz = delta phi'(z); kept: the sources of z."""

    @staticmethod
    def forward(z: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
        rule, *settings = recipe.activation.rule  # pyright: ignore[reportOptionalMemberAccess]
        return rule.forward(z, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.recipe, *sources = inputs
        keep(ctx, *sources)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        sources = ctx.saved_tensors
        return ctx.recipe.slope_again(delta, *sources), None, *[None] * len(sources)

    @staticmethod
    def tangent(ctx: Any, dz: Tensor, *_: Any) -> Tensor:
        """The tangent times the slope."""
        return ctx.recipe.slope_again(dz, *ctx.saved_tensors)


# A layer y = B(a, w) + b: the name of B (fuse.forms), its geometry, w and b.
Layer = tuple[str, Geometry | None, Tensor, Tensor | None]


def factor_again(
    a: Tensor, layers: Sequence[Layer | Tensor], recipe: Recipe, sources: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The layers' outputs by one rule; one that is there already stays."""
    by_rule = [layer for layer in layers if not isinstance(layer, Tensor)]
    if not by_rule:
        return tuple(y for y in layers if isinstance(y, Tensor))
    tensors: list[Tensor | None] = []
    for t in (*(t for layer in by_rule for t in layer[2:]), *sources):
        # Layers may share a weight, and torch.compile refuses one tensor in two places.
        tensors.append(t.view_as(t) if t is not None and any(t is other for other in tensors) else t)
    made = iter(run(FactorAgain, a, recipe, tuple(layer[:2] for layer in by_rule), *tensors))
    return tuple(y if isinstance(y, Tensor) else next(made) for y in layers)


class FactorAgain(Rule):
    """y_l = B_l(a, w_l) + b_l, the B_l bilinear layers (fuse.forms), a computed again from its sources, once for all.

    dL/dw_l and dL/db_l are B_l's own, and dL/da is the sum of theirs; what nothing uses (delta_l None) has none. Kept:
    the w_l, if dL/da is asked for, and the sources, if a dL/dw_l is.
    forms: the name and geometry of each B_l; tensors: w_l and b_l one after the other, then the sources.
    """

    @staticmethod
    def forward(
        a: Tensor, recipe: Recipe, forms: tuple[tuple[str, Geometry | None], ...], *tensors: Any
    ) -> tuple[Tensor, ...]:
        ys = []
        for l, form in enumerate(forms):
            B, settings = form_of(*form)
            ys.append(B.rule.forward(a, *tensors[2 * l : 2 * l + 2], *settings))
        return tuple(ys)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, ctx.recipe, ctx.forms, *tensors = inputs
        behind = 2 * len(ctx.forms)
        a_needed, _, _, *needed = ctx.needs_input_grad
        ctx.shapes = [w.shape for w in tensors[:behind:2]]
        ctx.set_materialize_grads(forward_mode())  # `tangent` takes zeros
        ws = [kept(w, a_needed) for w in tensors[:behind:2]]
        keep(ctx, *ws, *[kept(source, any(needed[:behind:2])) for source in tensors[behind:]])

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint computes them when they are asked for
        ws, sources = saved[: len(ctx.forms)], saved[len(ctx.forms) :]
        a_needed, _, _, *needed = ctx.needs_input_grad
        a, da = None, None
        of_weights: list[Tensor | None] = []
        for l, delta in enumerate(deltas):
            w_needed, b_needed = needed[2 * l : 2 * l + 2]
            if delta is None:
                of_weights += [None, None]
                continue
            (B, _), (_, g) = form_of(*ctx.forms[l]), ctx.forms[l]
            if w_needed and a is None:
                a = ctx.recipe.again(*sources).to(delta.dtype)
            of_weights.append(B.by_w(a, delta, g, ctx.shapes[l]) if w_needed else None)
            of_weights.append(B.by_b(delta) if b_needed else None)
        del a  # dL/da takes its place
        for (form, g), w, delta in zip(ctx.forms, ws, deltas, strict=True):
            if a_needed and delta is not None:
                part = form_of(form, g)[0].by_a(delta, w, g)
                da = part if da is None else da.add_(part) if in_place() else da + part
        return da, None, None, *of_weights, *[None] * len(sources)

    @staticmethod
    def tangent(ctx: Any, da: Tensor, *others: Any) -> tuple[Tensor, ...]:
        """The product rule, as each B's."""
        saved = ctx.saved_tensors  # once: a checkpoint computes them when they are asked for
        ws, sources = saved[: len(ctx.forms)], saved[len(ctx.forms) :]
        a = ctx.recipe.again(*sources).to(da.dtype)
        dys = []
        for l, (form, w) in enumerate(zip(ctx.forms, ws, strict=True)):
            (B, settings), (dw, db) = form_of(*form), others[2 * l + 2 : 2 * l + 4]
            dys.append(run(B.rule, da, w, None, *settings) + run(B.rule, a, dw, db, *settings))
        return tuple(dys)
