"""Unpooling: each value goes back to the place that max pooling took it from; the other places are 0.

    y[n,c] at index[n,c,i,j] = x[n,c,i,j]        so        dL/dx[n,c,i,j] = delta[n,c] at index[n,c,i,j]

This is put, and its derivative is take, the pair of max pooling the other way round: <delta, put x> = <take delta, x>.
Pooling windows that overlap may give one position twice. Then one of the values is written, not their sum, and take
still gives each of them the delta of that position, as PyTorch does (Zeiler and Fergus 2014, sec. 2.1).

Shapes: x and index [N, C, I, J]; y and delta [N, C, H, W].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import full_precision, require_floating, require_real
from manualbp.functional.pool import Take
from manualbp.functional.rule import LinearRule, run
from manualbp.kernels import pool as kernels
from manualbp.kernels.geometry import Places, Size, per_axis


class Unpool(LinearRule):
    """y at index = x. dL/dx = take(delta, index); kept: index."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, places: Places) -> Tensor:
        return kernels.unpool(x, index, places.x_size)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        return run(Take, delta, *ctx.saved_tensors, *ctx.settings), None, None


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """torch.nn.functional.max_unpool2d with a backward pass by hand.

    input [N, C, I, J] or [C, I, J] of any floating dtype (under autocast on a CPU: cast to float32), indices int64 of
    the same shape, positions h W + k as max_pool2d returns them -> y [N, C, H, W] or [C, H, W]. kernel_size, stride
    (None: the kernel's extents) and padding of that pooling say how large the image was,
    H = (I - 1) stride - 2 padding + kernel_size; output_size, (H, W) or y's whole shape, says it where pixels were left
    over, and differs by less than a stride. Of equal positions one value is written, and each gets that gradient.
    Kept for backward: indices. Raises ValueError for shapes, positions and settings that do not fit, TypeError for
    complex numbers.
    Source: Zeiler and Fergus 2014, sec. 2.1; lecture 001, eq. 1.6; derivation at the head of this file.
    """
    op = "max_unpool2d"
    require_real(op, input=input, indices=indices)
    require_floating(op, input=input)
    if input.ndim not in (3, 4) or 0 in input.shape[1:]:
        raise ValueError(
            f"{op}: input has shape {list(input.shape)}; it must be [N, C, I, J] or [C, I, J], all but the first not 0"
        )
    if indices.dtype != torch.int64 or indices.shape != input.shape:
        raise ValueError(
            f"{op}: indices are {indices.dtype} of shape {list(indices.shape)}; they must be int64 of the shape of "
            f"input, {list(input.shape)}"
        )
    if indices.device != input.device:
        raise ValueError(f"{op}: input is on {input.device} and indices on {indices.device}; they must be on one")
    y_size = _image(op, input, kernel_size, stride, padding, output_size)
    x = full_precision(input)[0] if input.device.type == "cpu" else input
    batched = input.ndim == 4
    if not batched:
        x, indices = x.unsqueeze(1), indices.unsqueeze(1)  # C maps alone, of which there may be none
    try:
        y = run(Unpool, x, indices, Places(y_size, apart=False))
    except RuntimeError as error:
        H, W = y_size
        if 0 <= int(indices.min()) <= int(indices.max()) < H * W:
            raise
        raise ValueError(f"{op}: indices hold a position outside of 0 to {H * W - 1}: {error}") from error
    return y if batched else y.squeeze(1)


def _image(
    op: str, x: Tensor, kernel_size: Size, stride: Size | None, padding: Size, output_size: Sequence[int] | None
) -> tuple[int, int]:
    """The extents (H, W) of the unpooled image, or a refusal naming `op`."""
    kernel, steps = (
        per_axis(op, "kernel_size", kernel_size, 2, 1),
        per_axis(op, "stride", kernel_size if stride is None else stride, 2, 1),
    )
    margins = per_axis(op, "padding", padding, 2, 0)
    plain = [(I - 1) * s - 2 * p + k for I, k, s, p in zip(x.shape[-2:], kernel, steps, margins, strict=True)]
    size = plain if output_size is None else list(output_size)[-2:]
    if output_size is not None and len(output_size) not in (2, 4):
        raise ValueError(f"{op}: output_size = {list(output_size)}; it must be (H, W) or the shape [N, C, H, W]")
    if min(size) < 1 or any(abs(a - b) >= s for a, b, s in zip(size, plain, steps, strict=True)):
        raise ValueError(
            f"{op}: an image of extents {size}; kernel_size = {list(kernel)}, stride = {list(steps)}, padding = "
            f"{list(margins)} and an input of extents {list(x.shape[-2:])} make one of {plain}, and output_size must "
            "be larger than 0 and differ by less than a stride"
        )
    H, W = size
    return H, W
