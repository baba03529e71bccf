"""Average pooling folded into the convolution before it: one convolution with a larger kernel and a larger stride.

With windows of m x m, the pooling's stride t and the convolution's s, d and pad, on each axis

    Y[o,I] = 1/m^2 sum_u y[o, t I + u] = 1/m^2 sum_u sum_{c,p} x[c, s (t I + u) + d p - pad] w[o,c,p] + b[o]

Tap (u, p) is over the pixel s t I + k - pad with k = s u + d p, the same k for every I. Sorted by k,

    Y[o,I] = sum_{c,k} x[c, s t I + k - pad] w'[o,c,k] + b[o]        w'[o,c,k] = 1/m^2 sum_{u,p: s u + d p = k} w[o,c,p]

This is a correlation with the stride s t, the same padding and K = s (m - 1) + d (P - 1) + 1 taps an axis. (b stands
once in each of m^2 numbers, of which 1/m^2 is taken.) It sums K^2 products a map and an output, where the convolution
and the pooling sum (P t)^2: for P = 3, m = t = 2 and s = d = 1 it is 16 for 36, and y is never made.

w' is w, spread by d, under a box of ones, spread by s: a full convolution (functional.conv) with w in the place of
delta and the box in that of the kernel, map by map, the conditions being k = d p + s u. So Y = correlate(x, w'),
w' = full_convolve(w, box), and the chain rule gives

    dL/dx = full_convolve(delta, w')    dL/dw' = kernel_gradient(x, delta)    dL/dw = correlate(dL/dw', box)

that is dL/dw[o,c,p] = 1/m^2 sum_u dL/dw'[o,c, d p + s u], the window mean that it should be.

Pixels. The pooling sees I windows with t (I - 1) + m <= rows of y, s (rows - 1) + d (P - 1) < H + 2 pad: together
s t (I - 1) + K <= H + 2 pad, which is the condition of the folded convolution. Rows of y that no window sees are not
computed, and pixels that only they see get no gradient.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], w' [O, C / groups, K, L], b [O], Y and delta [N, O, I, J].
"""

from dataclasses import replace

import torch
from torch import Tensor

from manualbp.functional.checks import low_precision, require_floating
from manualbp.functional.conv import FullConvolve, conv2d, correlated
from manualbp.functional.pool import avg_pool2d
from manualbp.functional.rule import run
from manualbp.kernels.geometry import Geometry, Size, convolution, pooling
from manualbp.kernels.precision import wide


def conv2d_avg_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    kernel_size: Size = 2,
    pool_stride: Size | None = None,
) -> Tensor:
    """avg_pool2d(conv2d(input, weight, bias, ...), kernel_size, pool_stride) as one convolution, backward by hand.

    input [N, C, H, W] or [C, H, W], weight [O, C / groups, P, Q], bias [O], all of one floating dtype or int64 (under
    autocast: cast to its dtype) -> [N, O, I, J] or [O, I, J]. stride to groups are those of `conv2d`, kernel_size and
    pool_stride (None: the windows' extents) those of `avg_pool2d`, without padding. Kept for backward: input if the
    gradient of weight is asked for, the folded kernel if that of input is; nothing for bias.
    Raises ValueError for shapes and settings that do not fit, TypeError for complex numbers.
    Source: lecture 002, eq. 2.2 to 2.4; lecture 001, eq. 1.7; derivation at the head of this file.
    """
    op = "conv2d_avg_pool2d"
    x, w, b = low_precision(op, input=input, weight=weight, bias=bias)
    require_floating(op, torch.int64, input=x)
    if x.dtype == torch.int64:  # 1/m^2 is no integer
        y = conv2d(x, w, b, stride, padding, dilation, groups)
        return avg_pool2d(y, kernel_size, pool_stride)
    g = convolution(op, x.shape, w.shape, stride, padding, dilation, groups, b)
    windows = pooling(op, (w.shape[0], *g.y_size), kernel_size, pool_stride, 0, 1, False)
    wider = weight.to(wide(weight.dtype))  # so that w' is rounded once; under autocast it is made of the weights kept
    spread = _spread(w, g, windows)
    folded = run(FullConvolve, wider, _box(wider, windows.w_size), None, spread).to(w.dtype)
    steps = tuple([s * t for s, t in zip(g.stride, windows.stride, strict=True)])
    return correlated(x, folded, b, replace(g, w_size=spread.x_size, stride=steps, dilation=(1, 1)))


def _box(w: Tensor, m: tuple[int, ...]) -> Tensor:
    """1/m^2 in every place of a kernel [C / groups, 1, m, m]: map by map."""
    return w.new_full((w.shape[1], 1, *m), 1 / (m[0] * m[1]))


def _spread(w: Tensor, g: Geometry, windows: Geometry) -> Geometry:
    """The correlation that takes w', under the box, to w: K = s (m - 1) + d (P - 1) + 1, stride d and dilation s."""
    K = [s * (m - 1) + reach for s, m, reach in zip(g.stride, windows.w_size, g.reach, strict=True)]
    return Geometry(tuple(K), windows.w_size, g.dilation, (0, 0), g.stride, w.shape[1])
