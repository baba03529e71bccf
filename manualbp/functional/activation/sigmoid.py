"""Activations, each derivative written in the output y, which the next layer keeps anyway.

sigmoid  y = 1 / (1 + exp(-x))   dy/dx = exp(-x) / (1 + exp(-x))^2 = y (1 - y)           (lecture 004, eq. 4.4)
tanh     y = tanh x              dy/dx = 1 - y^2
relu     y = max(x, 0)           dy/dx = [y > 0] = sign(y), and 0 at x = 0 as in PyTorch

dL/dx = delta phi'(x), elementwise (lecture 003, eq. 3.2). This product is itself a map of delta and y, with a
derivative by each, so it is a rule of its own: the Slope. Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from math import inf
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.activation.relu_bits import rectify
from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import ElementwiseRule, Rule, keep, run
from manualbp.kernels import activation as kernels


class Sigmoid(Rule):
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

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """The tangent times the slope."""
        (y,) = ctx.saved_tensors
        return run(SigmoidSlope, dx, y)


class SigmoidSlope(ElementwiseRule):
    """dx = delta y (1 - y). By delta: eps y (1 - y), the same map. By y: eps delta (1 - 2y)."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.sigmoid_slope(delta, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, y = ctx.saved_tensors
        return run(SigmoidSlope, eps, y), eps * delta * (1 - 2 * y)

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dy: Tensor) -> Tensor:
        """The sum of both derivatives."""
        delta, y = ctx.saved_tensors
        return run(SigmoidSlope, ddelta, y) + delta * (1 - 2 * y) * dy


class Tanh(Rule):
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

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """The tangent times the slope."""
        (y,) = ctx.saved_tensors
        return run(TanhSlope, dx, y)


class TanhSlope(ElementwiseRule):
    """dx = delta (1 - y^2). By delta: eps (1 - y^2), the same map. By y: -2 eps delta y."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.tanh_slope(delta, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, y = ctx.saved_tensors
        return run(TanhSlope, eps, y), -2 * eps * delta * y

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dy: Tensor) -> Tensor:
        """The sum of both derivatives."""
        delta, y = ctx.saved_tensors
        return run(TanhSlope, ddelta, y) - 2 * delta * y * dy


class ReLU(Rule):
    """y = max(x, 0). dL/dx = delta [y > 0]; kept: y."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, delta, y)

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """The tangent where y > 0."""
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, dx, y)


class ReLUSlope(ElementwiseRule):
    """dx = delta [y > 0]. By delta: eps [y > 0], the same map. By y: nothing, the slope is constant on each side."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.relu_slope(delta, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _, y = inputs
        keep(ctx, y)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, eps, y), None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, _: Tensor) -> Tensor:
        """Linear in delta."""
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, ddelta, y)


def sigmoid(input: Tensor) -> Tensor:
    """torch.nn.functional.sigmoid with a backward pass by hand.

    input of any shape and real dtype -> 1 / (1 + exp(-input)), the same shape. Kept for backward: the output.
    Raises TypeError for complex numbers. Source: lecture 004, eq. 4.4; derivation at the head of this file.
    """
    refuse_complex("sigmoid", input=input)
    return run(Sigmoid, input)


def tanh(input: Tensor) -> Tensor:
    """torch.nn.functional.tanh with a backward pass by hand.

    input of any shape and real dtype -> tanh(input), the same shape. Kept for backward: the output.
    Raises TypeError for complex numbers. Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("tanh", input=input)
    return run(Tanh, input)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu with a backward pass by hand.

    input of any shape and real dtype -> max(input, 0), the same shape. inplace: the values are also written into input,
    which is returned. Kept for backward: the output; in place, where that would be a copy, a bit a number. Raises
    TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("relu", input=input)
    return rectify(input, inf) if inplace else run(ReLU, input)
