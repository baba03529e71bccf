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
    """torch.nn.Conv1d on `manualbp.functional.conv1d`; padding modes other than zeros on `manualbp.functional.pad`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv1d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d on `manualbp.functional.conv2d`; padding modes other than zeros on `manualbp.functional.pad`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d on `manualbp.functional.conv3d`; padding modes other than zeros on `manualbp.functional.pad`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.conv3d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class TrueConv2d(Conv2d):
    """Conv2d as the lectures have it, on `manualbp.functional.convolve`: the kernel is rotated by 180 degrees first.

    Constructor, initialisation and state_dict are those of torch.nn.Conv2d; with its weights rotated a Conv2d gives the
    same numbers. Source: lecture 002, eq. 2.1 and 2.2.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        return F.convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)


def behind(layer: Any, input: Tensor, output_size: list[int] | None) -> list[int]:
    """The output padding that leads to `output_size`, by torch.nn's own reckoning; without one that of the layer."""
    if layer.padding_mode != "zeros":
        raise ValueError(f"{type(layer).__name__}: padding_mode = {layer.padding_mode!r}; it must be 'zeros'")
    axes = len(layer.kernel_size)
    how = layer.stride, layer.padding, layer.kernel_size, axes, layer.dilation
    return layer._output_padding(input, output_size, *how)


class ConvTranspose1d(nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d on `manualbp.functional.conv_transpose1d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = behind(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose1d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on `manualbp.functional.conv_transpose2d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = behind(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose2d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]


class ConvTranspose3d(nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d on `manualbp.functional.conv_transpose3d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = behind(self, input, output_size)
        how = self.stride, self.padding, more, self.groups, self.dilation
        return F.conv_transpose3d(input, self.weight, self.bias, *how)  # pyright: ignore[reportArgumentType]
