"""The activations that `manualbp.fuse` takes together with their neighbours, and what PyTorch calls them.

An activation a = phi(z) is a value: the rules that it runs, with its settings. It can be compared, hashed and pickled,
so that it may stand in what is written for a model. A row of the table makes it of its settings, which have the names
and defaults that PyTorch's layers and functions give them.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, nn

from manualbp.functional.activation.exponential import ELU, SELU, ELUSlope, LogSigmoid, Softplus, SoftplusSlope
from manualbp.functional.activation.gated import (
    GELU,
    GELU_TANH,
    SILU,
    GateSlope,
    GELUSlope,
    GELUTanh,
    Hardswish,
    HardswishSlope,
    Mish,
    MishSlope,
    SiLU,
)
from manualbp.functional.activation.piecewise_linear import (
    Hardsigmoid,
    Hardtanh,
    InsideSlope,
    LeakyReLU,
    LeakySlope,
)
from manualbp.functional.activation.relu import ReLU, ReLUSlope
from manualbp.functional.activation.sigmoid import Sigmoid, SigmoidSlope, Softsign, SoftsignSlope, Tanh, TanhSlope
from manualbp.functional.rule import run


@dataclass(frozen=True)
class Activation:
    """phi by hand.

    rule: phi as a rule, and what follows z among its arguments
    slope: delta phi'(z) as a rule of delta and of a or z, and what follows these
    of_output: whether the slope is told by a, which PyTorch keeps as well; else it is told by z
    monotone: whether phi never falls, so that max pooling may go before it
    """

    name: str
    rule: tuple[Any, ...]
    slope: tuple[Any, ...]
    of_output: bool = False
    monotone: bool = False

    def of(self, z: Tensor) -> Tensor:
        """phi(z), by its rule."""
        rule, *settings = self.rule
        return run(rule, z, *settings)

    def sloped(self, delta: Tensor, told_by: Tensor) -> Tensor:
        """delta phi'(z), by its rule, told by a if `of_output`, else by z."""
        rule, *settings = self.slope
        return run(rule, delta, told_by, *settings)


@dataclass(frozen=True)
class Row:
    """What PyTorch calls an activation: torch.nn's layers, the functions of z, and the names of the Tensor's methods.

    make: the activation, of its settings.
    """

    make: Callable[..., Activation]
    modules: tuple[type[nn.Module], ...]
    functions: tuple[Any, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings' names, in the order of the functions' arguments, and their defaults."""
        return {name: p.default for name, p in inspect.signature(self.make).parameters.items()}


def relu() -> Activation:
    return Activation("relu", (ReLU,), (ReLUSlope,), of_output=True, monotone=True)


def hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    return Activation(
        "hardtanh", (Hardtanh, min_val, max_val), (InsideSlope, min_val, max_val, 1.0), monotone=min_val <= max_val
    )


def relu6() -> Activation:
    return Activation("relu6", (Hardtanh, 0.0, 6.0), (InsideSlope, 0.0, 6.0, 1.0), monotone=True)


def sigmoid() -> Activation:
    return Activation("sigmoid", (Sigmoid,), (SigmoidSlope,), of_output=True, monotone=True)


def tanh() -> Activation:
    return Activation("tanh", (Tanh,), (TanhSlope,), of_output=True, monotone=True)


def gelu(approximate: str = "none") -> Activation:
    if approximate == "tanh":
        return Activation("gelu_tanh", (GELUTanh,), (GateSlope, *GELU_TANH))
    return Activation("gelu", (GELU,), (GELUSlope,))


def silu() -> Activation:
    return Activation("silu", (SiLU,), (GateSlope, *SILU))


def hardswish() -> Activation:
    return Activation("hardswish", (Hardswish,), (HardswishSlope,))


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    return Activation(
        "leaky_relu", (LeakyReLU, negative_slope), (LeakySlope, negative_slope), monotone=negative_slope >= 0
    )


def _elu(name: str, alpha: float, scale: float, k: float) -> Activation:
    return Activation(name, (ELU, alpha, scale, k), (ELUSlope, alpha, scale, k), monotone=alpha >= 0 and k > 0)


def elu(alpha: float = 1.0) -> Activation:
    return _elu("elu", alpha, 1.0, 1.0)


def celu(alpha: float = 1.0) -> Activation:
    return _elu("celu", alpha, 1.0, 1 / alpha)


def selu() -> Activation:
    return _elu("selu", *SELU)


def mish() -> Activation:
    return Activation("mish", (Mish,), (MishSlope,))


def hardsigmoid() -> Activation:
    return Activation("hardsigmoid", (Hardsigmoid,), (InsideSlope, -3.0, 3.0, 1 / 6), monotone=True)


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    return Activation("softplus", (Softplus, beta, threshold), (SoftplusSlope, beta, threshold))


def logsigmoid() -> Activation:
    return Activation("logsigmoid", (LogSigmoid,), (SoftplusSlope, -1.0, float("inf")))


def softsign() -> Activation:
    return Activation("softsign", (Softsign,), (SoftsignSlope,))


ROWS = [
    Row(relu, (nn.ReLU,), (T.relu, torch.relu, T.relu_, torch.relu_, "relu", "relu_")),
    Row(relu6, (nn.ReLU6,), (T.relu6,)),
    Row(hardtanh, (nn.Hardtanh,), (T.hardtanh, T.hardtanh_)),
    Row(sigmoid, (nn.Sigmoid,), (T.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_")),
    Row(tanh, (nn.Tanh,), (T.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_")),
    Row(gelu, (nn.GELU,), (T.gelu,)),
    Row(silu, (nn.SiLU,), (T.silu,)),
    Row(hardswish, (nn.Hardswish,), (T.hardswish,)),
    Row(leaky_relu, (nn.LeakyReLU,), (T.leaky_relu, T.leaky_relu_)),
    Row(elu, (nn.ELU,), (T.elu, T.elu_)),
    Row(celu, (nn.CELU,), (T.celu, torch.celu, T.celu_, torch.celu_)),
    Row(selu, (nn.SELU,), (T.selu, torch.selu, T.selu_, torch.selu_)),
    Row(mish, (nn.Mish,), (T.mish,)),
    Row(hardsigmoid, (nn.Hardsigmoid,), (T.hardsigmoid,)),
    Row(softplus, (nn.Softplus,), (T.softplus,)),
    Row(logsigmoid, (nn.LogSigmoid,), (T.logsigmoid,)),
    Row(softsign, (nn.Softsign,), (T.softsign,)),
]
# By name, with PyTorch's own settings.
ACTIVATIONS = {a.name: a for a in [*(row.make() for row in ROWS), gelu("tanh")]}
OF_MODULE = {kind: row for row in ROWS for kind in row.modules}
OF_FUNCTION = {function: row for row in ROWS for function in row.functions}


def made(row: Row, settings: dict[str, Any]) -> Activation | None:
    """The activation; None for settings that are no numbers (a trained slope) or that it does not have."""
    if not all(isinstance(a, bool | int | float | str) for a in settings.values()):
        return None
    try:
        return row.make(**settings)
    except (TypeError, ZeroDivisionError):
        return None


def of_layer(layer: nn.Module) -> Activation | None:
    """The activation that the layer is, of torch.nn or derived from it; None if it is none of these."""
    row = next((OF_MODULE[kind] for kind in type(layer).__mro__ if kind in OF_MODULE), None)
    return None if row is None else made(row, {name: getattr(layer, name) for name in row.settings})


def of_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Activation | None:
    """The activation that a call of PyTorch's function is, of what follows z among its arguments."""
    row = OF_FUNCTION.get(function)
    if row is None:
        return None
    names = [*row.settings, "inplace"]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    given.pop("inplace", None)
    return made(row, given) if len(args) <= len(names) else None
