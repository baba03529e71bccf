"""Pooling: it learns nothing, the error is sent back to where it came from (lecture 004, eq. 4.8).

Maximum. y[n,c,i,j] = x[n,c] at place[n,c,i,j], that of the largest value of the window (the first of equals).
Away from ties the place stands still when x moves a little, so the map is linear in x: take at the place. Its adjoint
puts delta there and adds up where windows overlap (lecture 001, eq. 1.6): <delta, take x> = <put delta, x>.

The window [n,c,i,j] is known backward, too, so its pixel is all that has to be kept: one byte names up to 256 of them.
Where positions in the image are asked for, they are kept: index = h W + k.

Mean. y[n,c,i,j] = 1/m^2 sum over the window. Its adjoint spreads delta/m^2 over the window and adds up (lecture 001,
eq. 1.7): <delta, mean x> = <spread delta, x>. For padded, overhanging or overridden windows m^2 is the divisor there.

Shapes: x [N, C, H, W]; y, delta and place [N, C, I, J]. Letters: kernels.geometry.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import INTEGERS, require_floating, require_real
from manualbp.functional.rule import ImagesRule, LinearRule, Rule, keep, run
from manualbp.kernels import pool as kernels
from manualbp.kernels.geometry import Geometry, Places, Size, pooling


class MaxPool(Rule):
    """y = take(x, place), place = argmax of each window. dL/dx = put(delta, place); kept: place, not x.

    place: a byte, or with as_index the position in the image.
    """

    @staticmethod
    def forward(x: Tensor, g: Geometry, as_index: bool) -> tuple[Tensor, Tensor]:
        return kernels.max_pool(x, g) if as_index else kernels.max_pool_by_bytes(x, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, g, _ = inputs
        _, place = output
        ctx.places = g.places
        ctx.mark_non_differentiable(place)
        keep(ctx, place)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return run(Put, delta, place, ctx.places), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> tuple[Tensor, None]:
        """The tangent is taken at the same places."""
        (place,) = ctx.saved_tensors
        return run(Take, dx, place, ctx.places), None


class Take(LinearRule, ImagesRule):
    """y[n,c,i,j] = x[n,c] at place[n,c,i,j]. dL/dx = put(delta, place); kept: place."""

    @staticmethod
    def forward(x: Tensor, place: Tensor, places: Places) -> Tensor:
        return kernels.take(x, place, places)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        return run(Put, delta, *ctx.saved_tensors, *ctx.settings), None, None


class Put(LinearRule, ImagesRule):
    """dx[n,c] at place[n,c,i,j] += delta[n,c,i,j]. Its derivative by delta takes: take(eps, place); kept: place."""

    @staticmethod
    def forward(delta: Tensor, place: Tensor, places: Places) -> Tensor:
        return kernels.put(delta, place, places)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        return run(Take, eps, *ctx.saved_tensors, *ctx.settings), None, None


class WindowMean(LinearRule):
    """y[n,c,i,j] = 1/m^2 sum_window x. dL/dx = spread(delta); kept: nothing."""

    @staticmethod
    def forward(x: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
        return kernels.window_mean(x, g, count_include_pad, override)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None, None]:
        return run(WindowSpread, delta, *ctx.settings), None, None, None


class WindowSpread(LinearRule):
    """dx[n,c,h,k] = sum over the windows that see (h, k) of delta[n,c,i,j]/m^2. Its derivative by delta is the mean."""

    @staticmethod
    def forward(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
        return kernels.window_spread(delta, g, count_include_pad, override)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None, None]:
        return run(WindowMean, eps, *ctx.settings), None, None, None


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

    input [N, C, H, W] or [C, H, W] of any real dtype but bool -> y [N, C, I, J] or [C, I, J]; with return_indices
    (y, index), index int64, positions h W + k in their map. stride None: the kernel's extents. Padding counts as
    -infinity. At ties the first of equals gets the gradient, NaN wins. Kept for backward, not the input: the place in
    the window (one byte an output); the index (8 bytes) with return_indices and for windows of more than 256 pixels.
    Raises ValueError for settings that do not fit, TypeError for complex numbers.
    Source: lecture 001, eq. 1.6; lecture 004, eq. 4.8; derivation at the head of this file.
    """
    require_real("max_pool2d", input=input)
    require_floating("max_pool2d", *INTEGERS, input=input)
    g = pooling("max_pool2d", input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    batched = input.ndim == 4
    as_index = bool(return_indices) or g.w_size[0] * g.w_size[1] > 256
    y, place = run(MaxPool, input if batched else input.unsqueeze(0), g, as_index)
    if not batched:
        y, place = y.squeeze(0), place.squeeze(0)
    return (y, place) if return_indices else y


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

    input [N, C, H, W] or [C, H, W] of a floating dtype or int64 -> y [N, C, I, J] or [C, I, J], each window's sum over
    m^2 = P Q, over the pixels of the image in it (count_include_pad=False), or over divisor_override. stride None: the
    kernel's extents. Kept for backward: nothing. Raises ValueError for settings that do not fit, TypeError for other
    dtypes. Source: lecture 001, eq. 1.7; derivation at the head of this file.
    """
    require_real("avg_pool2d", input=input)
    require_floating("avg_pool2d", torch.int64, input=input)
    g = pooling("avg_pool2d", input.shape, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override = 0; it must not be 0")
    batched = input.ndim == 4
    x = input if batched else input.unsqueeze(0)
    y = run(WindowMean, x, g.of(x), bool(count_include_pad), divisor_override)
    return y if batched else y.squeeze(0)
