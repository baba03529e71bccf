"""Activations between two asymptotes.

sigmoid   y = 1 / (1 + exp(-x))   dy/dx = exp(-x) / (1 + exp(-x))^2 = y (1 - y)        (lecture 004, eq. 4.4)
tanh      y = tanh x              dy/dx = 1 - y^2
softsign  y = x / (1 + |x|)       dy/dx = 1 / (1 + |x|)^2                               (Glorot and Bengio 2010)
                                  d2y/dx2 = -2 sign(x) / (1 + |x|)^3

dL/dx = delta phi'(x), elementwise (lecture 003, eq. 3.2). This product is itself a map of delta and y, with a
derivative by each, so it is a rule of its own: the Slope. The first two slopes are written in the output y, which the
next layer keeps anyway. That of softsign would be (1 - |y|)^2, but where |x| is large the two cancel: x is kept.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.activation.in_place import InPlace
from manualbp.functional.checks import require_real
from manualbp.functional.rule import ElementwiseRule, keep, run
from manualbp.kernels import activation as kernels


class Sigmoid(ElementwiseRule):
    """y = 1 / (1 + exp(-x)). dL/dx = delta y (1 - y); kept: y."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return run(SigmoidSlope, delta, y)


class SigmoidInPlace(InPlace, Sigmoid):
    """The same in the place of x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.ops.aten.sigmoid_(x)


class SigmoidSlope(ElementwiseRule):
    """dx = delta y (1 - y). By delta: eps y (1 - y), the same map. By y: eps delta (1 - 2y)."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.sigmoid_slope(delta, y)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, y = ctx.saved_tensors
        return run(SigmoidSlope, eps, y), eps * delta * (1 - 2 * y)


class Tanh(ElementwiseRule):
    """y = tanh x. dL/dx = delta (1 - y^2); kept: y."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return run(TanhSlope, delta, y)


class TanhInPlace(InPlace, Tanh):
    """The same in the place of x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.ops.aten.tanh_(x)


class TanhSlope(ElementwiseRule):
    """dx = delta (1 - y^2). By delta: eps (1 - y^2), the same map. By y: -2 eps delta y."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.tanh_slope(delta, y)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, y = ctx.saved_tensors
        return run(TanhSlope, eps, y), -2 * eps * delta * y


class Softsign(ElementwiseRule):
    """y = x / (1 + |x|). dL/dx = delta / (1 + |x|)^2; kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / (x.abs() + 1)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(SoftsignSlope, delta, x)


class SoftsignSlope(ElementwiseRule):
    """dx = delta / (1 + |x|)^2. By delta: the same map of eps. By x: -2 eps delta sign(x) / (1 + |x|)^3."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.softsign_slope(delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        return run(SoftsignSlope, eps, x), run(SoftsignSlope, eps * delta, x) * -2 * x.sign() / (1 + x.abs())


def sigmoid(input: Tensor) -> Tensor:
    """torch.nn.functional.sigmoid with a backward pass by hand.

    input of any shape and real dtype -> 1 / (1 + exp(-input)), the same shape. Kept for backward: the output.
    Raises TypeError for complex numbers. Source: lecture 004, eq. 4.4; derivation at the head of this file.
    """
    require_real("sigmoid", input=input)
    return run(Sigmoid, input)


def tanh(input: Tensor) -> Tensor:
    """torch.nn.functional.tanh with a backward pass by hand.

    input of any shape and real dtype -> tanh(input), the same shape. Kept for backward: the output.
    Raises TypeError for complex numbers. Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    require_real("tanh", input=input)
    return run(Tanh, input)


def softsign(input: Tensor) -> Tensor:
    """torch.nn.functional.softsign with a backward pass by hand.

    input of any shape and real dtype -> input / (1 + |input|), the same shape. Kept for backward: the input, as the
    slope in the output is a difference of nearly equal numbers. Raises TypeError for complex numbers.
    Source: Glorot and Bengio 2010; derivation at the head of this file.
    """
    require_real("softsign", input=input)
    return run(Softsign, input)
