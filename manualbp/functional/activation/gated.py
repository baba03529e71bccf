"""Activations that are x times a gate, which opens from 0 to 1. They are not monotonic, so the input is kept.

gelu         y = x Phi(x)            dy/dx = Phi(x) + x phi(x)                  (Hendrycks and Gimpel 2016)
             phi(x) = exp(-x^2/2) / sqrt(2 pi) is the density of Gauss, Phi its integral: Phi' = phi, phi' = -x phi
             d2y/dx2 = phi + phi + x phi' = phi (2 - x^2)

silu         y = x s(x)              s the sigmoid, s' = s (1 - s)              (Elfwing et al. 2017)
gelu "tanh"  y = x (1 + tanh u) / 2  u = k (x + c x^3), k = sqrt(2/pi), c = 0.044715
             y = x s(z) with z = 2u, as (1 + tanh u) / 2 = s(2u)                (Hendrycks and Gimpel 2016, sec. 2)

The last two are one formula: y = x s(z), z = a x + b x^3, with z' = a + 3 b x^2, z'' = 6 b x.
             dy/dx   = s + x s' z' = s (1 + (1 - s) x z')
             d2y/dx2 = 2 s' z' + x (s'' z'^2 + s' z'')    with s'' = s' (1 - 2s)
                     = s' (2a + 12 b x^2 + x z'^2 (1 - 2s))

mish         y = x t, t = tanh(softplus x)    t' = (1 - t^2) s(x), as softplus' = s    (Misra 2019)
             dy/dx   = t + x t'
             d2y/dx2 = 2 t' + x t''           t'' = -2 t t' s + (1 - t^2) s' = t' (1 - s - 2 t s)
                     = t' (2 + x (1 - s - 2 t s))

hardswish    y = x h, h = hardsigmoid(x)      dy/dx = h + x h'                         (Howard et al. 2019)
             which is x/3 + 1/2 inside (-3, 3), 0 below, 1 above; 0 at -3 and 1 at 3, as in PyTorch
             d2y/dx2 = [-3 < x < 3] / 3

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

import math
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.exponential import Softplus
from manualbp.functional.activation.in_place import copied
from manualbp.functional.activation.piecewise_linear import InsideSlope
from manualbp.functional.activation.sigmoid import Sigmoid, Tanh
from manualbp.functional.checks import require_floating
from manualbp.functional.rule import ElementwiseRule, keep, run
from manualbp.kernels import activation as kernels

# The gates s(a x + b x^3): those of SiLU, and of GELU with approximate="tanh".
SILU = 1.0, 0.0
GELU_TANH = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715


class GELU(ElementwiseRule):
    """y = x Phi(x). dL/dx = delta (Phi + x phi); kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.gelu(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(GELUSlope, delta, x)


class GELUSlope(ElementwiseRule):
    """dx = delta (Phi + x phi). By delta: eps (Phi + x phi), the same map. By x: eps delta phi (2 - x^2)."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.gelu_slope(delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        return run(GELUSlope, eps, x), eps * delta * run(Gauss, x) * (2 - x * x)


class Gauss(ElementwiseRule):
    """y = phi(x) = exp(-x^2/2) / sqrt(2 pi). dL/dx = -delta x y; kept: x and y."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.exp(-0.5 * x * x) * math.sqrt(0.5 / math.pi)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, *inputs, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        return -delta * x * y


class SiLU(ElementwiseRule):
    """y = x s(x). dL/dx = delta s (1 + (1 - s) x); kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.silu(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(GateSlope, delta, x, *SILU)


class GELUTanh(ElementwiseRule):
    """y = x (1 + tanh u) / 2 = x s(2u). dL/dx = delta s (1 + (1 - s) x z'), z = 2u; kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.gelu(x, approximate="tanh")

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(GateSlope, delta, x, *GELU_TANH)


class GateSlope(ElementwiseRule):
    """dx = delta s (1 + (1 - s) x z'). By delta: the same map of eps. By x: eps delta d2y/dx2."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor, a: float, b: float) -> Tensor:
        return kernels.gate_slope(delta, x, a, b)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (delta, x), (a, b) = ctx.saved_tensors, ctx.settings
        square = x * x
        s, dz = run(Sigmoid, x * (a + b * square)), a + 3 * b * square
        curvature = s * (1 - s) * (2 * a + 12 * b * square + x * dz * dz * (1 - 2 * s))
        return run(GateSlope, eps, x, a, b), eps * delta * curvature, None, None


class Mish(ElementwiseRule):
    """y = x t, t = tanh(softplus x). dL/dx = delta (t + x t'); kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.mish(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(MishSlope, delta, x)


class MishSlope(ElementwiseRule):
    """dx = delta (t + x t'). By delta: the same map of eps. By x: eps delta t' (2 + x (1 - s - 2 t s))."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.mish_slope(delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        s, t = run(Sigmoid, x), run(Tanh, run(Softplus, x, 1.0, 20.0))
        curvature = (1 - t * t) * s * (2 + x * (1 - s - 2 * t * s))
        return run(MishSlope, eps, x), eps * delta * curvature


class Hardswish(ElementwiseRule):
    """y = x hardsigmoid(x). dL/dx = delta (x/3 + 1/2) inside (-3, 3), 0 below, delta above; kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.hardswish(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(HardswishSlope, delta, x)


class HardswishSlope(ElementwiseRule):
    """dx = delta times the slope. By delta: the same map of eps. By x: eps delta [-3 < x < 3] / 3."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.hardswish_slope(delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        return run(HardswishSlope, eps, x), run(InsideSlope, eps * delta, x, -3.0, 3.0, 1 / 3)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """torch.nn.functional.gelu with a backward pass by hand.

    input of any shape and floating dtype -> input Phi(input), the same shape; approximate="tanh": Phi by a tanh. Kept
    for backward: the input, as the output takes most of its negative values twice. Raises ValueError for another
    `approximate`, TypeError for other dtypes.
    Source: Hendrycks and Gimpel 2016, sec. 2; derivation at the head of this file.
    """
    require_floating("gelu", input=input)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate = {approximate!r}; it must be 'none' or 'tanh'")
    return run(GELU if approximate == "none" else GELUTanh, input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.silu with a backward pass by hand.

    input of any shape and floating dtype -> input sigmoid(input), the same shape. inplace: the values are also written
    into input, which is returned. Kept for backward: the input, with inplace a copy of it, as the output takes most of
    its negative values twice. Raises TypeError for other dtypes.
    Source: Elfwing et al. 2017; Ramachandran et al. 2017; derivation at the head of this file.
    """
    require_floating("silu", input=input)
    return copied(SiLU, input) if inplace else run(SiLU, input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.mish with a backward pass by hand.

    input of any shape and floating dtype -> input tanh(softplus(input)), the same shape. inplace: the values are also
    written into input, which is returned. Kept for backward: the input, with inplace a copy of it, as the output takes
    most of its negative values twice. Raises TypeError for other dtypes.
    Source: Misra 2019; derivation at the head of this file.
    """
    require_floating("mish", input=input)
    return copied(Mish, input) if inplace else run(Mish, input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardswish with a backward pass by hand.

    input of any shape and floating dtype -> input hardsigmoid(input), the same shape. At -3 the slope is 0, at 3 it is
    1, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for backward: the input,
    with inplace a copy of it. Raises TypeError for other dtypes.
    Source: Howard et al. 2019, sec. 5.2; derivation at the head of this file.
    """
    require_floating("hardswish", input=input)
    return copied(Hardswish, input) if inplace else run(Hardswish, input)
