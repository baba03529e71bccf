"""The convolutions."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from manualbp import functional as F


def padded(layer: _ConvNd, input: Tensor) -> tuple[Tensor, Any]:
    """The input with the margins of a padding mode that the convolution lacks, and the padding that is left."""
    if layer.padding_mode == "zeros":
        return input, layer.padding
    return F.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0


class Conv1d(nn.Conv1d):
    """torch.nn.Conv1d on `manualbp.functional.conv1d`; padding modes other than zeros on `manualbp.functional.pad`.

        y[n,o,i] = sum_{c,p} x[n,c, s i + d p - pad] w[o,c,p] + b[o]
        dL/dx = full_convolve(delta, w)    dL/dw = kernel_gradient(x, delta)    dL/db[o] = sum of delta over all but o

    Shapes: x [N, C, H], weight [O, C / groups, P], bias [O] -> y [N, O, I]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv.py; lecture 002, eq. 2.2, 2.3 and 2.4, with one axis.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv1d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d on `manualbp.functional.conv2d`; padding modes other than zeros on `manualbp.functional.pad`.

        y[n,o,i,j] = sum_{c,p,q} x[n,c, s i + d p - pad, s j + d q - pad] w[o,c,p,q] + b[o]
        dL/dx = full_convolve(delta, w)    dL/dw = kernel_gradient(x, delta)    dL/db[o] = sum of delta over all but o

    Shapes: x [N, C, H, W], weight [O, C / groups, P, Q], bias [O] -> y [N, O, I, J]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv.py; lecture 002, eq. 2.2, 2.3 and 2.4.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d on `manualbp.functional.conv3d`; padding modes other than zeros on `manualbp.functional.pad`.

        y[n,o,m,i,j] = sum_{c,r,p,q} x[n,c, s m + d r - pad, s i + d p - pad, ...] w[o,c,r,p,q] + b[o]
        dL/dx = full_convolve(delta, w)    dL/dw = kernel_gradient(x, delta)    dL/db[o] = sum of delta over all but o

    Shapes: x [N, C, D, H, W], weight [O, C / groups, R, P, Q], bias [O] -> y [N, O, M, I, J]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv.py; lecture 002, eq. 2.2, 2.3 and 2.4, with three axes.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv3d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class TrueConv2d(Conv2d):
    """Conv2d as the lectures have it, on `manualbp.functional.convolve`: the kernel is rotated by 180 degrees first.

        y = correlate(x, rotate(w)) + b
        dL/dx = full_convolve(delta, rotate(w))    dL/dw = rotate(kernel_gradient(x, delta))

    Constructor, initialisation, state_dict and shapes are those of torch.nn.Conv2d; with its weights rotated a Conv2d
    gives the same numbers. Kept for backward: x if the gradient of weight is asked for, the rotated kernel if that of x
    is; nothing for bias.
    Read: functional/true_conv.py; lecture 002, eq. 2.1 to 2.4.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)


def output_padding(layer: Any, input: Tensor, output_size: list[int] | None) -> list[int]:
    """The output padding that leads to `output_size`, by torch.nn's own reckoning; without one that of the layer."""
    if layer.padding_mode != "zeros":
        raise ValueError(f"{type(layer).__name__}: padding_mode = {layer.padding_mode!r}; it must be 'zeros'")
    axes = len(layer.kernel_size)
    how = layer.stride, layer.padding, layer.kernel_size, axes, layer.dilation
    return layer._output_padding(input, output_size, *how)


class ConvTranspose1d(nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d on `manualbp.functional.conv_transpose1d`.

        y = full_convolve(x, w) + b: y[n,c,h] = sum of x[n,o,i] w[o,c,p] over s i + d p - pad = h, + b[c]
        dL/dx = correlate(delta, w)    dL/dw = kernel_gradient(delta, x)    dL/db[c] = sum of delta over all but c

    Shapes: x [N, O, I], weight [O, C / groups, P], bias [C] -> y [N, C, H]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv_transpose.py; lecture 002, eq. 2.3 forward, 2.2 and 2.4 backward.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = output_padding(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose1d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on `manualbp.functional.conv_transpose2d`.

        y = full_convolve(x, w) + b: the rotated kernel slides over the zero-padded x
        dL/dx = correlate(delta, w)    dL/dw = kernel_gradient(delta, x)    dL/db[c] = sum of delta over all but c

    Shapes: x [N, O, I, J], weight [O, C / groups, P, Q], bias [C] -> y [N, C, H, W]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv_transpose.py; lecture 002, eq. 2.3 forward, 2.2 and 2.4 backward.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = output_padding(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose2d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]


class ConvTranspose3d(nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d on `manualbp.functional.conv_transpose3d`.

        y = full_convolve(x, w) + b: the kernel, rotated on all three axes, slides over the zero-padded x
        dL/dx = correlate(delta, w)    dL/dw = kernel_gradient(delta, x)    dL/db[c] = sum of delta over all but c

    Shapes: x [N, O, M, I, J], weight [O, C / groups, R, P, Q], bias [C] -> y [N, C, D, H, W]; x and y also without N.
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/conv_transpose.py; lecture 002, eq. 2.3 forward, 2.2 and 2.4 backward.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = output_padding(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose3d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]
