"""Connection tables: each output map sees only some input maps (lecture 001, eq. 1.3).

Only the connected kernels exist: weight[k] leads from input map c[k] to output map o[k], two lists of maps.

    scatter    w[o,c] = sum over {k: o[k] = o, c[k] = c} of weight[k], and 0 where no k is      K kernels -> dense
    gather     weight[k] = w[o[k],c[k]]                                                         dense -> K kernels

Both are linear, and each is the other's adjoint: <delta, scatter(weight)> = sum_oc <delta[o,c], w[o,c]>
= sum_k <delta[o[k],c[k]], weight[k]> = <gather(delta), weight>. So a convolution y = correlate(x, scatter(weight)) has

    dL/dx      = full_convolve(delta, scatter(weight))         input maps that are not seen get no error
    dL/dweight = gather(kernel_gradient(x, delta))             kernels that do not exist get no gradient

Shapes: weight [K, P, Q], o and c [K], w [O, C, P, Q]; with groups C counts the input maps of one group.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import dense_dtype, low_precision, require_floating, require_tensors
from manualbp.functional.conv import Correlate, FullConvolve, KernelGradient, batched, over_all_but_maps
from manualbp.functional.rule import LinearRule, Rule, keep, kept, run
from manualbp.kernels import connect as kernels
from manualbp.kernels import conv
from manualbp.kernels.connect import Table
from manualbp.kernels.geometry import Geometry, Size, convolution


class ConnectedCorrelate(Rule):
    """w = scatter(weight), y = correlate(x, w) + b. w is an output, too, so that it can be kept and still derived.

    dL/dx = full_convolve(delta, w)                                    kept: w, if dL/dx is asked for
    dL/dweight = gather(kernel_gradient(x, delta)) + gather(eps)       kept: x, if dL/dweight is asked for; o, c
    dL/db[o] = sum_{n,i,j} delta[n,o,i,j]

    eps = dL/dw, the error that reaches w itself: there is none but in the derivative of dL/dx.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, o: Tensor, c: Tensor, b: Tensor | None, g: Geometry, table: Table
    ) -> tuple[Tensor, Tensor]:
        w = kernels.scatter(weight, o, c, table, channels_last=x.stride(1) == 1)
        return conv.correlate(x, w, b, g), w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, _, o, c, _, ctx.g, ctx.table = inputs
        x_needed, weight_needed = ctx.needs_input_grad[:2]
        ctx.set_materialize_grads(False)
        keep(ctx, kept(x, weight_needed), kept(output[1], x_needed), o, c)

    @staticmethod
    def backward(ctx: Any, delta: Tensor | None, eps: Tensor | None) -> tuple[Tensor | None, ...]:
        x, w, o, c = ctx.saved_tensors
        x_needed, weight_needed, _, _, b_needed, *_ = ctx.needs_input_grad
        dx = dweight = db = None
        if delta is not None:
            dx = run(FullConvolve, delta, w, None, ctx.g) if x_needed else None
            db = over_all_but_maps(delta) if b_needed else None
            if weight_needed:
                dw = run(KernelGradient, x, delta, ctx.g)
                dweight = run(GatherKernels, dw, o, c, ctx.table)
        if eps is not None and weight_needed:
            through_w = run(GatherKernels, eps, o, c, ctx.table)
            dweight = through_w if dweight is None else dweight + through_w
        return dx, dweight, None, None, db, None, None

    @staticmethod
    def tangent(
        ctx: Any, dx: Tensor | None, dweight: Tensor | None, do: None, dc: None, db: Tensor | None, *_: None
    ) -> tuple[Tensor, Tensor]:
        """The product rule."""
        x, w, o, c = ctx.saved_tensors
        dw = torch.zeros_like(w) if dweight is None else run(ScatterKernels, dweight, o, c, ctx.table)
        dy = run(Correlate, x, dw, db, ctx.g)
        return (dy if dx is None else dy + run(Correlate, dx, w, None, ctx.g)), dw


class ScatterKernels(LinearRule):
    """w = the K kernels added at their places, zeros elsewhere. dL/dweight = gather(delta); kept: o, c."""

    @staticmethod
    def forward(weight: Tensor, o: Tensor, c: Tensor, table: Table) -> Tensor:
        return kernels.scatter(weight, o, c, table)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return run(GatherKernels, delta, *ctx.saved_tensors, *ctx.settings), None, None, None


class GatherKernels(LinearRule):
    """weight = the kernels of w at the K places. dL/dw = scatter(eps); kept: o, c."""

    @staticmethod
    def forward(w: Tensor, o: Tensor, c: Tensor, table: Table) -> Tensor:
        return kernels.gather(w, o, c)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        return run(ScatterKernels, eps, *ctx.saved_tensors, *ctx.settings), None, None, None


def connected_conv2d(
    input: Tensor,
    weight: Tensor,
    o: Tensor,
    c: Tensor,
    maps: tuple[int, int],
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    distinct: bool = False,
) -> Tensor:
    """`conv2d` under a connection table: with the dense kernel `scatter_kernels(weight, o, c, maps)`.

    input [N, C groups, H, W] or [C groups, H, W], weight [K, P, Q], bias [O], all of one dtype, floating or int64,
    (under autocast: cast to its dtype); o and c [K] int64, the output and the input map of each kernel; maps = (O, C),
    C the input maps of one group -> [N, O, I, J] or [O, I, J]. distinct: no two kernels have the same maps, which is a
    promise, and faster for large tables. The other arguments are those of `conv2d`. Kept for backward: input if the
    gradient of weight is asked for, the dense kernel if that of input is, and o and c. Raises as `conv2d` and
    `scatter_kernels`.
    Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    op = "connected_conv2d"
    x, weight, b = low_precision(op, input=input, weight=weight, bias=bias)
    require_floating(op, torch.int64, input=x)
    require_tensors(op, o=o, c=c)
    _fitting(op, weight, o, c)
    g = convolution(op, x.shape, (*maps, *weight.shape[1:]), stride, padding, dilation, groups, b)
    table = Table(*maps, distinct)
    images = batched(x, g.x_size)
    y, _ = _within(op, table, o, c, ConnectedCorrelate, images, weight, o, c, b, g.of(images), table)
    return y if input.ndim == 4 else y.squeeze(0)


def scatter_kernels(weight: Tensor, o: Tensor, c: Tensor, maps: tuple[int, int]) -> Tensor:
    """The dense kernel of a connection table: K kernels at their places, zeros elsewhere.

    weight [K, P, Q] of any dtype; o and c [K] int64, for each kernel its output map, from 0 to O - 1, and its input
    map, from 0 to C - 1 (or counted from the end: -1 is the last one); maps = (O, C) -> [O, C, P, Q]. Kernels at one
    place are added up. Kept for backward: o and c. Raises ValueError for shapes and maps that do not fit, TypeError
    where o or c is not int64.
    Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    dense_dtype("scatter_kernels", "weight", weight)
    require_tensors("scatter_kernels", o=o, c=c)
    _fitting("scatter_kernels", weight, o, c)
    table = Table(*maps, distinct=False)
    return _within("scatter_kernels", table, o, c, ScatterKernels, weight, o, c, table)


def gather_kernels(w: Tensor, o: Tensor, c: Tensor) -> Tensor:
    """The K kernels of a dense kernel at the places of a connection table: the adjoint of `scatter_kernels`.

    w [O, C, P, Q] of any dtype, o and c [K] int64 as for `scatter_kernels` -> [K, P, Q]. Kept for backward: o and c.
    Raises as `scatter_kernels`. Source: lecture 001, eq. 1.3; derivation at the head of this file.
    """
    require_tensors("gather_kernels", w=w, o=o, c=c)
    _places("gather_kernels", o, c)
    if w.ndim != 4:
        raise ValueError(f"gather_kernels: w has shape {list(w.shape)}; it must be [O, C, P, Q]")
    table = Table(*w.shape[:2], distinct=False)
    return _within("gather_kernels", table, o, c, GatherKernels, w, o, c, table)


def _places(op: str, o: Tensor, c: Tensor) -> None:
    """Refuse what is no pair of lists of maps."""
    for name, maps in (("o", o), ("c", c)):
        if maps.dtype != torch.int64:
            raise TypeError(f"{op}: {name} is {maps.dtype}; it must be int64")
    if o.ndim != 1 or o.shape != c.shape:
        raise ValueError(f"{op}: o has shape {list(o.shape)} and c {list(c.shape)}; both must be [K]")


def _fitting(op: str, weight: Tensor, o: Tensor, c: Tensor) -> None:
    """Refuse kernels and places that do not fit."""
    _places(op, o, c)
    if weight.ndim != 3 or weight.shape[0] != o.shape[0]:
        raise ValueError(
            f"{op}: weight has shape {list(weight.shape)} and o {list(o.shape)}; they must be [K, P, Q] and [K]"
        )


def _within(op: str, table: Table, o: Tensor, c: Tensor, rule: type[Rule], *args: Any) -> Any:
    """What the rule makes of its arguments; ValueError where it fails for a map outside of the dense kernel."""
    try:
        return run(rule, *args)
    except IndexError as error:
        for name, which, maps, n in (("o", "output", o, table.O), ("c", "input", c, table.C)):
            if maps.numel() and not -n <= int(maps.min()) <= int(maps.max()) < n:
                raise ValueError(
                    f"{op}: {name} holds {which} maps from {int(maps.min())} to {int(maps.max())}; maps = "
                    f"[{table.O}, {table.C}], so they must be from 0 to {n - 1}"
                ) from error
        raise
