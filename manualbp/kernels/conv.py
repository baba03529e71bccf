"""The triple of the convolution by PyTorch's forward primitives.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], delta [N, O, I, J].
"""

import torch.nn.functional as F
from torch import Tensor

from manualbp.kernels.geometry import Geometry
from manualbp.kernels.precision import wide

# Elements of the matrix of windows that is built at a time: what a CPU's cache holds; a GPU wants few large products.
CHUNK = {"cpu": 2**20, "cuda": 2**27}


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y = sum_cpq x[n, c, s i + d p - pad, ...] w[o, c, p, q] + b[o]; channels_last if x or w is."""
    return F.conv2d(x, w, b, g.stride, g.padding, g.dilation, g.groups)


def full_convolve(delta: Tensor, w: Tensor, g: Geometry) -> Tensor:
    """The rotated kernel slid over the zero-padded delta, which stride spreads: [N, C, H, W]."""
    # Pixels behind the last window see no delta: they are left out by the division in y_size and put back here.
    behind = [
        (H + 2 * pad - reach) % s for H, pad, reach, s in zip(g.x_size, g.padding, g.reach, g.stride, strict=True)
    ]
    return F.conv_transpose2d(delta, w, None, g.stride, g.padding, behind, g.groups, g.dilation)


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw[o, c, p, q] = sum_nij delta[n, o, i, j] x[n, c, s i + d p - pad, ...]: [O, C / groups, P, Q]."""
    (N, C), O = x.shape[:2], delta.shape[1]
    if N == 0:
        return x.new_zeros(O, C // g.groups, *g.w_size)
    few_positions = delta.shape[2] * delta.shape[3] <= 256
    if x.device.type == "cpu" and few_positions and C >= 16 and g.groups == 1 and g.stride == (1, 1):
        return _swapped(x, delta, g)
    return _by_windows(x, delta, g)


def _swapped(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """Batch and maps exchanged, it is a correlation of x with delta whose stride and dilation change places.

    Few output positions make this a well-shaped convolution for a CPU; cuDNN has no good algorithm for it.
    """
    P, Q = g.w_size
    dw = F.conv2d(x.transpose(0, 1), delta.transpose(0, 1), None, g.dilation, g.padding, g.stride)
    return dw[:, :, :P, :Q].transpose(0, 1)


def _by_windows(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """A matrix product: the windows of x, a row for each (c, p, q), times delta, a column for each o.

    The matrix of windows is P Q times the size of x, so it is built and used up a few images at a time, in four
    pieces at least: shorter chains of additions round less. Half precision is summed over the pieces in float32.
    """
    (N, C), (O, I, J), G, (P, Q) = x.shape[:2], delta.shape[1:], g.groups, g.w_size
    top, left = g.padding
    padded = F.pad(x, (left, left, top, top)).contiguous()
    windows = padded.unfold(2, g.reach[0], g.stride[0])[..., :: g.dilation[0]]
    windows = windows.unfold(3, g.reach[1], g.stride[1])[..., :: g.dilation[1]]
    windows = windows.permute(1, 4, 5, 0, 2, 3)  # c p q n i j
    columns = delta.reshape(N, G, O // G, I, J).permute(1, 2, 0, 3, 4)  # group o n i j
    images = min(CHUNK.get(x.device.type, CHUNK["cuda"]) // (C * P * Q * I * J), N // 4) or 1
    dw = x.new_zeros(G, C // G * P * Q, O // G, dtype=wide(x.dtype))
    for n in range(0, N, images):
        rows = windows[:, :, :, n : n + images].reshape(G, C // G * P * Q, -1)
        dw = dw + rows @ columns[:, :, n : n + images].reshape(G, O // G, -1).mT
    # The cast stands before the reshape: PyTorch 2.11 compiles a rule that ends in a cast to its own dtype to zeros.
    return dw.to(x.dtype).transpose(1, 2).reshape(O, C // G, P, Q)
