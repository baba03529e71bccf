"""The layers of `manualbp.nn` on PyTorch's own gradients: torch.nn's, and the lectures' two that torch.nn lacks."""

import torch
from torch import Tensor
from torch.nn import AvgPool2d, Conv2d, CrossEntropyLoss, Linear, MaxPool2d, MSELoss, ReLU, Sigmoid, Tanh

from manualbp import nn


class TrueConv2d(Conv2d):
    """`manualbp.nn.TrueConv2d` by autograd."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.flip(-2, -1), bias)


class ConnectedConv2d(nn.ConnectedConv2d):
    """`manualbp.nn.ConnectedConv2d` by autograd."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        O, C = self.out_channels, self.in_channels // self.groups
        w = weight.new_zeros(O * C, *self.kernel_size).index_copy(0, self.index, weight)
        return torch.nn.Conv2d._conv_forward(self, input, w.unflatten(0, (O, C)), bias)


__all__ = [
    "AvgPool2d",
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
