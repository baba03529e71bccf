"""True convolution: the kernel is rotated by 180 degrees before it slides (lecture 002, eq. 2.1 and 2.2).

    rotate      r[p,q] = w[P-1-p, Q-1-q]

    convolve    y[n,o,i,j] = sum_{c,p,q} x[n,c, s i + d p - pad, s j + d q - pad] r[o,c,p,q] + b[o]
                y = correlate(x, rotate(w)) + b

Rotation moves numbers to other places and back: <delta, rotate(w)> = sum_pq delta[p,q] w[P-1-p, Q-1-q]. Counted from
the other end, p -> P-1-p and q -> Q-1-q, this is sum_pq delta[P-1-p, Q-1-q] w[p,q] = <rotate(delta), w>: rotation is
its own adjoint (and its own inverse). So the chain rule through y = correlate(x, r), r = rotate(w) gives

    dL/dx = full_convolve(delta, rotate(w))    the kernel AS IT STANDS, slid over the zero-padded delta: the rotation
                                               of full convolution undoes the one here       (lecture 001, eq. 1.4)
    dL/dw = rotate(kernel_gradient(x, delta))  delta * rot180(x)           (lecture 002, eq. 2.4; lecture 001, eq. 1.5)

Shapes: x [N, C, H, W], w and r [O, C / groups, P, Q], b [O], y and delta [N, O, I, J]. Letters: kernels.geometry.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import low_precision, require_floating, require_tensors
from manualbp.functional.conv import correlated
from manualbp.functional.rule import LinearRule, run
from manualbp.kernels.geometry import Size, convolution


class Rotate(LinearRule):
    """r = w rotated by 180 degrees. dL/dw = rotate(delta); kept: nothing."""

    @staticmethod
    def forward(w: Tensor) -> Tensor:
        return w.flip(-2, -1)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return run(Rotate, delta)


def rotate(w: Tensor) -> Tensor:
    """Rotation by 180 degrees in the last two axes, its own adjoint and its own inverse.

    w [..., P, Q] of any dtype -> [..., P, Q]. Kept for backward: nothing. Raises ValueError for fewer than two axes.
    Source: rot180 of lecture 002, eq. 2.3 and 2.4; derivation at the head of this file.
    """
    require_tensors("rotate", w=w)
    if w.ndim < 2:
        raise ValueError(f"rotate: w has shape {list(w.shape)}; it must be [..., P, Q]")
    return run(Rotate, w)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """True convolution of the lectures: `conv2d` with the kernel rotated by 180 degrees before it slides.

    input [N, C, H, W] or [C, H, W], weight [O, C / groups, P, Q], bias [O], all of one dtype, floating or int64 (under
    autocast: cast to its dtype) -> [N, O, I, J] or [O, I, J]. The arguments are those of `conv2d`. Kept for backward:
    input if the gradient of weight is asked for, the rotated weight if that of input is; nothing for bias. Raises as
    `conv2d`.
    Source: lecture 002, eq. 2.1 and 2.2; derivation at the head of this file.
    """
    x, w, b = low_precision("convolve", input=input, weight=weight, bias=bias)
    require_floating("convolve", torch.int64, input=x)
    g = convolution("convolve", x.shape, w.shape, stride, padding, dilation, groups, b)
    return correlated(x, run(Rotate, w), b, g)
