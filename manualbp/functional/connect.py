"""Connection tables: each output map sees only some input maps (lecture 001, eq. 1.3).

Only the connected kernels exist. weight[k] is the kernel at place index[k] = o C + c, from input map c to output map o:

    scatter    w[o,c] = sum over {k: index[k] = o C + c} of weight[k], and 0 where no k is      K kernels -> dense
    gather     weight[k] = w[o,c] with o C + c = index[k]                                       dense -> K kernels

Both are linear, and each is the other's adjoint: <delta, scatter(weight)> = sum_oc <delta[o,c], w[o,c]>
= sum_k <delta[index[k]], weight[k]> = <gather(delta), weight>. So a convolution y = correlate(x, scatter(weight)) has

    dL/dx      = full_convolve(delta, scatter(weight))         input maps that are not seen get no error
    dL/dweight = gather(kernel_gradient(x, delta))             kernels that do not exist get no gradient

The dense kernel is made for as long as a convolution takes, and is not kept.

Shapes: weight [K, P, Q], index [K], w [O, C, P, Q]; with groups C counts the input maps of one group.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional._rule import Rule, kept, low_precision, run, same_kind
from manualbp.functional.conv import FullConvolve, KernelGradient, prepared
from manualbp.kernels import connect as kernels
from manualbp.kernels import conv
from manualbp.kernels.geometry import Geometry, Size


class ConnectedCorrelate(Rule):
    """y = correlate(x, scatter(weight)) + b.

    dL/dx = full_convolve(delta, scatter(weight))         kept: weight, if dL/dx is asked for
    dL/dweight = gather(kernel_gradient(x, delta))        kept: x, if dL/dweight is asked for; index
    dL/db[o] = sum_{n,i,j} delta[n,o,i,j]
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, index: Tensor, b: Tensor | None, g: Geometry, O: int, C: int) -> Tensor:
        return conv.correlate(x, kernels.scatter(weight, index, O, C), b, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, index, _, ctx.g, ctx.O, ctx.C = inputs
        x_needed, weight_needed = ctx.needs_input_grad[:2]
        ctx.save_for_backward(kept(x, weight_needed), kept(weight, x_needed), index)
        ctx.save_for_forward(x, weight, index)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, index = ctx.saved_tensors
        x_needed, weight_needed, _, b_needed, *_ = ctx.needs_input_grad
        dx = run(FullConvolve, delta, run(ScatterKernels, weight, index, ctx.O, ctx.C), ctx.g) if x_needed else None
        dweight = run(GatherKernels, run(KernelGradient, x, delta, ctx.g), index) if weight_needed else None
        db = delta.sum((0, 2, 3)) if b_needed else None
        return dx, dweight, None, db, None, None, None


class ConnectedCorrelateDual(ConnectedCorrelate):
    """Forward mode: the product rule."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dweight: Tensor, _: Any, db: Tensor | None, *rest: None) -> Tensor:
        x, weight, index = ctx.saved_tensors
        how = None, ctx.g, ctx.O, ctx.C
        dy = run(ConnectedCorrelate, dx, weight, index, *how) + run(ConnectedCorrelate, x, dweight, index, *how)
        return dy if db is None else dy + db[:, None, None]


class ScatterKernels(Rule):
    """w = the K kernels at their places, zeros elsewhere. dL/dweight = gather(delta); kept: index, not weight."""

    @staticmethod
    def forward(weight: Tensor, index: Tensor, O: int, C: int) -> Tensor:
        return kernels.scatter(weight, index, O, C)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, ctx.O, ctx.C = inputs
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return run(GatherKernels, delta, index), None, None, None


class ScatterKernelsDual(ScatterKernels):
    """Forward mode: linear, so the tangent is scattered alike."""

    @staticmethod
    def jvp(ctx: Any, dweight: Tensor, *_: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return run(ScatterKernels, dweight, index, ctx.O, ctx.C)


class GatherKernels(Rule):
    """weight = the kernels of w at the K places. dL/dw = scatter(eps); kept: index, not w."""

    @staticmethod
    def forward(w: Tensor, index: Tensor) -> Tensor:
        return kernels.gather(w, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        w, index = inputs
        ctx.O, ctx.C = w.shape[:2]
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return run(ScatterKernels, eps, index, ctx.O, ctx.C), None


class GatherKernelsDual(GatherKernels):
    """Forward mode: linear, so the tangent is gathered alike."""

    @staticmethod
    def jvp(ctx: Any, dw: Tensor, _: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return run(GatherKernels, dw, index)


ConnectedCorrelate.dual, ScatterKernels.dual = ConnectedCorrelateDual, ScatterKernelsDual
GatherKernels.dual = GatherKernelsDual


def connected_conv2d(
    input: Tensor,
    weight: Tensor,
    index: Tensor,
    maps: tuple[int, int],
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` under a connection table: with the dense kernel `scatter_kernels(weight, index, maps)`.

    input [N, C groups, H, W] or [C groups, H, W], weight [K, P, Q], bias [O], all of one real dtype (under autocast:
    cast to its dtype); index [K] int64, places o C + c from 0 to O C - 1; maps = (O, C), C the input maps of one group
    -> [N, O, I, J] or [O, I, J]. The other arguments are those of `conv2d`. Kept for backward: input if the gradient of
    weight is asked for, weight if that of input is, and index; not the dense kernel. Raises as `conv2d` and
    `scatter_kernels`. Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    op = "connected_conv2d"
    x, weight, b = low_precision(input, weight, bias)
    same_kind(op, input=x, weight=weight, bias=b)
    O, C = _fitting(op, weight, index, maps)
    x, g = prepared(op, x, (O, C, *weight.shape[1:]), b, stride, padding, dilation, groups)
    try:
        y = run(ConnectedCorrelate, x, weight, index, b, g, O, C)
    except (IndexError, RuntimeError) as error:
        _refuse_outside(op, index, O, C, error)
        raise
    return y if input.ndim == 4 else y.squeeze(0)


def scatter_kernels(weight: Tensor, index: Tensor, maps: tuple[int, int]) -> Tensor:
    """The dense kernel of a connection table: K kernels at their places, zeros elsewhere.

    weight [K, P, Q] of any dtype, index [K] int64, places o C + c from 0 to O C - 1, maps = (O, C) ->
    [O, C, P, Q]. Kernels at one place are added up. Kept for backward: index. Raises ValueError for shapes and places
    that do not fit, TypeError for an index that is not int64.
    Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    O, C = _fitting("scatter_kernels", weight, index, maps)
    try:
        return run(ScatterKernels, weight, index, O, C)
    except (IndexError, RuntimeError) as error:
        _refuse_outside("scatter_kernels", index, O, C, error)
        raise


def gather_kernels(w: Tensor, index: Tensor) -> Tensor:
    """The K kernels of a dense kernel at the places of a connection table: the adjoint of `scatter_kernels`.

    w [O, C, P, Q] of any dtype, index [K] int64, places o C + c from 0 to O C - 1 -> [K, P, Q]. Kept for backward:
    index. Raises as `scatter_kernels`. Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    _places("gather_kernels", index)
    if w.ndim != 4:
        raise ValueError(f"gather_kernels: w has shape {list(w.shape)}; it must be [O, C, P, Q]")
    O, C = w.shape[:2]
    try:
        return run(GatherKernels, w, index.where(index >= 0, O * C))  # no place is counted from the end
    except (IndexError, RuntimeError) as error:
        _refuse_outside("gather_kernels", index, O, C, error)
        raise


def _places(op: str, index: Tensor) -> None:
    """Refuse what is no list of places."""
    if index.dtype != torch.int64:
        raise TypeError(f"{op}: index is {index.dtype}; it must be int64")
    if index.ndim != 1:
        raise ValueError(f"{op}: index has shape {list(index.shape)}; it must be [K]")


def _fitting(op: str, weight: Tensor, index: Tensor, maps: tuple[int, int]) -> tuple[int, int]:
    """O and C, or a refusal of kernels and places that do not fit."""
    _places(op, index)
    if weight.ndim != 3 or weight.shape[0] != index.shape[0]:
        raise ValueError(
            f"{op}: weight has shape {list(weight.shape)} and index {list(index.shape)}; they must be [K, P, Q] and [K]"
        )
    return maps


def _refuse_outside(op: str, index: Tensor, O: int, C: int, error: Exception) -> None:
    """Raise ValueError where a place outside of the dense kernel is the reason of the error."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < O * C:
        raise ValueError(
            f"{op}: index holds places from {int(index.min())} to {int(index.max())}; those of [{O}, {C}] maps are "
            f"0 to {O * C - 1}"
        ) from error
