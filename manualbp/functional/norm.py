"""Normalisation: numbers that belong together get mean 0 and variance 1, then a weight and a bias.

    mu = 1/m sum x    var = 1/m sum (x - mu)^2    r = 1 / sqrt(var + eps)    x^ = (x - mu) r    y = x^ w + b

Every sum is over the m numbers that share a mean: batch norm, all of a map, in every image; layer norm, all of a
sample; group norm, all of a group of maps of an image. w and b have one number for each map, or for each place.

1. y changes with x directly, and through mu and r, which are sums over all m numbers:
       dmu = 1/m sum dx
       dvar = 2/m sum (x - mu) (dx - dmu) = 2/m sum (x - mu) dx           because sum (x - mu) = 0
       dr = -1/2 (var + eps)^(-3/2) dvar = -r^3/m sum (x - mu) dx
2. dL = sum delta w dx^ with dx^ = (dx - dmu) r + (x - mu) dr. Exchanging the sums, number by number
       dL/dx = r delta w - r/m sum(delta w) - r^3/m (x - mu) sum(delta w (x - mu))
   which is r (delta w - mean(delta w) - x^ mean(delta w x^)): delta w without its mean and without its part along x^.
3. mu and r are outputs of the rule. So backward, written in x, w, mu and r, can be derived again, and the errors that
   reach mu and r then, eps = dL/dmu and rho = dL/dr, go on to x by step 1: eps/m - r^3/m (x - mu) rho.
4. dL/dw = sum delta (x - mu) r and dL/db = sum delta, over all that share the number of w.

Given the statistics (batch norm in evaluation), mu and r are constants: functional/norm_given.py.

Shapes: x, y, delta [N, C, ...] or [..., *normalized_shape]; group norm takes them as [N, G, C / G, ...]. mu and r
broadcast with them. Letters: x^ the normalised input, r the reciprocal of the standard deviation, m how many share a
mean.
Sources: Ioffe and Szegedy 2015, sec. 3; Ba, Kiros and Hinton 2016, sec. 3; Wu and He 2018, sec. 3.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import full_precision, require_real
from manualbp.functional.norm_given import NormaliseBy, kept_weight, refuse_derivative
from manualbp.functional.rule import Rule, keep, kept, run
from manualbp.kernels import norm as kernels
from manualbp.kernels.layout import hands_on, laid_out
from manualbp.kernels.norm import Sharing
from manualbp.kernels.precision import wide


def _sum(t: Tensor, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The sum over `axes`. There may be none: then `sum` itself would take all."""
    return t.sum(axes, keepdim=keepdim) if axes else t


class Normalise(Rule):
    """y = (x - mu) r w + b; mu and r are outputs, too. Running statistics (mean, var) are updated in place.

    dL/dx = a delta + c (x - mu) + e    a = r w, c = -r^3 (sum(delta w (x - mu)) + rho)/m, e = (eps - r sum(delta w))/m
    dL/dw = sum delta (x - mu) r        dL/db = sum delta

    eps = dL/dmu and rho = dL/dr are 0 but in the derivative of these. Kept: x, mu and r, if dL/dx or dL/dw is asked
    for; w, if dL/dx is. Not x^: x is an input, which the layer before may keep as well, and x^ is one step from it.
    """

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor | None, var: Tensor | None, how: Sharing
    ) -> tuple[Tensor, Tensor, Tensor]:
        return kernels.normalise(x, w, b, mean, var, how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, w, b, _, _, ctx.how = inputs
        _, mu, r = output
        x_needed, w_needed, *_ = ctx.needs_input_grad
        either = x_needed or w_needed
        w, ctx.dtypes = kept_weight(w, b, r)
        keep(ctx, kept(x, either), kept(w, x_needed), kept(mu, either), kept(r, either))

    @staticmethod
    def backward(ctx: Any, delta: Tensor, eps: Tensor, rho: Tensor) -> tuple[Tensor | None, ...]:
        x, w, mu, r = ctx.saved_tensors
        return *gradients(ctx, delta, eps, rho, x, w, mu, r), None, None, None

    @staticmethod
    def tangent(
        ctx: Any, dx: Tensor, dw: Tensor | None, db: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Step 1 for mu and r, the product rule for y."""
        return tangents(ctx, dx, dw, db, *ctx.saved_tensors)


def tangents(
    ctx: Any, dx: Tensor, dw: Tensor | None, db: Tensor | None, x: Tensor, w: Tensor, mu: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dy, dmu and dr of Normalise."""
    how = ctx.how
    x, d = how.apart(x), how.apart(dx).to(r.dtype)
    weight = how.spread(w, x).to(r.dtype) if ctx.dtypes[0] else 1.0
    z = x.to(r.dtype) - mu
    dmu = d.mean(how.over, keepdim=True)
    dr = -r * r * r * (z * d).mean(how.over, keepdim=True)
    dy = ((d - dmu) * r + z * dr) * weight
    dy = dy if dw is None else dy + z * r * how.spread(dw, x)
    dy = dy if db is None else dy + how.spread(db, x)
    return (dy.flatten(1, 2) if how.groups else dy).to(x.dtype), dmu, dr


def gradients(
    ctx: Any, delta: Tensor, eps: Tensor, rho: Tensor, *saved: Tensor, b: Tensor | None = None, phi: str = ""
) -> tuple[Tensor | None, ...]:
    """dL/dx, dL/dw and dL/db as Normalise has them; the compiled kernels take delta through phi themselves."""
    x, w, mu, r = saved
    how, (w_dtype, b_dtype) = ctx.how, ctx.dtypes
    x_needed, w_needed, b_needed, *of_statistics = ctx.needs_input_grad[:5]
    refuse_derivative("batch_norm", *of_statistics)
    given = w if w.numel() else None  # there is one, and it was kept
    if how.kind == "batch" and kernels.activates(phi, x, given, b, delta=delta):
        dx, dw, db = kernels.gradients(delta, x, given, b, mu, r, eps, rho, x_needed, phi)
        return dx, dw.to(w_dtype) if w_needed else None, db.to(b_dtype) if b_needed else None
    either = x_needed or w_needed
    x = z = how.apart(x) if either else x
    dx, d = None, how.apart(delta)
    if not either:
        s = q = _sum(d.to(r.dtype), how.both, keepdim=True)
    elif how.kind == "batch":
        s, q = kernels.sums(d, z, mu, how.both)
    else:
        d, z = d.to(r.dtype), z.to(r.dtype) - mu
        s, q = _sum(d, how.both, keepdim=True), _sum(d * z, how.both, keepdim=True)
    dw = how.together(_sum(q * r, how.along)).to(w_dtype) if w_needed else None
    db = how.together(_sum(s, how.along)).to(b_dtype) if b_needed else None
    if x_needed:
        weight = how.spread(w, x).to(r.dtype) if w_dtype else 1.0
        g, m = s * weight, max(how.count(x), 1)  # an empty batch has no numbers, and no 0 / 0 either
        c = r * r * r * ((q * weight).sum(how.over, keepdim=True) + rho) / -m
        e = (eps - r * g.sum(how.over, keepdim=True)) / m
        if how.kind == "batch":
            dx = kernels.combined(d, r * weight, z, c, e - c * mu)
        else:
            a, d = (r * weight, d) if how.both else (r, g)  # g is delta w already where nothing was summed
            dx = torch.addcmul(torch.addcmul(e, z, c), d, a).to(x.dtype)
            # PyTorch's kernel gives dx the layout of x, and what it derives twice that of delta.
            last = torch.is_grad_enabled() and hands_on(delta)
            dx = laid_out(dx.flatten(1, 2), last) if how.groups else dx
    return dx, dw, db


def _fitting(op: str, x: Tensor, shape: Sequence[int], **tensors: Tensor | None) -> None:
    """Refuse an input that is no floating tensor, and what does not have `shape` or a dtype that goes with it."""
    if not x.is_floating_point():
        raise TypeError(f"{op}: input is {x.dtype}; it must be of a floating dtype")
    for name, t in tensors.items():
        if t is None:
            continue
        if list(t.shape) != list(shape):
            raise ValueError(
                f"{op}: {name} has shape {list(t.shape)} and input {list(x.shape)}; {name} must be {list(shape)}"
            )
        if t.dtype not in (x.dtype, wide(x.dtype)):
            raise ValueError(
                f"{op}: {name} is {t.dtype} and input {x.dtype}; {name} must be {x.dtype}, or float32 where input is "
                "in half precision"
            )
        if t.device != x.device:
            raise ValueError(f"{op}: input is on {x.device} and {name} on {t.device}; the devices must be equal")


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm with a backward pass by hand.

    input [N, C] or [N, C, ...] of a real floating dtype; the others [C], of the same dtype, or float32 where input is
    in half precision (statistics are in float32 then) -> the same shape and dtype as input. training: each map is
    normalised by its own mean and variance, and momentum of the running ones (the variance with 1 / (m - 1)) is
    replaced by them, in place; else by the running ones. Kept for backward: input, if the gradient of input or weight
    is asked for (in evaluation: of weight), weight if that of input is, and two numbers a map. Raises ValueError for
    shapes and dtypes that do not fit, one value a map in training, no statistics in evaluation, TypeError for complex
    numbers and integers. Source: Ioffe and Szegedy 2015, sec. 3; derivation at the head of this file.
    """
    how = batch_sharing("batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps)
    if how is None:
        return input.clone()
    if training or running_mean is None or running_var is None:
        return run(Normalise, input, weight, bias, running_mean, running_var, how)[0]
    return run(NormaliseBy, input, weight, bias, running_mean, running_var, how)


def batch_sharing(op: str, x: Tensor, *settings: Any) -> Sharing | None:
    """What shares a mean in batch norm, or a refusal naming `op`; None for an empty vector, which PyTorch lets pass.

    So it does an empty input in evaluation without statistics, which is then normalised as in training: by nothing.

    Settings: as those of `batch_norm`.
    """
    running_mean, running_var, w, b, training, momentum, eps = settings
    statistics = {"running_mean": running_mean, "running_var": running_var}
    require_real(op, input=x, **statistics, weight=w, bias=b)
    if x.ndim < 2:
        if x.numel() == 0:
            return None
        raise ValueError(f"{op}: input has shape {list(x.shape)}; it must be [N, C] or [N, C, ...]")
    _fitting(op, x, x.shape[1:2], **statistics, weight=w, bias=b)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"{op}: eps = {eps}; it must be positive, in evaluation at least 0")
    others = tuple(axis for axis in range(x.ndim) if axis != 1)
    how = Sharing("batch", others, others, float(eps), float(momentum))
    if training and how.count(x) == 1:
        raise ValueError(f"{op}: input has shape {list(x.shape)}, one value a map; training needs more than one")
    for name, t in statistics.items():
        if t is None and not training and x.numel():
            raise ValueError(f"{op}: {name} = None; with training = False it must be given")
        if t is None and training and any(other is not None for other in statistics.values()):
            raise ValueError(f"{op}: {name} = None and the other one is given; both must be, or neither")
    if torch.is_grad_enabled():
        refuse_derivative(op, *(t is not None and t.requires_grad for t in statistics.values()))
    return how


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.layer_norm with a backward pass by hand.

    input [..., *normalized_shape]; weight and bias [*normalized_shape]; dtypes as in `batch_norm` -> the same shape and
    dtype as input (under autocast on CUDA: float32). Mean and variance are those of the last axes, one for each place
    of the others. Kept for backward: input, if the gradient of input or weight is asked for, weight if that of input
    is, and two numbers a sample. Raises ValueError for shapes and dtypes that do not fit, TypeError for complex numbers
    and integers. Source: Ba, Kiros and Hinton 2016, sec. 3; derivation at the head of this file.
    """
    op = "layer_norm"
    require_real(op, input=input, weight=weight, bias=bias)
    if isinstance(normalized_shape, int):
        raise TypeError(f"{op}: normalized_shape = {normalized_shape}; it must be a sequence of ints")
    shape, first = list(normalized_shape), input.ndim - len(normalized_shape)
    if not shape or first < 0 or list(input.shape[first:]) != shape:
        raise ValueError(
            f"{op}: input has shape {list(input.shape)} and normalized_shape = {shape}; input must end in "
            "normalized_shape, of one axis or more"
        )
    x, weight, bias = full_precision(input, weight, bias) if input.device.type == "cuda" else (input, weight, bias)
    _fitting(op, x, shape, weight=weight, bias=bias)
    how = Sharing("layer", tuple(range(first, x.ndim)), tuple(range(first)), float(eps))
    return run(Normalise, x, weight, bias, None, None, how)[0]


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """torch.nn.functional.group_norm with a backward pass by hand.

    input [N, C] or [N, C, ...]; weight and bias [C]; dtypes as in `batch_norm` -> the same shape and dtype as input
    (under autocast on CUDA: float32). Mean and variance are those of C / num_groups maps of one image. Kept for
    backward: input, if the gradient of input or weight is asked for, weight if that of input is, and two numbers a
    group. Raises as `layer_norm`, and for one value a group. Source: Wu and He 2018, sec. 3; derivation at the head of
    this file.
    """
    op = "group_norm"
    require_real(op, input=input, weight=weight, bias=bias)
    if input.ndim < 2:
        raise ValueError(f"{op}: input has shape {list(input.shape)}; it must be [N, C] or [N, C, ...]")
    N, C, *size = input.shape
    if num_groups < 1 or C % num_groups:
        raise ValueError(f"{op}: num_groups = {num_groups} must be at least 1 and divide the {C} maps")
    x, weight, bias = full_precision(input, weight, bias) if input.device.type == "cuda" else (input, weight, bias)
    _fitting(op, x, (C,), weight=weight, bias=bias)
    if 0 in (C, *size) or N * C * prod(size) == num_groups:
        raise ValueError(
            f"{op}: input has shape {list(x.shape)} and num_groups = {num_groups}; it must have more than one value "
            "in all for each group, and no map may be empty"
        )
    places = range(3, x.ndim + 1)  # of x taken apart into groups
    how = Sharing("group", (2, *places), (0, *places), float(eps), groups=num_groups)
    return run(Normalise, x, weight, bias, None, None, how)[0]
