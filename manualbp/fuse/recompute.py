"""A rule keeps its factor in another form: not a = phi(z), but what z is made of, which others keep anyway.

    z = sum_k (s_k x_k + t_k)        a = phi(z)        y = correlate(a, w) + b

1. dL/dw = kernel_gradient(a, delta) needs a, dL/dz = (dL/da) phi'(z) needs z. Both are functions of x_k, s_k and t_k,
   number by number: these are kept, and z and a are computed again where they are needed. The formulas stay as they
   are.
2. Batch norm keeps its input x and two numbers a map. With s = r w and t = b - mu s its output is s x + t
   (functional.norm): so batch norm, activation and convolution together keep x alone, not x, z and a.
3. Where a residual network adds, z has more terms: another batch norm's output, an image as it is, or the a of an
   earlier sum, which is computed again first.
4. The rules' gradients go to a and to z, and nothing to x_k, s_k and t_k: what z is as a function of these, the rules
   that made it derive. But backward is computed from them, so what is derived from backward, the second derivative,
   goes there.

Shapes: x, z, a, y, delta [N, C, H, W]; s, t [C]. Letters: phi the activation, delta = dL/dy.
Sources: lecture 002, eq. 2.4; Chen et al. 2016, sec. 3 (computing again what is cheap instead of keeping it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from manualbp.functional.activation.table import ACTIVATIONS
from manualbp.functional.conv import Correlate, FullConvolve, KernelGradient, over_all_but_maps
from manualbp.functional.rule import Rule, evaluate, keep, kept, run
from manualbp.fuse.affine import Affine
from manualbp.kernels import conv as kernels
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.pieces import by_pieces
from manualbp.kernels.transforms import in_place


@dataclass(frozen=True)
class Recipe:
    """How a = phi(z) is made from `sources`: for each of `terms` x, s and t, then, if `plain`, one more term as it is.

    Then the sources of `base`, a term that is made by a recipe of its own.
    """

    activation: str
    terms: int
    plain: bool = False
    base: "Recipe | None" = None

    @property
    def images(self) -> list[int]:
        """Which of the sources are images, of one shape with z or broadcast with it; the others are s and t."""
        first = 3 * self.terms + self.plain
        base = [] if self.base is None else [first + k for k in self.base.images]
        return [*range(0, 3 * self.terms, 3), *range(3 * self.terms, first), *base]

    def _with(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
        """The sources with other images."""
        some = [*sources]
        for k, x in zip(self.images, images, strict=True):
            some[k] = x
        return some

    def sum(self, *sources: Tensor) -> Tensor:
        """z."""
        parts = [evaluate(Affine, *sources[3 * k : 3 * k + 3]) for k in range(self.terms)]
        rest = sources[3 * self.terms :]
        if self.plain:
            parts, rest = [*parts, rest[0]], rest[1:]
        if self.base is not None:
            parts.append(self.base.value(*rest))
        z = parts[0]
        new = self.terms > 0 and in_place()  # the first term, and nothing keeps it
        for part in parts[1:]:
            z = z.add_(part) if new and z.shape == part.shape else z + part
        return z

    def value(self, *sources: Tensor) -> Tensor:
        """a."""
        z = self.sum(*sources)
        if self.activation == "relu" and self.terms and in_place():
            return z.relu_()  # z is new, and nothing keeps it
        return self.activated(z)

    def activated(self, z: Tensor) -> Tensor:
        """phi(z)."""
        rule, *settings = ACTIVATIONS[self.activation].rule
        return evaluate(rule, z, *settings)

    def slope(self, delta: Tensor, told_by: Tensor) -> Tensor:
        """delta phi'(z), told by a or by z."""
        rule, *settings = ACTIVATIONS[self.activation].slope
        return evaluate(rule, delta, told_by, *settings)

    def again(self, *sources: Tensor) -> Tensor:
        """a, some samples at a time."""
        images = [sources[k] for k in self.images]
        return by_pieces(lambda *some: self.value(*self._with(sources, some)), images[0], *images)

    def slope_again(self, delta: Tensor, *sources: Tensor) -> Tensor:
        """delta phi'(z), some samples at a time."""
        make = self.value if ACTIVATIONS[self.activation].of_output else self.sum
        images = [sources[k] for k in self.images]
        return by_pieces(lambda d, *some: self.slope(d, make(*self._with(sources, some))), delta, delta, *images)


class Reactivate(Rule):
    """a = phi(z). dL/dz = delta phi'(z); kept: the sources of z."""

    @staticmethod
    def forward(z: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
        rule, *settings = ACTIVATIONS[recipe.activation].rule
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


class Recorrelate(Rule):
    """y = correlate(a, w) + b, whose a = phi(z) is computed again from its sources.

    dL/da = full_convolve(delta, w)         kept: w, if dL/da is asked for
    dL/dw = kernel_gradient(a, delta)       kept: the sources, if dL/dw is asked for
    dL/db[o] = sum_{n,i,j} delta[n,o,i,j]
    """

    @staticmethod
    def forward(a: Tensor, w: Tensor, b: Tensor | None, g: Geometry, recipe: Recipe, *sources: Tensor) -> Tensor:
        return kernels.correlate(a, w, b, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, w, _, ctx.g, ctx.recipe, *sources = inputs
        a_needed, w_needed, *_ = ctx.needs_input_grad
        keep(ctx, kept(w, a_needed), *[kept(source, w_needed) for source in sources])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        w, *sources = ctx.saved_tensors
        a_needed, w_needed, b_needed, *_ = ctx.needs_input_grad
        da = run(FullConvolve, delta, w, None, ctx.g) if a_needed else None
        dw = db = None
        if w_needed:
            a = ctx.recipe.again(*sources)
            dw = run(KernelGradient, a.to(delta.dtype), delta, ctx.g)
        if b_needed:
            db = over_all_but_maps(delta)
        return da, dw, db, None, None, *[None] * len(sources)

    @staticmethod
    def tangent(ctx: Any, da: Tensor, dw: Tensor, db: Tensor | None, *_: Any) -> Tensor:
        """The product rule, as the convolution's."""
        w, *sources = ctx.saved_tensors
        a = ctx.recipe.again(*sources)
        return run(Correlate, da, w, None, ctx.g) + run(Correlate, a, dw, db, ctx.g)
