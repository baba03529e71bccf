"""The triple of the convolution by PyTorch's forward primitives, for images of one, two or three axes.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], delta [N, O, I, J]; with one axis or three, so many letters.
"""

from math import prod

import torch.nn.functional as F
from torch import Tensor

from manualbp.kernels.geometry import Geometry
from manualbp.kernels.precision import wide

# By the number of axes.
CORRELATE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
FULL_CONVOLVE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

# Elements of the matrix of windows that is built at a time: what a CPU's cache holds; a GPU wants few large products.
CHUNK = {"cpu": 2**20, "cuda": 2**27}


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y = sum_cpq x[n, c, s i + d p - pad, ...] w[o, c, p, q] + b[o]; channels_last if x or w is."""
    return CORRELATE[len(g.w_size)](x, w, b, g.stride, g.padding, g.dilation, g.groups)


def full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """The rotated kernel slid over the zero-padded delta, which stride spreads, + b[c]: [N, C, H, W]."""
    # Pixels behind the last window see no delta: they are left out by the division in y_size and put back here.
    behind = [
        (H + 2 * pad - reach) % s for H, pad, reach, s in zip(g.x_size, g.padding, g.reach, g.stride, strict=True)
    ]
    convolve = FULL_CONVOLVE[len(g.w_size)]
    return convolve(delta, w, b, g.stride, g.padding, behind, g.groups, g.dilation)


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw[o, c, p, q] = sum_nij delta[n, o, i, j] x[n, c, s i + d p - pad, ...]: [O, C / groups, P, Q]."""
    (N, C), O = x.shape[:2], delta.shape[1]
    if N == 0:
        return x.new_zeros(O, C // g.groups, *g.w_size)
    few_positions, dense = prod(delta.shape[2:]) <= 256, g.groups == 1 and max(g.stride) == 1
    if x.device.type == "cpu" and few_positions and C >= 16 and dense:
        return _swapped(x, delta, g)
    return _by_windows(x, delta, g)


def _swapped(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """Batch and maps exchanged, it is a correlation of x with delta whose stride and dilation change places.

    Few output positions make this a well-shaped convolution for a CPU; cuDNN has no good algorithm for it.
    """
    correlate = CORRELATE[len(g.w_size)]
    dw = correlate(x.transpose(0, 1), delta.transpose(0, 1), None, g.dilation, g.padding, g.stride)
    return dw[(..., *map(slice, g.w_size))].transpose(0, 1)


def _by_windows(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """A matrix product: the windows of x, a row for each (c, p, q), times delta, a column for each o.

    The matrix of windows is P Q times the size of x, so it is built and used up a few images at a time, in four
    pieces at least: shorter chains of additions round less. Half precision is summed over the pieces in float32.
    """
    (N, C), (O, *y_size), G = x.shape[:2], delta.shape[1:], g.groups
    axes, taps = len(g.w_size), prod(g.w_size)
    padded = F.pad(x, [pad for pad in reversed(g.padding) for _ in range(2)]) if any(g.padding) else x
    windows = padded.contiguous()
    for axis, (reach, s, d) in enumerate(zip(g.reach, g.stride, g.dilation, strict=True), start=2):
        windows = windows.unfold(axis, reach, s)  # n c i j p q
        windows = windows[..., ::d] if d > 1 else windows
    windows = windows.permute(1, *range(2 + axes, 2 + 2 * axes), 0, *range(2, 2 + axes))  # c p q n i j
    columns = delta.reshape(N, G, O // G, *y_size).permute(1, 2, 0, *range(3, 3 + axes))  # group o n i j
    images = min(CHUNK.get(x.device.type, CHUNK["cuda"]) // (C * taps * prod(y_size)), N // 4) or 1
    dw = x.new_zeros(G, C // G * taps, O // G, dtype=wide(x.dtype))
    cpq = (slice(None),) * (1 + axes)
    for n in range(0, N, images):
        rows = windows[(*cpq, slice(n, n + images))].reshape(G, C // G * taps, -1)
        dw = dw + rows @ columns[:, :, n : n + images].reshape(G, O // G, -1).mT
    # The cast stands before the reshape: PyTorch 2.11 compiles a rule that ends in a cast to its own dtype to zeros.
    return dw.to(x.dtype).transpose(1, 2).reshape(O, C // G, *g.w_size)
