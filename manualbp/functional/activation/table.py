"""The activations that `manualbp.fuse` takes together with their neighbours, and what PyTorch calls them.

One row is all that it knows of an activation a = phi(z): the rules that it runs, and by which of PyTorch's layers and
functions it finds the activation in a model.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as T
from torch import nn

from manualbp.functional.activation.gated import (
    GELU,
    GELU_TANH,
    SILU,
    GateSlope,
    GELUSlope,
    GELUTanh,
    Hardswish,
    HardswishSlope,
    SiLU,
)
from manualbp.functional.activation.piecewise_linear import Hardtanh, InsideSlope
from manualbp.functional.activation.relu import ReLU, ReLUSlope
from manualbp.functional.activation.sigmoid import Sigmoid, SigmoidSlope, Tanh, TanhSlope


@dataclass(frozen=True)
class Activation:
    """phi by hand and by PyTorch.

    rule: phi as a rule, and what follows z among its arguments
    slope: delta phi'(z) as a rule of delta and of a or z, and what follows these
    of_output: whether the slope is told by a, which the rule then keeps; else it is told by z
    monotone: whether phi never falls, so that max pooling may go before it
    modules: torch.nn's layers
    functions: PyTorch's functions of z, and the names of the Tensor's methods
    """

    name: str
    rule: tuple[Any, ...]
    slope: tuple[Any, ...]
    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Any, ...] = ()
    of_output: bool = False
    monotone: bool = False


OF_OUTPUT = {"of_output": True, "monotone": True}
RELU = T.relu, torch.relu, T.relu_, torch.relu_, "relu", "relu_"
SIGMOID, TANH = (T.sigmoid, torch.sigmoid, "sigmoid"), (T.tanh, torch.tanh, "tanh")
ROWS = [
    Activation("relu", (ReLU,), (ReLUSlope,), (nn.ReLU,), RELU, **OF_OUTPUT),
    Activation("relu6", (Hardtanh, 0.0, 6.0), (InsideSlope, 0.0, 6.0, 1.0), (nn.ReLU6,), (T.relu6,), **OF_OUTPUT),
    Activation("sigmoid", (Sigmoid,), (SigmoidSlope,), (nn.Sigmoid,), SIGMOID, **OF_OUTPUT),
    Activation("tanh", (Tanh,), (TanhSlope,), (nn.Tanh,), TANH, **OF_OUTPUT),
    Activation("gelu", (GELU,), (GELUSlope,), (nn.GELU,), (T.gelu,)),
    Activation("gelu_tanh", (GELUTanh,), (GateSlope, *GELU_TANH)),  # layer and function of "gelu", approximate="tanh"
    Activation("silu", (SiLU,), (GateSlope, *SILU), (nn.SiLU,), (T.silu,)),
    Activation("hardswish", (Hardswish,), (HardswishSlope,), (nn.Hardswish,), (T.hardswish,)),
]
ACTIVATIONS = {activation.name: activation for activation in ROWS}


def name_of_layer(layer: nn.Module) -> str | None:
    """The name of the activation that the layer is, of torch.nn or derived from it; None if it is none of these."""
    kinds = {kind: activation.name for activation in ROWS for kind in activation.modules}
    name = next((kinds[kind] for kind in type(layer).__mro__ if kind in kinds), None)
    return "gelu_tanh" if name == "gelu" and layer.approximate == "tanh" else name
