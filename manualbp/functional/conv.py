"""Convolution: one trilinear form, three faces, each the derivative of the others.

    F(x, w, delta) = sum_{n,o,i,j,c,p,q} delta[n,o,i,j] x[n,c, s i + d p - pad, s j + d q - pad] w[o,c,p,q]

    correlate(x, w)           y[n,o,i,j]  = dF/d delta     the kernel slid over the image     (lecture 002, eq. 2.2)
    full_convolve(delta, w)   dx[n,c,h,k] = dF/dx          the ROTATED kernel slid over the zero-padded delta (2.3)
    kernel_gradient(x, delta) dw[o,c,p,q] = dF/dw          delta slid over the layer's input  (lecture 002, eq. 2.4)

F is linear in each argument, so L(y) with delta = dL/dy has dL/dx = dF/dx and dL/dw = dF/dw. Each face is linear in
two arguments, and its derivatives by them are the other two faces: the set is closed, every order exists.

Why full convolution: pixel h of x meets tap p of the window at i where s i + d p - pad = h. For s = d = 1, pad = 0 that
is i = h - p, so dx[h] = sum_p delta[h - p] w[p]: delta and w run in opposite directions, which is the kernel rotated by
180 degrees and slid over delta with P - 1 zeros on each side (lecture 001, eq. 1.4). The lectures' forward pass is the
true convolution, with the rotation there; torch.nn's and this one's is the cross-correlation, with the rotation here.

One axis, three axes. Each axis has a condition of its own on which pixel is under which tap of which window. The
derivation uses that of one axis and never that there are two: with as many of the letters h, i, p as there are axes F
is as linear in x, w and delta, and its faces are each other's derivatives. So the rules are the same; a geometry of
one, two or three axes tells them what to sum over.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], b [O], y and delta [N, O, I, J]; with one axis H, P and I alone, with
three D, R and M before them. Letters: kernels.geometry.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import low_precision, require_floating, same_kind
from manualbp.functional.pad import pad
from manualbp.functional.rule import BilinearRule, run
from manualbp.kernels import conv as kernels
from manualbp.kernels.geometry import Geometry, Size, convolution, per_axis
from manualbp.kernels.layout import laid_out


class Correlate(BilinearRule):
    """y = dF/d delta + b.

    dL/dx = full_convolve(delta, w)          kept: w, if dL/dx is asked for
    dL/dw = kernel_gradient(x, delta)        kept: x, if dL/dw is asked for
    dL/db[o] = sum_{n,i,j} delta[n,o,i,j]    b stands once in every y[n,o,i,j] (lecture 003, eq. 3.4)
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
        return kernels.correlate(x, w, b, g)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (x, w), (g,) = ctx.saved_tensors, ctx.settings
        x_needed, w_needed, b_needed, _ = ctx.needs_input_grad
        dx = run(FullConvolve, delta, w, None, g) if x_needed else None
        if dx is not None:
            dx = laid_out(dx, g.last and 1 in delta.shape)  # one number a map, or one map, shows PyTorch no layout
        dw = run(KernelGradient, x, delta, g) if w_needed else None
        db = over_all_but_maps(delta) if b_needed else None
        return dx, dw, db, None


class FullConvolve(BilinearRule):
    """dx = dF/dx + b; b only where it is a layer's forward pass (functional.conv_transpose). With eps = dL/d(dx):

    dL/d delta = correlate(eps, w)    dL/dw = kernel_gradient(eps, delta)    kept: the other factor of each
    dL/db[c] = sum_{n,h,k} eps[n,c,h,k]
    """

    @staticmethod
    def forward(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
        return kernels.full_convolve(delta, w, b, g)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (delta, w), (g,) = ctx.saved_tensors, ctx.settings
        delta_needed, w_needed, b_needed, _ = ctx.needs_input_grad
        ddelta = run(Correlate, eps, w, None, g) if delta_needed else None
        dw = run(KernelGradient, eps, delta, g) if w_needed else None
        db = over_all_but_maps(eps) if b_needed else None
        return ddelta, dw, db, None


class KernelGradient(BilinearRule):
    """dw = dF/dw. With eps = dL/d(dw), of the shape of w:

    dL/dx = full_convolve(delta, eps)    dL/d delta = correlate(x, eps)    kept: the other factor of each
    """

    @staticmethod
    def forward(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
        return kernels.kernel_gradient(x, delta, g)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (x, delta), (g,) = ctx.saved_tensors, ctx.settings
        x_needed, delta_needed, _ = ctx.needs_input_grad
        dx = run(FullConvolve, delta, eps, None, g) if x_needed else None
        ddelta = run(Correlate, x, eps, None, g) if delta_needed else None
        return dx, ddelta, None


def over_all_but_maps(delta: Tensor) -> Tensor:
    """db[o] = sum_{n,i,j} delta[n,o,i,j]."""
    return delta.sum((0, *range(2, delta.ndim)))


def batched(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """x as [N, C, *size]: one image as a batch, and zeros behind the pixels where there are fewer."""
    x = x if x.ndim == len(size) + 2 else x.unsqueeze(0)
    if tuple(x.shape[2:]) == size:
        return x
    behind = [extent - own for extent, own in zip(size, x.shape[2:], strict=True)]
    return pad(x, [side for more in reversed(behind) for side in (0, more)])


def correlated(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """A layer: y = correlate(x, w) + b, of one image or a batch, with the odd pixel of uneven "same" padding."""
    images = batched(x, g.x_size)
    if images.shape[1]:
        y = run(Correlate, images, w, b, g.of(images, w))
    else:  # of no maps PyTorch makes none, whatever O is
        y = of_no_numbers((images.shape[0], 0, *g.y_size), images, w, b)
    return y if x.ndim == len(g.x_size) + 2 else y.squeeze(0)


def of_no_numbers(size: Sequence[int], x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """An output that holds no numbers, so that nothing has a gradient but 0."""
    return (x.sum() + w.sum() + (0 if b is None else b.sum())) * x.new_zeros(size)


def _images(op: str, name: str, t: Tensor, maps: int | None = None) -> None:
    """Refuse what is not [N, maps, H, W]."""
    if t.ndim != 4 or (maps is not None and t.shape[1] != maps):
        wanted = "C" if maps is None else str(maps)
        raise ValueError(f"{op}: {name} has shape {list(t.shape)}; it must be [N, {wanted}, H, W]")


def correlate(x: Tensor, w: Tensor, stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation: the kernel slid over the image, without bias.

    x [N, C, H, W], w [O, C / groups, P, Q] of one dtype, floating or int64 -> [N, O, I, J] with I = floor((H + 2
    padding - dilation (P - 1) - 1) / stride) + 1. Kept for backward: x if the gradient of w is asked for, w if that of
    x is. Raises ValueError for shapes, strides ... that do not fit, TypeError for complex numbers. Source: lecture 002,
    eq. 2.2, without the rotation; with hand-made kernels (blur, edges) lecture 004, eq. 4.9; derivation at the head of
    this file.
    """
    op = "correlate"
    same_kind(op, x=x, w=w)
    require_floating(op, torch.int64, x=x)
    _images(op, "x", x)
    padding = per_axis(op, "padding", padding, 2, 0)  # in numbers: "same" may be that of another image
    g = convolution(op, x.shape, w.shape, stride, padding, dilation, groups)
    return run(Correlate, x, w, None, g.of(x, w))


def full_convolve(
    delta: Tensor,
    w: Tensor,
    size: Sequence[int],
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Full convolution: the rotated kernel slid over the zero-padded delta, the adjoint of `correlate` in x.

    delta [N, O, I, J], w [O, C / groups, P, Q] of one dtype, floating or int64, size = (H, W) of the image that was
    correlated (the stride hides it from delta) -> [N, C, H, W]. Kept for backward: delta if the gradient of w is asked
    for, w if that of delta is. Raises as `correlate`, and ValueError where `size` does not lead to delta's extents.
    Source: lecture 002, eq. 2.3; lecture 001, eq. 1.4; derivation at the head of this file.
    """
    op = "full_convolve"
    same_kind(op, delta=delta, w=w)
    require_floating(op, torch.int64, delta=delta)
    H, W = size
    C = w.shape[1] * groups if w.ndim == 4 else 0
    padding = per_axis(op, "padding", padding, 2, 0)
    g = convolution(op, (delta.shape[0], C, H, W), w.shape, stride, padding, dilation, groups)
    _images(op, "delta", delta, w.shape[0])
    _positions(op, delta, g)
    return run(FullConvolve, delta, w, None, g.of(delta, w))


def kernel_gradient(
    x: Tensor,
    delta: Tensor,
    size: Sequence[int],
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Kernel gradient: delta slid over the layer's input, the derivative of <delta, correlate(x, w)> by w.

    x [N, C, H, W], delta [N, O, I, J] of one dtype, floating or int64, size = (P, Q) of the kernel (the stride hides
    it) -> [O, C / groups, P, Q]. Kept for backward: x if the gradient of delta is asked for, delta if that of x is.
    Raises as `correlate`, and ValueError where `size` does not lead to delta's extents.
    Source: lecture 002, eq. 2.4; lecture 001, eq. 1.5; derivation at the head of this file.
    """
    op = "kernel_gradient"
    same_kind(op, x=x, delta=delta)
    require_floating(op, torch.int64, x=x)
    _images(op, "x", x)
    _images(op, "delta", delta)
    if delta.shape[0] != x.shape[0]:
        raise ValueError(f"{op}: x has {x.shape[0]} images and delta {delta.shape[0]}; they must be as many")
    P, Q = size
    per_group = x.shape[1] // groups if groups > 0 else 0
    padding = per_axis(op, "padding", padding, 2, 0)
    g = convolution(op, x.shape, (delta.shape[1], per_group, P, Q), stride, padding, dilation, groups)
    _positions(op, delta, g)
    return run(KernelGradient, x, delta, g.of(x, delta))


def _positions(op: str, delta: Tensor, g: Geometry) -> None:
    """Refuse a delta whose extents are not those of the output."""
    if tuple(delta.shape[2:]) != g.y_size:
        raise ValueError(
            f"{op}: delta has extents {list(delta.shape[2:])}; an image of {list(g.x_size)} under a kernel of "
            f"{list(g.w_size)} with stride {list(g.stride)}, padding {list(g.padding)} and dilation "
            f"{list(g.dilation)} has {list(g.y_size)}"
        )


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """torch.nn.functional.conv2d with a backward pass by hand.

    input [N, C, H, W] or [C, H, W], weight [O, C / groups, P, Q], bias [O], all of one dtype, floating or int64 (under
    autocast: cast to its dtype) -> [N, O, I, J] or [O, I, J] with extents as `correlate`'s, channels_last if input or
    weight is. padding: an int or two, or "valid" (none), or "same" (H and W stay; stride must be 1; an odd pixel is
    added below and on the right). Kept for backward: input if the gradient of weight is asked for, weight if that of
    input is; nothing for bias. Raises ValueError for shapes and settings that do not fit, TypeError for complex
    numbers.
    Source: lecture 002, eq. 2.2, 2.3 and 2.4; lecture 004, eq. 4.6 and 4.7; derivation at the head of this file.
    """
    x, w, b = low_precision("conv2d", input=input, weight=weight, bias=bias)
    require_floating("conv2d", torch.int64, input=x)
    g = convolution("conv2d", x.shape, w.shape, stride, padding, dilation, groups, b, axes=2, least=0)
    return correlated(x, w, b, g)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """torch.nn.functional.conv1d with a backward pass by hand.

    input [N, C, H] or [C, H], weight [O, C / groups, P], bias [O] -> [N, O, I] or [O, I]. padding, kept for backward,
    raises, source: as `conv2d`, with one axis.
    """
    x, w, b = low_precision("conv1d", input=input, weight=weight, bias=bias)
    require_floating("conv1d", torch.int64, input=x)
    g = convolution("conv1d", x.shape, w.shape, stride, padding, dilation, groups, b, axes=1, least=0)
    return correlated(x, w, b, g)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """torch.nn.functional.conv3d with a backward pass by hand.

    input [N, C, D, H, W] or [C, D, H, W], weight [O, C / groups, R, P, Q], bias [O] -> [N, O, M, I, J] or [O, M, I, J],
    channels_last_3d if input or weight is. padding, kept for backward, raises, source: as `conv2d`, with three axes.
    """
    x, w, b = low_precision("conv3d", input=input, weight=weight, bias=bias)
    require_floating("conv3d", torch.int64, input=x)
    g = convolution("conv3d", x.shape, w.shape, stride, padding, dilation, groups, b, axes=3, least=0)
    return correlated(x, w, b, g)


__all__ = ["conv1d", "conv2d", "conv3d", "correlate", "full_convolve", "kernel_gradient"]
