"""Activations that put a part of the numbers to one value, and let the others through.

hardshrink  y = x, and 0 where |x| <= lambd            dy/dx = 0 where -lambd <= x <= lambd, else 1
softshrink  y = x - lambd where x is above lambd,      the same
            x + lambd where it is below -lambd, else 0
threshold   y = x where x is above end, else v         dy/dx = 0 where x <= end, else 1

(The first two: Donoho and Johnstone 1994.) The slope is 0 or 1: delta times it is linear in delta, its
own adjoint, and does not depend on x. At the ends of a piece it is 0, and 1 of what is no number, as in PyTorch. Kept
is a bit a number, which slope it is, a 32nd of the input that PyTorch keeps (functional.activation.relu).

Letters: x input, y output, delta = dL/dy.
"""

from typing import Any

import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.in_place import copied
from manualbp.functional.activation.relu import keep_bits, let_through
from manualbp.functional.checks import require_floating, require_real
from manualbp.functional.rule import ElementwiseRule, run
from manualbp.kernels import bits


class Hardshrink(ElementwiseRule):
    """y = x, and 0 where |x| <= lambd. dL/dx = delta, and 0 where -lambd <= x <= lambd; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, lambd: float) -> Tensor:
        return T.hardshrink(x, lambd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, lambd = inputs
        keep_bits(ctx, bits.outside, x, -lambd, lambd)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        return let_through(ctx, delta), None


class Softshrink(Hardshrink):
    """y = x - lambd above lambd, x + lambd below -lambd, else 0. The slope, and what is kept, are those of the hard."""

    @staticmethod
    def forward(x: Tensor, lambd: float) -> Tensor:
        return T.softshrink(x, lambd)


class Threshold(ElementwiseRule):
    """y = x where x > end, else v. dL/dx = delta, and 0 where x <= end; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, end: float, v: float) -> Tensor:
        return T.threshold(x, end, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, end, _ = inputs
        keep_bits(ctx, bits.not_up_to, x, end)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        return let_through(ctx, delta), None, None


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """torch.nn.functional.hardshrink with a backward pass by hand.

    input of any shape and floating dtype -> input, and 0 where |input| <= lambd, the same shape. At -lambd and at lambd
    the slope is 0, as in PyTorch. For lambd below 0 it is input, of slope 1. Kept for backward: a bit a number. Raises
    TypeError for other dtypes. Source: Donoho and Johnstone 1994; derivation at the head of this file.
    """
    require_floating("hardshrink", input=input)
    return run(Hardshrink, input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """torch.nn.functional.softshrink with a backward pass by hand.

    input of any shape and floating dtype -> input - lambd above lambd, input + lambd below -lambd, 0 between, the same
    shape. At -lambd and at lambd the slope is 0, as in PyTorch. Kept for backward: a bit a number. Raises ValueError
    for lambd below 0, TypeError for other dtypes.
    Source: Donoho and Johnstone 1994; derivation at the head of this file.
    """
    require_floating("softshrink", input=input)
    if lambd < 0:
        raise ValueError(f"softshrink: lambd = {lambd}; it must not be below 0")
    return run(Softshrink, input, lambd)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """torch.nn.functional.threshold with a backward pass by hand.

    input of any shape and real dtype -> input where it is above threshold, else value, the same shape. At the threshold
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: a bit a number. Raises TypeError for complex numbers. Derivation at the head of this file.
    """
    require_real("threshold", input=input)
    return copied(Threshold, input, threshold, value) if inplace else run(Threshold, input, threshold, value)
