"""Pooling: it learns nothing, the error is sent back to where it came from (lecture 004, eq. 4.8).

Maximum. y[n,c,i,j] = x[n,c] at index[n,c,i,j], the position of the largest value of the window (the first of equals).
Away from ties the index stands still when x moves a little, so the map is linear in x: take at the index. Its adjoint
puts delta there and adds up where windows overlap (lecture 001, eq. 1.6): <delta, take x> = <put delta, x>.

Mean. y[n,c,i,j] = 1/m^2 sum over the window. Its adjoint spreads delta/m^2 over the window and adds up (lecture 001,
eq. 1.7): <delta, mean x> = <spread delta, x>. For padded, overhanging or overridden windows m^2 is the divisor there.

Shapes: x [N, C, H, W]; y, delta and index [N, C, I, J]. Letters: kernels.geometry.
"""

from typing import Any

from torch import Tensor

from manualbp.functional._rule import Rule, refuse_complex, run
from manualbp.kernels import pool as kernels
from manualbp.kernels.geometry import Geometry, Places, Size, pooling


class MaxPool(Rule):
    """y = take(x, index), index = argmax of each window. dL/dx = put(delta, index); kept: index, not x."""

    @staticmethod
    def forward(x: Tensor, g: Geometry) -> tuple[Tensor, Tensor]:
        return kernels.max_pool(x, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, g = inputs
        _, index = output
        ctx.places = g.places
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return run(Put, delta, index, ctx.places), None


class MaxPoolDual(MaxPool):
    """Forward mode: the tangent is taken at the same positions."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return run(Take, dx, index, ctx.places), None


class Take(Rule):
    """y[n,c,i,j] = x[n,c] at index[n,c,i,j]. dL/dx = put(delta, index); kept: index."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, places: Places) -> Tensor:
        return kernels.take(x, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, ctx.places = inputs
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return run(Put, delta, index, ctx.places), None, None


class TakeDual(Take):
    """Forward mode: linear, so the tangent is taken alike."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return run(Take, dx, index, ctx.places)


class Put(Rule):
    """dx[n,c] at index[n,c,i,j] += delta[n,c,i,j]. Its derivative by delta takes: take(eps, index); kept: index."""

    @staticmethod
    def forward(delta: Tensor, index: Tensor, places: Places) -> Tensor:
        return kernels.put(delta, index, places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, ctx.places = inputs
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return run(Take, eps, index, ctx.places), None, None


class PutDual(Put):
    """Forward mode: linear, so the tangent is put alike."""

    @staticmethod
    def jvp(ctx: Any, ddelta: Tensor, *_: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return run(Put, ddelta, index, ctx.places)


class WindowMean(Rule):
    """y[n,c,i,j] = 1/m^2 sum_window x. dL/dx = spread(delta); kept: nothing."""

    @staticmethod
    def forward(x: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
        return kernels.window_mean(x, g, count_include_pad, override)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None, None]:
        return run(WindowSpread, delta, *ctx.how), None, None, None


class WindowMeanDual(WindowMean):
    """Forward mode: linear, so the tangent is averaged alike."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        return run(WindowMean, dx, *ctx.how)


class WindowSpread(Rule):
    """dx[n,c,h,k] = sum over the windows that see (h, k) of delta[n,c,i,j]/m^2. Its derivative by delta is the mean."""

    @staticmethod
    def forward(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
        return kernels.window_spread(delta, g, count_include_pad, override)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None, None]:
        return run(WindowMean, eps, *ctx.how), None, None, None


class WindowSpreadDual(WindowSpread):
    """Forward mode: linear, so the tangent is spread alike."""

    @staticmethod
    def jvp(ctx: Any, ddelta: Tensor, *_: None) -> Tensor:
        return run(WindowSpread, ddelta, *ctx.how)


MaxPool.dual, Take.dual, Put.dual = MaxPoolDual, TakeDual, PutDual
WindowMean.dual, WindowSpread.dual = WindowMeanDual, WindowSpreadDual


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """torch.nn.functional.max_pool2d with a backward pass by hand.

    input [N, C, H, W] or [C, H, W] of any real dtype -> y [N, C, I, J] or [C, I, J]; with return_indices (y, index),
    index int64, positions h W + k in their map. stride None: the kernel's extents. Padding counts as -infinity. At
    ties the first of equals gets the gradient, NaN wins. Kept for backward: the index (8 bytes an output), not the
    input. Raises ValueError for settings that do not fit, TypeError for complex numbers.
    Source: lecture 001, eq. 1.6; lecture 004, eq. 4.8; derivation at the head of this file.
    """
    refuse_complex("max_pool2d", input=input)
    g = pooling("max_pool2d", input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    batched = input.ndim == 4
    y, index = run(MaxPool, input if batched else input.unsqueeze(0), g)
    if not batched:
        y, index = y.squeeze(0), index.squeeze(0)
    return (y, index) if return_indices else y


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """torch.nn.functional.avg_pool2d with a backward pass by hand.

    input [N, C, H, W] or [C, H, W] -> y [N, C, I, J] or [C, I, J], each window's sum over m^2 = P Q, over the pixels of
    the image in it (count_include_pad=False), or over divisor_override. stride None: the kernel's extents. Kept for
    backward: nothing. Raises ValueError for settings that do not fit, TypeError for complex numbers.
    Source: lecture 001, eq. 1.7; derivation at the head of this file.
    """
    refuse_complex("avg_pool2d", input=input)
    g = pooling("avg_pool2d", input.shape, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override = 0; it must not be 0")
    batched = input.ndim == 4
    y = run(WindowMean, input if batched else input.unsqueeze(0), g, bool(count_include_pad), divisor_override)
    return y if batched else y.squeeze(0)
