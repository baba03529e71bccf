"""torch.nn's own classes with the forward pass replaced by a rule, and nothing else changed.

Constructor, initialisation, state_dict and repr are torch.nn's, and `isinstance(layer, torch.nn.Conv2d)` holds. What a
layer keeps for backward, what it refuses and where its formula comes from stands at the function that it calls. Two
layers are the lectures' own: TrueConv2d, and ConnectedConv2d with its connection tables.
"""

from typing import Any

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.nn.connected import LENET5_C3, ConnectedConv2d, random_connections
from manualbp.nn.conv import Conv2d, TrueConv2d


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d on `manualbp.functional.max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d on `manualbp.functional.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class Sigmoid(nn.Sigmoid):
    """torch.nn.Sigmoid on `manualbp.functional.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """torch.nn.Tanh on `manualbp.functional.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class ReLU(nn.ReLU):
    """torch.nn.ReLU on `manualbp.functional.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class Linear(nn.Linear):
    """torch.nn.Linear on `manualbp.functional.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Softmax(nn.Softmax):
    """torch.nn.Softmax on `manualbp.functional.softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(nn.LogSoftmax):
    """torch.nn.LogSoftmax on `manualbp.functional.log_softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss on `manualbp.functional.cross_entropy`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(nn.NLLLoss):
    """torch.nn.NLLLoss on `manualbp.functional.nll_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(nn.MSELoss):
    """torch.nn.MSELoss on `manualbp.functional.mse_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


__all__ = [
    "LENET5_C3",
    "AvgPool2d",
    "ConnectedConv2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "NLLLoss",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "TrueConv2d",
    "random_connections",
]
