"""Transposed convolution: the backward pass of a convolution as the forward pass of a layer.

With A for the matrix that makes correlation y = A x, full convolution, its gradient by x, is A^T delta. This layer is
given the small image in the place of delta and answers with the large one (Zeiler et al. 2010: deconvolution; Dumoulin
and Visin 2016, ch. 4: transposed convolution):

    y = full_convolve(x, w) + b

    y[n,c,h,k] = b[c] + sum of x[n,o,i,j] w[o,c,p,q] over o and all i, j, p, q with s i + d p - pad = h and
                                                                                    s j + d q - pad = k

It is a face of the trilinear form F of functional.conv, with x in the place of delta. So with delta = dL/dy, which has
the shape of the large image, in the place of F's x, the two other faces are its gradients:

    dL/dx = correlate(delta, w)            the transpose of A^T is A: a convolution, lecture 002, eq. 2.2
    dL/dw = kernel_gradient(delta, x)      lecture 002, eq. 2.4, with the two images in each other's place
    dL/db[c] = sum_{n,h,k} delta[n,c,h,k]  b stands once in every y[n,c,h,k]

Extents. The windows reach from pixel -pad to pixel s (I - 1) + d (P - 1) - pad. At either end pad pixels are cut off,
and output_padding pixels are put behind: H = s (I - 1) + d (P - 1) + 1 - 2 pad + output_padding. The correlation takes
s extents H to the same I; output_padding < s says which is meant. PyTorch allows output_padding < d, too. There an
image has room for output_padding // s windows more; x is padded by as many zeros, which add nothing to y. Where as many
pixels are cut off as there are, y holds no numbers, and every gradient is 0.

Shapes: x [N, O, I, J], w [O, C / groups, P, Q], b [C], y and delta [N, C, H, W]. Letters: kernels.geometry.
"""

import torch
from torch import Tensor

from manualbp.functional.checks import low_precision, require_floating
from manualbp.functional.conv import FullConvolve, batched, of_no_numbers
from manualbp.functional.rule import run
from manualbp.kernels.geometry import Geometry, Size, transposed


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """torch.nn.functional.conv_transpose1d with a backward pass by hand.

    input [N, O, I] or [O, I], weight [O, C / groups, P], bias [C] -> [N, C, H] or [C, H]. Extents, kept for backward,
    raises, source: as `conv_transpose2d`, with one axis.
    """
    x, w, b = low_precision("conv_transpose1d", input=input, weight=weight, bias=bias)
    require_floating("conv_transpose1d", torch.int64, input=x)
    g = transposed("conv_transpose1d", x.shape, w.shape, stride, padding, output_padding, groups, dilation, b, axes=1)
    return _full_convolved(x, w, b, g)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """torch.nn.functional.conv_transpose2d with a backward pass by hand.

    input [N, O, I, J] or [O, I, J], weight [O, C / groups, P, Q], bias [C], all of one dtype, floating or int64 (under
    autocast: cast to its dtype) -> [N, C, H, W] or [C, H, W], channels_last if input or weight is, with H = (I - 1)
    stride - 2 padding + dilation (P - 1) + output_padding + 1; output_padding < stride or < dilation. Kept for
    backward: input if the gradient of weight is asked for, weight if that of input is; nothing for bias. Raises
    ValueError for shapes and settings that do not fit, TypeError for complex numbers. Source: Zeiler et al. 2010,
    Deconvolutional networks; Dumoulin and Visin 2016, ch. 4; lecture 002, eq. 2.3 forward, 2.2 and 2.4 backward;
    derivation at the head of this file.
    """
    x, w, b = low_precision("conv_transpose2d", input=input, weight=weight, bias=bias)
    require_floating("conv_transpose2d", torch.int64, input=x)
    g = transposed("conv_transpose2d", x.shape, w.shape, stride, padding, output_padding, groups, dilation, b, axes=2)
    return _full_convolved(x, w, b, g)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """torch.nn.functional.conv_transpose3d with a backward pass by hand.

    input [N, O, M, I, J] or [O, M, I, J], weight [O, C / groups, R, P, Q], bias [C] -> [N, C, D, H, W] or
    [C, D, H, W], channels_last_3d if input or weight is. Extents, kept for backward, raises, source: as
    `conv_transpose2d`, with three axes.
    """
    x, w, b = low_precision("conv_transpose3d", input=input, weight=weight, bias=bias)
    require_floating("conv_transpose3d", torch.int64, input=x)
    g = transposed("conv_transpose3d", x.shape, w.shape, stride, padding, output_padding, groups, dilation, b, axes=3)
    return _full_convolved(x, w, b, g)


def _full_convolved(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y = full_convolve(x, w) + b, of one image or a batch."""
    if x.numel() == 0 or 0 in g.x_size:
        return of_no_numbers((*x.shape[: x.ndim - len(g.x_size) - 1], w.shape[1] * g.groups, *g.x_size), x, w, b)
    images = batched(x, g.y_size)
    y = run(FullConvolve, images, w, b, g.of(images, w))
    return y if x.ndim == len(g.x_size) + 2 else y.squeeze(0)


__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
