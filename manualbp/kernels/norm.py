"""Means, variances and normalised numbers, by PyTorch's fused forward passes: two passes over memory instead of five.

Statistics are taken in float32 where the input is in half precision. PyTorch's CUDA kernels do so themselves; on
other devices the input is widened first. Batch norm is the compiled kernels' where they serve (kernels/cpu and
kernels/cuda): these also take the activation behind it into the same passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from manualbp.kernels.cpu import norm as in_c
from manualbp.kernels.cuda import calls as on_a_card
from manualbp.kernels.layout import maps_last
from manualbp.kernels.pieces import pieces
from manualbp.kernels.precision import wide
from manualbp.kernels.transforms import in_place, transformed


@dataclass(frozen=True)
class Sharing:
    """Which numbers of x share what.

    over: the axes of x whose numbers share a mean and a variance. along: the axes of x along which w and b stay the
    same; they have the others. groups: of maps (group only); both speak of x as `apart` makes it. momentum: how much of
    the running statistics one batch replaces (batch only). A frozen value, not a tuple: torch.func takes a tuple among
    a Function's arguments apart.
    """

    kind: Literal["batch", "layer", "group"]
    over: tuple[int, ...]
    along: tuple[int, ...]
    eps: float
    momentum: float = 0.0
    groups: int = 0

    @property
    def both(self) -> tuple[int, ...]:
        """The axes that are summed over in every gradient."""
        return tuple(axis for axis in self.over if axis in self.along)

    def apart(self, x: Tensor) -> Tensor:
        """x [N, C, ...] as [N, G, C / G, ...] where groups of maps share a mean; else as it is."""
        return x.unflatten(1, (self.groups, -1)) if self.groups else x

    def together(self, w: Tensor) -> Tensor:
        """w [G, C / G] as [C], the other way."""
        return w.flatten() if self.groups else w

    def count(self, x: Tensor) -> int:
        """m, how many numbers share a mean."""
        return prod([x.shape[axis] for axis in self.over])

    def spread(self, w: Tensor, x: Tensor) -> Tensor:
        """w, without the axes `along`, in a shape that broadcasts with x."""
        return w.reshape([1 if axis in self.along else n for axis, n in enumerate(x.shape)])


def normalise(
    x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor | None, var: Tensor | None, how: Sharing
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mu, r) with y = (x - mu) r w + b; mu and r broadcast with x. mean and var: running, updated in place.

    y is no view, so that it may be changed in place: autograd forbids that for a view that a rule returns.
    """
    statistics = [1 if axis in how.over else n for axis, n in enumerate(how.apart(x).shape)]
    if how.kind == "batch" and x.numel() == 0:  # as in PyTorch, no sample does not count
        mu = x.new_zeros(statistics, dtype=wide(x.dtype))
        return torch.empty_like(x), mu, torch.ones_like(mu)
    if how.kind == "batch" and activates("", x, w, b, mean, var):
        return normalise_activate(x, w, b, mean, var, how, "")
    z = _widened(x)
    if how.kind == "batch":
        y, mu, r = _batch(z, _wide(w), _wide(b), mean, var, how)
    else:
        w, b = (w, b) if z.dtype == x.dtype else (_wide(w), _wide(b))
        y, mu, r = (_layer if how.kind == "layer" else _group)(z, w, b, how)
    return y.to(x.dtype), mu.view(statistics), r.view(statistics)


def activates(phi: str, x: Tensor, *of_maps: Tensor | None, delta: Tensor | None = None) -> bool:
    """Whether batch norm with phi behind it is the compiled kernels'."""
    if x.is_cuda:
        return phi in on_a_card.PHI and on_a_card.serves_norm(x, *map(_wide, of_maps), delta=delta)
    return phi in in_c.PHI and in_c.serves(x, *map(_wide, of_maps), delta=delta)


def _compiled(x: Tensor) -> Any:
    """The module of them, where `activates` says so."""
    if not x.is_cuda:
        return in_c
    from manualbp.kernels.cuda import norm as in_triton  # Triton takes a second to load

    return in_triton


def normalise_activate(
    x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor | None, var: Tensor | None, how: Sharing, phi: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(phi(y), mu, r) with the y, mu and r of `normalise`, where `activates` says so."""

    def updating(m: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return _compiled(x).forward(x, _wide(w), _wide(b), m, v, how.momentum, how.eps, phi)

    y, mu, r = _counted(updating, mean, var)
    statistics = [1 if axis in how.over else n for axis, n in enumerate(x.shape)]
    return y, mu.view(statistics), r.view(statistics)


def gradients(
    delta: Tensor,
    x: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    mu: Tensor,
    r: Tensor,
    by_mu: Tensor,
    by_r: Tensor,
    x_needed: bool,
    phi: str,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """(dx, dw, db) of `normalise_activate`, by dL/dmu and dL/dr as well, where `activates` says so."""
    dx, dw, db = _compiled(x).backward(delta, x, _wide(w), _wide(b), mu, r, by_mu, by_r, x_needed, phi)
    return dx if x_needed else None, dw, db


def as_line(mu: Tensor, r: Tensor, w: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """(s, t) with (x - mu) r w + b = s x + t, a number a map each."""
    s = r if w is None else r * w
    return s, -(mu * s) if b is None else b - mu * s


def normalise_by(x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) w + b, map by map."""
    if x.numel() == 0:
        return torch.empty_like(x)
    if activates("", x, w, b, mean, var):
        mean, var = (t.to(wide(t.dtype)) for t in (mean, var))
        return _compiled(x).affine(x, *as_line(mean, (var + eps).rsqrt(), _wide(w), _wide(b)))
    settings = _wide(w), _wide(b), _wide(mean), _wide(var)
    return torch.native_batch_norm(_widened(x), *settings, False, 0.0, eps)[0].to(x.dtype)


def affine(x: Tensor, s: Tensor, t: Tensor | None, phi: str = "") -> Tensor:
    """phi(s x + t), map by map; with a phi where `activates` says so.

    Else it is PyTorch's fused normalisation, given a mean of 0 and a variance of 1.
    """
    if phi or activates("", x, s, t):
        return _compiled(x).affine(x, s, t, phi)
    return normalise_by(x, s, t, torch.zeros_like(s), torch.ones_like(s), 0.0)


def sums(delta: Tensor, x: Tensor, mu: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """sum delta and sum delta (x - mu) over the axes `over`, the samples' among them; extents of 1 in their place."""

    def of(d: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        d, z = d.to(mu.dtype), x - mu
        return d.sum(over, keepdim=True), (z.mul_(d) if in_place() else z * d).sum(over, keepdim=True)

    (s, q), *others = (of(*piece) for piece in pieces(delta, x))
    for t, u in others:
        s, q = s + t, q + u
    return s, q


def combined(delta: Tensor, a: Tensor, x: Tensor, c: Tensor, e: Tensor) -> Tensor:
    """a delta + c x + e, map by map, in the dtype of a; then in x's."""
    if not in_place():
        return torch.addcmul(torch.addcmul(e, x.to(a.dtype), c), delta.to(a.dtype), a).to(x.dtype)
    y = torch.empty_like(x)
    c, e = c.flatten(), e.flatten()
    for d, z, to in pieces(delta, x, y):
        torch.addcmul(affine(z.to(a.dtype), c, e), d.to(a.dtype), a, out=to)
    return y


def _batch(
    x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor | None, var: Tensor | None, how: Sharing
) -> tuple[Tensor, Tensor, Tensor]:
    def updating(m: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, w, b, m, v, True, how.momentum, how.eps)

    return _counted(updating, mean, var)


def _counted(
    updating: Callable[..., tuple[Tensor, Tensor, Tensor]], *running: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel makes that updates the running statistics, and does not count that as a change of theirs.

    So that who kept them can tell, it is counted here. Under vmap the kernel is given a tensor that only an operation
    reaches, and where they have gaps or half precision one that has not: there it is copied back.
    """
    changed = [None if t is None else t.to(wide(t.dtype), copy=transformed()).contiguous() for t in running]
    result = updating(*changed)
    for t, new in zip(running, changed, strict=True):
        if t is None or new is None:
            continue
        if t is not new:
            t.copy_(new)
        elif not (torch.compiler.is_compiling() or t.is_inference()):  # the one counts it, the other has no counter
            increment_version(t)
    return result


def _layer(x: Tensor, w: Tensor | None, b: Tensor | None, how: Sharing) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x, [x.shape[axis] for axis in how.over], w, b, how.eps)


def _group(x: Tensor, w: Tensor | None, b: Tensor | None, how: Sharing) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel for channels_last is the CPU's only, as in PyTorch."""
    N, C, *size = x.shape
    last = x.device.type == "cpu" and maps_last(x)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x.contiguous()
    return torch.native_group_norm(x, w, b, N, C, prod(size), how.groups, how.eps)


def _wide(t: Tensor | None) -> Tensor | None:
    """In the dtype of the statistics."""
    return t if t is None or t.dtype == torch.float32 else t.to(wide(t.dtype))


def _widened(x: Tensor) -> Tensor:
    """In the dtype of the statistics, except where the fused kernel takes them in it anyway."""
    return x if x.device.type == "cuda" else x.to(wide(x.dtype))
