"""Adaptive pooling: as many windows as outputs are asked for, whatever the extents of the image.

Of I windows over H pixels the i-th sees the pixels h with floor(i H / I) <= h < ceil((i + 1) H / I). Where I divides H
this is plain pooling with windows of H / I pixels side by side; else some windows overlap by a pixel, and where I > H
pixels are seen repeatedly.

Mean. With A[i,h] = [window i sees h] / (pixels of window i) along the rows and B[j,k] likewise along the columns

    y[n,c,i,j] = sum_{h,k} A[i,h] B[j,k] x[n,c,h,k]               y  = A x B^T for every map

dL/dx[n,c,h,k] = sum_{i,j} A[i,h] B[j,k] delta[n,c,i,j]           dx = A^T delta B

Each delta is spread over its window, divided by its pixels (lecture 001, eq. 1.7): <delta, mean x> = <spread delta, x>.
For one window, the global average, every pixel has delta / (H W).

Maximum. As in pool: y is x taken at the index of the largest value, and delta is put there (lecture 001, eq. 1.6).

Shapes: x [N, C, H, W]; y, delta and index [N, C, I, J]; eps = dL/d(dx).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import require_floating, require_real
from manualbp.functional.pool import Put, Take
from manualbp.functional.rule import LinearRule, Rule, keep, run
from manualbp.kernels import adaptive as kernels
from manualbp.kernels.adaptive import Windows
from manualbp.kernels.layout import maps_last

Extents = int | None | Sequence[int | None]


def _windows(x: Tensor, I: int, J: int) -> Windows:
    """The windows, from inside of a rule: torch.compile knows no extents of any size there but those of its tensors."""
    H, W = x.shape[2:]
    return Windows((H, W), (I, J), maps_last(x))


class AdaptiveMean(LinearRule):
    """y = A x B^T. dL/dx = spread(delta); kept: nothing."""

    @staticmethod
    def forward(x: Tensor, I: int, J: int) -> Tensor:
        return kernels.mean(x, I, J)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.settings = inputs
        ctx.windows = _windows(*inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        return run(AdaptiveSpread, delta, ctx.windows), None, None


class AdaptiveSpread(LinearRule):
    """dx = A^T delta B. Its derivative by delta is the mean; kept: nothing."""

    @staticmethod
    def forward(delta: Tensor, windows: Windows) -> Tensor:
        return kernels.spread(delta, windows)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        (windows,) = ctx.settings
        ddelta = run(AdaptiveMean, eps, *windows.y_size)
        return ddelta if eps.numel() else torch.zeros_like(ddelta), None  # dx held no numbers


class AdaptiveMax(Rule):
    """y = take(x, index), index = argmax of each window. dL/dx = put(delta, index); kept: index, not x."""

    @staticmethod
    def forward(x: Tensor, I: int, J: int) -> tuple[Tensor, Tensor]:
        return kernels.max_pool(x, I, J)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, index = output
        ctx.places = _windows(*inputs).places
        ctx.mark_non_differentiable(index)
        keep(ctx, index)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return run(Put, delta, index, ctx.places), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> tuple[Tensor, None]:
        """The tangent is taken at the same positions."""
        (index,) = ctx.saved_tensors
        return run(Take, dx, index, ctx.places), None


def adaptive_avg_pool2d(input: Tensor, output_size: Extents) -> Tensor:
    """torch.nn.functional.adaptive_avg_pool2d with a backward pass by hand.

    input [N, C, H, W] or [C, H, W] of any floating dtype -> y [N, C, I, J] or [C, I, J], the means of I x J windows.
    output_size: (I, J), or one number for both; None: as many as the image has pixels. Kept for backward: nothing; for
    one window the gradient is one number a map, expanded. Raises ValueError for shapes and extents that do not fit,
    TypeError for complex numbers. Source: lecture 001, eq. 1.7; derivation at the head of this file.
    """
    I, J = _extents("adaptive_avg_pool2d", input, output_size, -2)  # one mean of no pixels is no number
    batched = input.ndim == 4
    y = run(AdaptiveMean, input if batched else input.unsqueeze(1), I, J)  # C maps alone, of which there may be none
    return y if batched else y.squeeze(1)


def adaptive_max_pool2d(input: Tensor, output_size: Extents, return_indices: bool = False) -> Any:
    """torch.nn.functional.adaptive_max_pool2d with a backward pass by hand.

    input [N, C, H, W] or [C, H, W] of any floating dtype -> y [N, C, I, J] or [C, I, J], the largest values of I x J
    windows; with return_indices (y, index), index int64, positions h W + k in their map. output_size: (I, J), or one
    number for both; None: as many as the image has pixels. At ties the first of equals gets the gradient, NaN wins.
    Kept for backward: the index (8 bytes an output), not the input. Raises ValueError for shapes and extents that do
    not fit, TypeError for complex numbers.
    Source: lecture 001, eq. 1.6; lecture 004, eq. 4.8; derivation at the head of this file.
    """
    I, J = _extents("adaptive_max_pool2d", input, output_size, 1)
    batched = input.ndim == 4
    y, index = run(AdaptiveMax, input if batched else input.unsqueeze(1), I, J)
    if not batched:
        y, index = y.squeeze(1), index.squeeze(1)
    return (y, index) if return_indices else y


def _extents(op: str, x: Tensor, output_size: Extents, least: int) -> tuple[int, int]:
    """The numbers of windows (I, J), or a refusal naming `op`; the axes from `least` on must not be empty.

    But of no pixels PyTorch takes a single mean.
    """
    require_real(op, input=x)
    require_floating(op, input=x)
    extents = (output_size,) * 2 if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(extents) != 2 or any(extent is not None and extent < 0 for extent in extents):
        raise ValueError(f"{op}: output_size = {output_size!r}; it must be one extent or two, none below 0")
    one_mean = least == -2 and extents == (1, 1)
    if x.ndim not in (3, 4) or (0 in x.shape[least:] and not one_mean):
        raise ValueError(
            f"{op}: input has shape {list(x.shape)}; it must be [N, C, H, W] or [C, H, W], all but the first not 0"
        )
    H, W = x.shape[-2:]
    I, J = extents
    return H if I is None else I, W if J is None else J
