"""The layers of `manualbp.nn` on PyTorch's own gradients: torch.nn's, and the lectures' two that torch.nn lacks."""

import torch
from torch import Tensor
from torch.nn import (
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sigmoid,
    Tanh,
)

from manualbp import nn


class TrueConv2d(Conv2d):
    """`manualbp.nn.TrueConv2d` by autograd."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.flip(-2, -1), bias)


class ConnectedConv2d(nn.ConnectedConv2d):
    """`manualbp.nn.ConnectedConv2d` by autograd."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        w = weight.new_zeros(self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        w = w.index_put((self.output_map, self.input_map), weight)
        return torch.nn.Conv2d._conv_forward(self, input, w, bias)


__all__ = [
    "GELU",
    "AvgPool2d",
    "BatchNorm2d",
    "ConnectedConv2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "TrueConv2d",
]
