"""Convolution with one axis and with three: the triple of functional.conv, with as many of the letters h, i, p.

    conv1d   y[n,o,i]     = sum_{c,p}     x[n,c, s i + d p - pad]                            w[o,c,p]     + b[o]
    conv3d   y[n,o,m,i,j] = sum_{c,r,p,q} x[n,c, s m + d r - pad, s i + d p - pad, ...]      w[o,c,r,p,q] + b[o]

Each axis has a condition of its own on which pixel is under which tap of which window, h = s i + d p - pad. The
derivation of functional.conv uses the condition of one axis and never that there are two: F is multiplied by one
condition an axis, is as linear in x, w and delta as before, and its three faces are each other's derivatives. So the
rules are the same; a geometry of one, two or three axes tells them what to sum over.

    dL/dx = full_convolve(delta, w)    dL/dw = kernel_gradient(x, delta)    db[o] = sum of delta over all axes but o's

Shapes: conv1d x [N, C, H], w [O, C / groups, P], y and delta [N, O, I]; conv3d x [N, C, D, H, W],
w [O, C / groups, R, P, Q], y and delta [N, O, M, I, J]; b [O]. Letters: kernels.geometry.
"""

from torch import Tensor

from manualbp.functional.conv import layer
from manualbp.kernels.geometry import Size


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

    input [N, C, H] or [C, H], weight [O, C / groups, P], bias [O], all of one real dtype (under autocast: cast to its
    dtype) -> [N, O, I] or [O, I] with I = floor((H + 2 padding - dilation (P - 1) - 1) / stride) + 1. padding: an int,
    or "valid" (none), or "same" (H stays; stride must be 1; an odd pixel is added at the end).
    Kept for backward: input if the gradient of weight is asked for, weight if that of input is; nothing for bias.
    Raises ValueError for shapes and settings that do not fit, TypeError for complex numbers.
    Source: lecture 002, eq. 2.2, 2.3 and 2.4, with one axis; derivation at the head of this file.
    """
    return layer("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


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

    input [N, C, D, H, W] or [C, D, H, W], weight [O, C / groups, R, P, Q], bias [O], all of one real dtype (under
    autocast: cast to its dtype) -> [N, O, M, I, J] or [O, M, I, J], channels_last_3d if input or weight is. padding:
    an int or three, or "valid" (none), or "same" (D, H and W stay; stride must be 1; an odd pixel is added at the end
    of an axis).
    Kept for backward: input if the gradient of weight is asked for, weight if that of input is; nothing for bias.
    Raises ValueError for shapes and settings that do not fit, TypeError for complex numbers.
    Source: lecture 002, eq. 2.2, 2.3 and 2.4, with three axes; derivation at the head of this file.
    """
    return layer("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


__all__ = ["conv1d", "conv3d"]
