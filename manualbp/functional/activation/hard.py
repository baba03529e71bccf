"""Activations made of straight pieces, and hardswish, which has a parabola between two.

hardtanh     y = min(max(x, low), high)       dy/dx = [low < y < high]                   (Collobert 2004)
relu6        the same from 0 to 6                                                        (Krizhevsky 2010)
leaky_relu   y = x above 0, else a x          dy/dx = 1 above, else a                    (Maas et al. 2013)
hardsigmoid  y = min(max(x + 3, 0), 6) / 6    dy/dx = [-3 < x < 3] / 6                   (Howard et al. 2019)
hardswish    y = x h, h = hardsigmoid(x)      dy/dx = h + x h'                           (Howard et al. 2019)
                                              which is x/3 + 1/2 inside (-3, 3), 0 below, 1 above
                                              d2y/dx2 = [-3 < x < 3] / 3

A straight piece has a constant slope: delta times the slope is linear in delta, its own adjoint, and does not depend on
x. Where two pieces meet PyTorch's slope is taken: 0 at low and high (hardtanh), a at 0 (leaky_relu), 0 at -3 and 3
(hardsigmoid), 0 at -3 and 1 at 3 (hardswish).

Letters: x input, y output, a negative slope, delta = dL/dy, eps = dL/d(dx); t a tensor that tells the pieces apart.
"""

from typing import Any

import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.relu_bits import rectify
from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import ElementwiseRule, Rule, keep, run
from manualbp.kernels import activation as kernels


class Hardtanh(Rule):
    """y = min(max(x, low), high). dL/dx = delta [low < y < high]; kept: y."""

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return T.hardtanh(x, low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        _, ctx.low, ctx.high = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return run(InsideSlope, delta, y, ctx.low, ctx.high, 1.0), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        """The tangent where low < y < high."""
        (y,) = ctx.saved_tensors
        return run(InsideSlope, dx, y, ctx.low, ctx.high, 1.0)


class Hardsigmoid(Rule):
    """y = min(max(x + 3, 0), 6) / 6. dL/dx = delta [-3 < x < 3] / 6; kept: x, as y rounds to 1 before x is 3."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.hardsigmoid(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(InsideSlope, delta, x, -3.0, 3.0, 1 / 6)

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """A sixth of the tangent where -3 < x < 3."""
        (x,) = ctx.saved_tensors
        return run(InsideSlope, dx, x, -3.0, 3.0, 1 / 6)


class InsideSlope(ElementwiseRule):
    """dx = slope delta [low < t < high]. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, low: float, high: float, slope: float) -> Tensor:
        return kernels.inside_slope(delta, t, low, high, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, t, *ctx.how = inputs
        keep(ctx, t)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (t,) = ctx.saved_tensors
        return run(InsideSlope, eps, t, *ctx.how), None, None, None, None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, *_: Any) -> Tensor:
        """Linear in delta."""
        (t,) = ctx.saved_tensors
        return run(InsideSlope, ddelta, t, *ctx.how)


class LeakyReLU(Rule):
    """y = x where x > 0, else a x. dL/dx = delta, or delta a; kept: y, positive where x is; x if a is negative."""

    @staticmethod
    def forward(x: Tensor, a: float) -> Tensor:
        return T.leaky_relu(x, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.a = inputs
        t = output if ctx.a >= 0 else x
        keep(ctx, t)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        return run(LeakySlope, delta, t, ctx.a), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        """The tangent times the slope."""
        (t,) = ctx.saved_tensors
        return run(LeakySlope, dx, t, ctx.a)


class LeakySlope(ElementwiseRule):
    """dx = delta where t > 0, else delta a. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, a: float) -> Tensor:
        return kernels.leaky_slope(delta, t, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        _, t, ctx.a = inputs
        keep(ctx, t)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (t,) = ctx.saved_tensors
        return run(LeakySlope, eps, t, ctx.a), None, None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, *_: Any) -> Tensor:
        """Linear in delta."""
        (t,) = ctx.saved_tensors
        return run(LeakySlope, ddelta, t, ctx.a)


class Hardswish(Rule):
    """y = x hardsigmoid(x). dL/dx = delta (x/3 + 1/2) inside (-3, 3), 0 below, delta above; kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.hardswish(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(HardswishSlope, delta, x)

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """The tangent times the slope."""
        (x,) = ctx.saved_tensors
        return run(HardswishSlope, dx, x)


class HardswishSlope(ElementwiseRule):
    """dx = delta times the slope. By delta: the same map of eps. By x: eps delta [-3 < x < 3] / 3."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.hardswish_slope(delta, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        return run(HardswishSlope, eps, x), run(InsideSlope, eps * delta, x, -3.0, 3.0, 1 / 3)

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dx: Tensor) -> Tensor:
        """The sum of both derivatives."""
        delta, x = ctx.saved_tensors
        return run(HardswishSlope, ddelta, x) + run(InsideSlope, delta * dx, x, -3.0, 3.0, 1 / 3)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardtanh with a backward pass by hand.

    input of any shape and real dtype -> min(max(input, min_val), max_val), the same shape. At min_val and at max_val
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: the output. Raises ValueError for min_val above max_val, TypeError for complex numbers.
    Source: Collobert 2004, a tanh of straight pieces; derivation at the head of this file.
    """
    refuse_complex("hardtanh", input=input)
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val = {min_val} and max_val = {max_val}; min_val must not be above max_val")
    y = run(Hardtanh, input, min_val, max_val)
    return input.copy_(y) if inplace else y


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu6 with a backward pass by hand.

    input of any shape and real dtype -> min(max(input, 0), 6), the same shape: `hardtanh` from 0 to 6. At 0 and at 6
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: the output; in place, where that would be a copy, a bit a number. Raises TypeError for complex numbers.
    Source: Krizhevsky 2010; derivation at the head of this file.
    """
    refuse_complex("relu6", input=input)
    return rectify(input, 6.0) if inplace else run(Hardtanh, input, 0.0, 6.0)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """torch.nn.functional.leaky_relu with a backward pass by hand.

    input of any shape and floating dtype -> input where it is positive, else negative_slope input, the same shape. At 0
    the slope is negative_slope, as in PyTorch. inplace: the values are also written into input, which is returned. Kept
    for backward: the output; for a negative_slope below 0 the input, with inplace a copy of it. Raises TypeError for
    complex numbers. Source: Maas et al. 2013, sec. 2; derivation at the head of this file.
    """
    refuse_complex("leaky_relu", input=input)
    y = run(LeakyReLU, input.clone() if inplace and negative_slope < 0 else input, negative_slope)
    return input.copy_(y) if inplace else y


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardsigmoid with a backward pass by hand.

    input of any shape and floating dtype -> min(max(input + 3, 0), 6) / 6, the same shape. At -3 and at 3 the slope is
    0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for backward: the input,
    with inplace a copy of it. Raises TypeError for complex numbers.
    Source: Howard et al. 2019, sec. 5.2; derivation at the head of this file.
    """
    refuse_complex("hardsigmoid", input=input)
    y = run(Hardsigmoid, input.clone() if inplace else input)
    return input.copy_(y) if inplace else y


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardswish with a backward pass by hand.

    input of any shape and floating dtype -> input hardsigmoid(input), the same shape. At -3 the slope is 0, at 3 it is
    1, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for backward: the input,
    with inplace a copy of it. Raises TypeError for complex numbers.
    Source: Howard et al. 2019, sec. 5.2; derivation at the head of this file.
    """
    refuse_complex("hardswish", input=input)
    y = run(Hardswish, input.clone() if inplace else input)
    return input.copy_(y) if inplace else y
