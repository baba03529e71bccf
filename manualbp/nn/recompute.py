"""Batch norm, activation and convolution that together keep one tensor, built from the layers that they replace.

The layers stay what they are, with their parameters, buffers and modes; here is only another forward of several.
`manualbp.fuse` finds such layers in a model and has them run by the functions of this file, whose first argument is the
layer that they stand for (None where a model calls a function instead).
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manualbp.functional.activation.relu_bits import relu_bits
from manualbp.functional.norm import batch_norm_with_scale
from manualbp.functional.rule import run
from manualbp.fuse import norm as F
from manualbp.fuse.recompute import Reactivate, Recipe
from manualbp.nn.norm import batch_norm_settings

NAMES = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
}


def name_of(op: str, activation: nn.Module) -> str:
    """The activation's name in `manualbp.functional`; or a refusal naming `op`."""
    name = next((NAMES[kind] for kind in type(activation).__mro__ if kind in NAMES), None)
    if name is None:
        known = ", ".join(kind.__name__ for kind in NAMES)
        raise TypeError(f"{op}: activation is a {type(activation).__name__}; it must be one of torch.nn's {known}")
    return "gelu_tanh" if name == "gelu" and activation.approximate == "tanh" else name


def require(op: str, **layers: tuple[Any, type[nn.Module]]) -> None:
    """TypeError where a layer is not of the kind that it must be."""
    for name, (layer, kind) in layers.items():
        if not isinstance(layer, kind):
            raise TypeError(f"{op}: {name} is a {type(layer).__name__}; it must be a torch.nn.{kind.__name__}")


def normalised(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, s, t): the layer's output and what it comes to, z = s x + t."""
    require("batch_norm", norm=(norm, _BatchNorm))
    return batch_norm_with_scale("batch_norm", x, *batch_norm_settings(norm, x))  # pyright: ignore[reportArgumentType]


def reactivated(activation: nn.Module | None, z: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """a = phi(z), phi being that of the recipe; kept: the sources."""
    return run(Reactivate, z, recipe, *sources)


def recorrelated(conv: nn.Module, a: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """The convolution of a; kept: the sources instead of a."""
    require("conv2d", conv=(conv, nn.Conv2d))
    how = conv.stride, conv.padding, conv.dilation, conv.groups
    return F.recorrelated("conv2d", a, recipe, sources, conv.weight, conv.bias, *how)  # pyright: ignore


def rectified(activation: nn.Module | None, z: Tensor) -> Tensor:
    """max(z, 0); kept: a bit a number."""
    return relu_bits(z)


class BatchNormActivation(nn.Module):
    """Batch norm and activation that keep the input alone: `manualbp.functional.batch_norm_activation`.

    norm: a torch.nn.BatchNorm1d, 2d or 3d; activation: a torch.nn.ReLU, ReLU6, Sigmoid, Tanh, GELU, SiLU or Hardswish
    (inplace means nothing here). Input and output: as those of norm. Raises TypeError for other layers.
    """

    def __init__(self, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        require("BatchNormActivation", norm=(norm, _BatchNorm))
        name_of("BatchNormActivation", activation)
        self.norm, self.activation = norm, activation

    def forward(self, input: Tensor) -> Tensor:
        recipe = Recipe(name_of("BatchNormActivation", self.activation), 1)
        z, s, t = normalised(self.norm, input)
        return reactivated(self.activation, z, recipe, input, s, t)


class BatchNormActivationConv2d(nn.Module):
    """Batch norm, activation and convolution that keep the input alone: one tensor instead of two or three.

    norm: a torch.nn.BatchNorm2d; activation: as in `BatchNormActivation`; conv: a torch.nn.Conv2d. Input
    (N, C, H, W), output as that of conv. Raises TypeError for other layers, ValueError for a padding mode other than
    zeros. The function is `manualbp.functional.batch_norm_activation_conv2d`.
    """

    def __init__(self, norm: nn.Module, activation: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        op = "BatchNormActivationConv2d"
        require(op, norm=(norm, nn.BatchNorm2d), conv=(conv, nn.Conv2d))
        name_of(op, activation)
        require_zeros(op, conv)
        self.norm, self.activation, self.conv = norm, activation, conv

    def forward(self, input: Tensor) -> Tensor:
        recipe = Recipe(name_of("BatchNormActivationConv2d", self.activation), 1)
        z, s, t = normalised(self.norm, input)
        a = reactivated(self.activation, z, recipe, input, s, t)
        return recorrelated(self.conv, a, recipe, input, s, t)


class ActivationConv2d(nn.Module):
    """Activation and convolution that keep the input alone: `manualbp.functional.activation_conv2d`.

    activation: as in `BatchNormActivation`; conv: a torch.nn.Conv2d. Input (N, C, H, W) or (C, H, W), output as that of
    conv. Raises TypeError for other layers, ValueError for a padding mode other than zeros.
    """

    def __init__(self, activation: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        name_of("ActivationConv2d", activation)
        require("ActivationConv2d", conv=(conv, nn.Conv2d))
        require_zeros("ActivationConv2d", conv)
        self.activation, self.conv = activation, conv

    def forward(self, input: Tensor) -> Tensor:
        conv: Any = self.conv
        how = conv.stride, conv.padding, conv.dilation, conv.groups
        return F.activation_conv2d(input, name_of("ActivationConv2d", self.activation), conv.weight, conv.bias, *how)


def require_zeros(op: str, conv: Any) -> None:
    """ValueError for a convolution whose margins are not zeros."""
    if conv.padding_mode != "zeros":
        raise ValueError(f"{op}: padding_mode = {conv.padding_mode!r}; it must be 'zeros'")
