"""Normalisation by a mean and a variance that are given, as batch norm's in evaluation: a factor and a summand a map.

    y = (x - mean) r w + b        r = 1 / sqrt(var + eps)

mean and var do not depend on x, so dy = r w dx and, as in functional/norm.py,

    dL/dx = r delta w        dL/dw = sum delta (x - mean) r        dL/db = sum delta

Shapes: x, y, delta [N, C, ...]; w, b, mean, var [C]; the sums are over all axes but that of the maps. Letter: r the
reciprocal of the standard deviation. Source: Ioffe and Szegedy 2015, sec. 3.1.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.rule import Rule, keep, kept
from manualbp.kernels import norm as kernels
from manualbp.kernels.layout import hands_on, laid_out
from manualbp.kernels.norm import Sharing
from manualbp.kernels.precision import wide


class NormaliseBy(Rule):
    """y = (x - mean) r w + b with r = 1 / sqrt(var + eps), the statistics given: elementwise, with constants.

    dL/dx = r delta w    dL/dw = sum delta (x - mean) r    dL/db = sum delta    kept: r, w for dx, x and mean for dw

    Not var, but r, and a copy of mean: as running statistics they change in place if a training pass comes
    before backward. Neither has a derivative here, as in PyTorch.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor, var: Tensor, how: Sharing) -> Tensor:
        return kernels.normalise_by(x, w, b, mean, var, how.eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, b, mean, var, ctx.how = inputs
        x_needed, w_needed, *_ = ctx.needs_input_grad
        r = (var.to(wide(x.dtype)) + ctx.how.eps).rsqrt()
        w, ctx.dtypes = kept_weight(w, b, r)
        ctx.last = hands_on(x)
        ctx.set_materialize_grads(False)  # so that `tangent` can tell whether a statistic has one
        keep(ctx, kept(x, w_needed), kept(w, x_needed), kept(mean, w_needed).clone(), kept(r, x_needed or w_needed))

    @staticmethod
    def backward(ctx: Any, delta: Tensor | None) -> tuple[Tensor | None, ...]:
        if delta is None:
            return (None,) * 6
        x, w, mean, r = ctx.saved_tensors
        how, (w_dtype, b_dtype) = ctx.how, ctx.dtypes
        x_needed, w_needed, b_needed, *of_statistics, _ = ctx.needs_input_grad
        refuse_derivative("batch_norm", *of_statistics)
        dx = dw = None
        d = laid_out(delta, ctx.last).to(wide(delta.dtype))
        r = how.spread(r, d) if x_needed or w_needed else r
        db = d.sum(how.along).to(b_dtype) if b_needed else None
        if w_needed:
            z = x.to(d.dtype) - how.spread(mean, x)
            dw = ((d * z).sum(how.along, keepdim=True) * r).sum(how.along).to(w_dtype)
        if x_needed:
            dx = (d * (r * how.spread(w, d) if w_dtype else r)).to(delta.dtype)
        return dx, dw, db, None, None, None

    @staticmethod
    def tangent(
        ctx: Any,
        dx: Tensor | None,
        dw: Tensor | None,
        db: Tensor | None,
        dmean: Tensor | None,
        dvar: Tensor | None,
        _: Any,
    ) -> Tensor:
        """The product rule."""
        refuse_derivative("batch_norm", dmean is not None, dvar is not None)
        x, w, mean, r = ctx.saved_tensors
        how, to, r = ctx.how, wide(x.dtype), ctx.how.spread(r, x)
        dy = torch.zeros_like(x, dtype=to) if dx is None else dx.to(to) * (r * how.spread(w, x) if ctx.dtypes[0] else r)
        dy = dy if dw is None else dy + (x.to(to) - how.spread(mean, x)) * r * how.spread(dw, x)
        return (dy if db is None else dy + how.spread(db, x)).to(x.dtype)


def kept_weight(w: Tensor | None, b: Tensor | None, like: Tensor) -> tuple[Tensor, tuple[torch.dtype | None, ...]]:
    """The weight, an empty tensor if there is none, and the dtypes of weight and bias, None if there are none."""
    return like.new_empty(0) if w is None else w, tuple(None if t is None else t.dtype for t in (w, b))


def refuse_derivative(op: str, *asked: bool) -> None:
    """Refuse a derivative by running_mean or by running_var, as PyTorch does: batch norm takes both for constants."""
    for name, it_is in zip(("running_mean", "running_var"), asked, strict=True):
        if it_is:
            raise ValueError(f"{op}: a derivative by {name} is asked for; there is none: {name} must be a constant")
