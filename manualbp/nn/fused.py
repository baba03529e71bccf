"""Two layers in one. The functions are what `manualbp.fuse` has a model call, the layer that they stand for first."""

from math import prod
from typing import Any

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.fuse import pool as fused_pool
from manualbp.nn.activation import ReLU, Sigmoid, Tanh
from manualbp.nn.conv import Conv2d
from manualbp.nn.pool import AvgPool2d, MaxPool2d

# By the class itself: a subclass may do something else.
ACTIVATIONS: dict[type[nn.Module], str] = {
    **{nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.ReLU: "relu"},
    **{Sigmoid: "sigmoid", Tanh: "tanh", ReLU: "relu"},
}


def activated_pool(pool: Any, x: Tensor, phi: str, flat: bool) -> Tensor:
    """phi(pool(x)); if `flat`, with the maps one behind the other in memory: to flatten them copies nothing then."""
    y = F.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    return fused_pool.ACTIVATIONS[phi](y.contiguous() if flat else y)


def folds(conv: Any, pool: Any) -> bool:
    """Whether the two layers are one convolution, of fewer products than the first."""
    if not average_of_all(pool) or conv.padding_mode != "zeros":
        return False
    m, t = ((n, n) if isinstance(n, int) else n for n in (pool.kernel_size, pool.stride))
    axes = zip(conv.stride, conv.dilation, conv.kernel_size, m, strict=True)
    taps = [s * (a - 1) + d * (P - 1) + 1 for s, d, P, a in axes]
    return prod(taps) < prod(conv.kernel_size) * prod(t)


def average_of_all(pool: Any) -> bool:
    """Whether every window is whole and divided by its size."""
    return pool.padding in (0, (0, 0)) and not pool.ceil_mode and pool.divisor_override is None


def folded(conv: Any, pool: Any, x: Tensor) -> Tensor:
    """pool(conv(x)) as one convolution."""
    how = conv.stride, conv.padding, conv.dilation, conv.groups, pool.kernel_size, pool.stride
    return F.conv2d_avg_pool2d(x, conv.weight, conv.bias, *how)


class ActivationMaxPool2d(nn.Module):
    """pool(activation(input)) on `manualbp.functional.activation_max_pool2d`: the pooling first.

    activation: an nn.Sigmoid, nn.Tanh or nn.ReLU; pool: an nn.MaxPool2d without return_indices; of torch.nn or
    manualbp.nn. The input is never written to: the activated values that ReLU's inplace is about do not exist here.
    Hooks of the two layers are not called. Raises TypeError for other layers, ValueError for return_indices.
    """

    def __init__(self, activation: nn.Module, pool: nn.MaxPool2d) -> None:
        super().__init__()
        if type(activation) not in ACTIVATIONS:
            raise TypeError(
                f"ActivationMaxPool2d: activation is a {type(activation).__name__}; it must be a Sigmoid, Tanh or ReLU"
            )
        if type(pool) not in (nn.MaxPool2d, MaxPool2d):
            raise TypeError(f"ActivationMaxPool2d: pool is a {type(pool).__name__}; it must be a MaxPool2d")
        if pool.return_indices:
            raise ValueError("ActivationMaxPool2d: pool has return_indices = True; it must be False")
        self.activation, self.pool = activation, pool

    def forward(self, input: Tensor) -> Tensor:
        return activated_pool(self.pool, input, ACTIVATIONS[type(self.activation)], False)


class Conv2dAvgPool2d(nn.Module):
    """pool(conv(input)) on `manualbp.functional.conv2d_avg_pool2d`: one convolution, with the parameters of `conv`.

    conv: an nn.Conv2d with padding_mode "zeros"; pool: an nn.AvgPool2d with padding 0, ceil_mode False and no
    divisor_override; of torch.nn or manualbp.nn. Both are submodules, so the parameters are conv.weight and conv.bias.
    Hooks of the two layers are not called. Raises TypeError for other layers, ValueError for other settings.
    """

    def __init__(self, conv: nn.Conv2d, pool: nn.AvgPool2d) -> None:
        super().__init__()
        if type(conv) not in (nn.Conv2d, Conv2d):
            raise TypeError(f"Conv2dAvgPool2d: conv is a {type(conv).__name__}; it must be a Conv2d")
        if type(pool) not in (nn.AvgPool2d, AvgPool2d):
            raise TypeError(f"Conv2dAvgPool2d: pool is a {type(pool).__name__}; it must be an AvgPool2d")
        if conv.padding_mode != "zeros":
            raise ValueError(f"Conv2dAvgPool2d: conv has padding_mode = {conv.padding_mode!r}; it must be 'zeros'")
        if not average_of_all(pool):
            raise ValueError(
                f"Conv2dAvgPool2d: pool has padding = {pool.padding}, ceil_mode = {pool.ceil_mode} and "
                f"divisor_override = {pool.divisor_override}; they must be 0, False and None"
            )
        self.conv, self.pool = conv, pool

    def forward(self, input: Tensor) -> Tensor:
        return folded(self.conv, self.pool, input)
