"""Activations that put a part of the numbers to one value, and let the others through.

hardshrink  y = x, and 0 where |x| <= lambd            dy/dx = 0 where -lambd <= y <= lambd, else 1
softshrink  y = x - lambd where x is above lambd,      dy/dx = 0 where y = 0, else 1
            x + lambd where it is below -lambd, else 0
threshold   y = x where x is above end, else v         dy/dx = 0 where x <= end, else 1; the same in y if v <= end

(The first two: Donoho and Johnstone 1994.) The slope is 0 or 1: delta times it is linear in delta, its
own adjoint, and does not depend on x. At the ends of a piece it is 0, as in PyTorch.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx); t a tensor that tells the pieces apart.
"""

from math import inf
from typing import Any

import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import ElementwiseRule, LinearRule, keep, run
from manualbp.kernels import activation as kernels


class Hardshrink(ElementwiseRule):
    """y = x, and 0 where |x| <= lambd. dL/dx = delta, and 0 where -lambd <= y <= lambd; kept: y."""

    @staticmethod
    def forward(x: Tensor, lambd: float) -> Tensor:
        return T.hardshrink(x, lambd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        _, ctx.lambd = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(OutsideSlope, delta, y, -ctx.lambd, ctx.lambd), None


class Softshrink(ElementwiseRule):
    """y = x - lambd above lambd, x + lambd below -lambd, else 0. dL/dx = delta, and 0 where y is; kept: y."""

    @staticmethod
    def forward(x: Tensor, lambd: float) -> Tensor:
        return T.softshrink(x, lambd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(OutsideSlope, delta, y, 0.0, 0.0), None


class Threshold(ElementwiseRule):
    """y = x where x > end, else v. dL/dx = delta [x > end]; kept: y, above end where x is; x if v is above end."""

    @staticmethod
    def forward(x: Tensor, end: float, v: float) -> Tensor:
        return T.threshold(x, end, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.end, v = inputs
        keep(ctx, output if v <= ctx.end else x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (t,) = ctx.saved_tensors
        return run(OutsideSlope, delta, t, -inf, ctx.end), None, None


class OutsideSlope(LinearRule, ElementwiseRule):
    """dx = delta, and 0 where low <= t <= high. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, low: float, high: float) -> Tensor:
        return kernels.outside_slope(delta, t, low, high)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (t,) = ctx.saved_tensors
        return run(OutsideSlope, eps, t, *ctx.settings), None, None, None


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """torch.nn.functional.hardshrink with a backward pass by hand.

    input of any shape and floating dtype -> input, and 0 where |input| <= lambd, the same shape. At -lambd and at lambd
    the slope is 0, as in PyTorch. Kept for backward: the output. Raises ValueError for lambd below 0, TypeError for
    complex numbers. Source: Donoho and Johnstone 1994; derivation at the head of this file.
    """
    refuse_complex("hardshrink", input=input)
    if lambd < 0:
        raise ValueError(f"hardshrink: lambd = {lambd}; it must not be below 0")
    return run(Hardshrink, input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """torch.nn.functional.softshrink with a backward pass by hand.

    input of any shape and floating dtype -> input - lambd above lambd, input + lambd below -lambd, 0 between, the same
    shape. At -lambd and at lambd the slope is 0, as in PyTorch. Kept for backward: the output. Raises ValueError for
    lambd below 0, TypeError for complex numbers.
    Source: Donoho and Johnstone 1994; derivation at the head of this file.
    """
    refuse_complex("softshrink", input=input)
    if lambd < 0:
        raise ValueError(f"softshrink: lambd = {lambd}; it must not be below 0")
    return run(Softshrink, input, lambd)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """torch.nn.functional.threshold with a backward pass by hand.

    input of any shape and real dtype -> input where it is above threshold, else value, the same shape. At the threshold
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: the output; for a value above the threshold the input, with inplace a copy of it. Raises TypeError for
    complex numbers. Derivation at the head of this file.
    """
    refuse_complex("threshold", input=input)
    y = run(Threshold, input.clone() if inplace and not value <= threshold else input, threshold, value)
    return input.copy_(y) if inplace else y
