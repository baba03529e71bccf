"""The convolutions."""

from typing import Any

from torch import Tensor, nn

from manualbp import functional as F


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d on `manualbp.functional.conv2d`; padding modes other than zeros on `manualbp.functional.pad`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = self._padded(input)
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input with the margins of a padding mode that the convolution lacks, and the padding that is left."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0


class TrueConv2d(Conv2d):
    """Conv2d as the lectures have it, on `manualbp.functional.convolve`: the kernel is rotated by 180 degrees first.

    Constructor, initialisation and state_dict are those of torch.nn.Conv2d; with its weights rotated a Conv2d gives the
    same numbers. Source: lecture 002, eq. 2.1 and 2.2.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = self._padded(input)
        return F.convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)
