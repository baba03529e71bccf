"""Pooling and its adjoints by PyTorch's forward primitives.

Shapes: x [N, C, H, W]; y, delta and index [N, C, I, J]. An index is a position h W + k in its own map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from manualbp.kernels.geometry import Geometry, Places
from manualbp.kernels.precision import wide

# Up to this factor f PyTorch's "nearest" repeats each pixel f times in float32: there f (1 / f), rounded, is 1.
NEAREST_IS_EXACT = 40


def max_pool(x: Tensor, g: Geometry) -> tuple[Tensor, Tensor]:
    """The largest value of each window and its position, the first one of equals."""
    return F.max_pool2d(x, g.w_size, g.stride, g.padding, g.dilation, g.ceil_mode, return_indices=True)


def take(x: Tensor, index: Tensor) -> Tensor:
    """y[n, c, i, j] = x[n, c] at index[n, c, i, j]."""
    return x.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


def put(delta: Tensor, index: Tensor, places: Places) -> Tensor:
    """delta[n, c, i, j] added at index[n, c, i, j]; zero elsewhere: [N, C, H, W]."""
    if places.apart and delta.shape[0] > 0 and not torch.are_deterministic_algorithms_enabled():
        # No pixel is in two windows, so nothing adds up. (PyTorch calls this primitive non-deterministic.)
        return unpool(delta, index, places.x_size)
    (N, C), (H, W) = delta.shape[:2], places.x_size
    dtype = wide(delta.dtype)
    channels_last = C > 1 and delta.stride(1) == 1
    dx = delta.new_zeros(N, H * W, C, dtype=dtype).mT if channels_last else delta.new_zeros(N, C, H * W, dtype=dtype)
    dx.scatter_add_(2, index.flatten(2), delta.flatten(2).to(dtype))
    return dx.to(delta.dtype).reshape(N, C, H, W)


def unpool(x: Tensor, index: Tensor, y_size: tuple[int, ...]) -> Tensor:
    """x[n, c, i, j] written at index[n, c, i, j] of an image of extents y_size; of equal positions one value stays."""
    if x.shape[0] == 0:
        return x.new_zeros(*x.shape[:2], *y_size)
    (I, J), (H, W) = x.shape[2:], y_size
    # With this kernel and this stride PyTorch's image has these extents, whatever they are.
    return F.max_unpool2d(x, index, (H - I + 1, W - J + 1), (1, 1))


def window_mean(x: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """The sum over each window divided by m^2, by the pixels that count, or by the override."""
    return F.avg_pool2d(x, g.w_size, g.stride, g.padding, g.ceil_mode, count_include_pad, override)


def window_spread(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """Each delta, divided as in `window_mean`, added to every pixel of its window: [N, C, H, W]."""
    (H, W), (P, Q), (s, t), (top, left) = g.x_size, g.w_size, g.stride, g.padding
    C = delta.shape[1]
    share = delta / _divisor(delta, g, count_include_pad, override)
    if (P % s, Q % t) == (0, 0) and delta.shape[0] > 0:
        # Windows overlap by whole blocks of s x t pixels: add up by blocks, r x q of them a window, and upsample.
        r, q = P // s, Q // t
        if (r, q) != (1, 1):
            share = F.avg_pool2d(F.pad(share, (q - 1, q - 1, r - 1, r - 1)), (r, q), 1, divisor_override=1)
        # For t = 41, 47, 55 ... "nearest" takes the pixel before; "nearest-exact" is slow under vmap.
        mode = "nearest" if max(s, t) <= NEAREST_IS_EXACT else "nearest-exact"
        dx = F.interpolate(share, (share.shape[2] * s, share.shape[3] * t), mode=mode)
    else:  # full convolution with a box, which is its own rotation
        dx = F.conv_transpose2d(share, delta.new_ones(C, 1, P, Q), None, g.stride, groups=C)
    return F.pad(dx, (-left, W + left - dx.shape[3], -top, H + top - dx.shape[2]))


def _divisor(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor | int:
    """m^2 as a number where all windows count alike, else a table [I, J]."""
    if override is not None:
        return override
    (H, W), (P, Q), (s, t), (top, left) = g.x_size, g.w_size, g.stride, g.padding
    I, J = g.y_size
    inside = (I - 1) * s + P <= H + 2 * top and (J - 1) * t + Q <= W + 2 * left
    if inside and (count_include_pad or (top, left) == (0, 0)):
        return P * Q

    def counted(extent: int, size: int, window: int, stride: int, pad: int) -> Tensor:
        start = torch.arange(extent, device=delta.device) * stride - pad
        end = (start + window).clamp(max=size + pad)
        return end - start if count_include_pad else end.clamp(max=size) - start.clamp(min=0)

    return torch.outer(counted(I, H, P, s, top), counted(J, W, Q, t, left)).to(delta.dtype)
