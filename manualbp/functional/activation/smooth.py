"""Smooth relatives of the ReLU.

elu       y = x above 0, else alpha (exp x - 1)              dy/dx = 1 above, else alpha exp x
                                                             d2y/dx2 = 0 above, else dy/dx once more
                                                             (Clevert et al. 2015, sec. 3)
softplus  y = log(1 + exp(beta x)) / beta                    dy/dx = exp(beta x) / (1 + exp(beta x)) = s(beta x)
                                                             d2y/dx2 = beta s (1 - s)        (Dugas et al. 2001)
          above the threshold, beta x > threshold: y = x     dy/dx = 1, d2y/dx2 = 0

s is the sigmoid. At 0 the slope of the ELU is alpha, as in PyTorch. In the output it would be y + alpha, but where x is
far below 0 these two cancel: of a rounded y nothing would be left. So x is kept.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from typing import Any

import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.sigmoid import Sigmoid
from manualbp.functional.checks import full_precision, refuse_complex
from manualbp.functional.rule import ElementwiseRule, Rule, keep, run
from manualbp.kernels import activation as kernels


class ELU(Rule):
    """y = x where x > 0, else alpha (exp x - 1). dL/dx = delta, or delta alpha exp x; kept: x."""

    @staticmethod
    def forward(x: Tensor, alpha: float) -> Tensor:
        return T.elu(x, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.alpha = inputs
        keep(ctx, x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return run(ELUSlope, delta, x, ctx.alpha), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        """The tangent times the slope."""
        (x,) = ctx.saved_tensors
        return run(ELUSlope, dx, x, ctx.alpha)


class ELUSlope(ElementwiseRule):
    """dx = delta where x > 0, else delta alpha exp x. By delta: the same of eps. By x: that of eps delta [x <= 0]."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor, alpha: float) -> Tensor:
        return kernels.elu_slope(delta, x, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        delta, x, ctx.alpha = inputs
        keep(ctx, delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor, None]:
        delta, x = ctx.saved_tensors
        return run(ELUSlope, eps, x, ctx.alpha), run(ELUSlope, eps * delta * (x <= 0), x, ctx.alpha), None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dx: Tensor, _: None) -> Tensor:
        """The sum of both derivatives."""
        delta, x = ctx.saved_tensors
        return run(ELUSlope, ddelta + delta * (x <= 0) * dx, x, ctx.alpha)


class Softplus(Rule):
    """y = log(1 + exp(beta x)) / beta, x above the threshold. dL/dx = delta s(beta x), or delta; kept: x."""

    @staticmethod
    def forward(x: Tensor, beta: float, threshold: float) -> Tensor:
        return T.softplus(x, beta, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.how = inputs
        keep(ctx, x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return run(SoftplusSlope, delta, x, *ctx.how), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        """The tangent times the slope."""
        (x,) = ctx.saved_tensors
        return run(SoftplusSlope, dx, x, *ctx.how)


class SoftplusSlope(ElementwiseRule):
    """dx = delta s(beta x), or delta. By delta: the same map of eps. By x: eps delta beta s (1 - s), or 0."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
        return kernels.softplus_slope(delta, x, beta, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        delta, x, *ctx.how = inputs
        keep(ctx, delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        delta, x = ctx.saved_tensors
        return run(SoftplusSlope, eps, x, *ctx.how), eps * delta * _curvature(x, *ctx.how), None, None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dx: Tensor, *_: None) -> Tensor:
        """The sum of both derivatives."""
        delta, x = ctx.saved_tensors
        return run(SoftplusSlope, ddelta, x, *ctx.how) + delta * _curvature(x, *ctx.how) * dx


def _curvature(x: Tensor, beta: float, threshold: float) -> Tensor:
    """d2y/dx2 = beta s (1 - s), s = s(beta x), and 0 above the threshold."""
    z = beta * x
    s = run(Sigmoid, z)
    return beta * s * (1 - s) * (z <= threshold)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.elu with a backward pass by hand.

    input of any shape and floating dtype -> input where it is positive, else alpha (exp(input) - 1), the same shape. At
    0 the slope is alpha, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: the input, with inplace a copy of it, as the slope in the output is a difference of nearly equal numbers.
    Raises TypeError for complex numbers.
    Source: Clevert et al. 2015, sec. 3; derivation at the head of this file.
    """
    refuse_complex("elu", input=input)
    y = run(ELU, input.clone() if inplace else input, alpha)
    return input.copy_(y) if inplace else y


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """torch.nn.functional.softplus with a backward pass by hand.

    input of any shape and floating dtype (under autocast on CUDA: cast to float32) -> log(1 + exp(beta input)) / beta,
    the same shape, and input itself where beta input > threshold. Kept for backward: the input, as the output
    does not tell on which side of the threshold it was. Raises TypeError for complex numbers.
    Source: Dugas et al. 2001; derivation at the head of this file.
    """
    refuse_complex("softplus", input=input)
    x = full_precision(input)[0] if input.device.type == "cuda" else input
    return run(Softplus, x, beta, threshold)
