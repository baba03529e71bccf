"""Relatives of the ReLU that are made of exp.

elu         y = scale x above 0, else scale alpha (exp(k x) - 1)    dy/dx = scale above, else scale alpha k exp(k x)
                                                                    d2y/dx2 = 0 above, else k dy/dx
            elu: scale = k = 1 (Clevert et al. 2015, sec. 3)        celu: scale = 1, k = 1 / alpha (Barron 2017)
            selu: k = 1, alpha and scale such that mean 0 and variance 1 are a fixed point (Klambauer et al. 2017)
softplus    y = log(1 + exp(beta x)) / beta                         dy/dx = exp(beta x) / (1 + exp(beta x)) = s(beta x)
                                                                    d2y/dx2 = beta s (1 - s)        (Dugas et al. 2001)
            above the threshold, beta x > threshold: y = x          dy/dx = 1, d2y/dx2 = 0
logsigmoid  y = log s(x) = -log(1 + exp(-x))                        dy/dx = s(-x), softplus's slope for beta = -1

s is the sigmoid. At 0 the slope of the ELU is that from below, as in PyTorch. In the output it would be
k (y + scale alpha), but where x is far below 0 these two cancel: of a rounded y nothing would be left. So x is kept. In
place that would be a copy: there y is kept, as in PyTorch, but for scale alpha k < 0, where y does not tell the side.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from math import inf
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.in_place import InPlace, copied, write
from manualbp.functional.activation.sigmoid import Sigmoid
from manualbp.functional.checks import full_precision, require_floating
from manualbp.functional.rule import ElementwiseRule, keep, run
from manualbp.kernels import activation as kernels

# The SELU's alpha, scale and k (Klambauer et al. 2017).
SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0


class ELU(ElementwiseRule):
    """y = scale x where x > 0, else scale alpha (exp(k x) - 1). dL/dx = delta scale, or delta scale alpha k exp(k x).

    Kept: x.
    """

    @staticmethod
    def forward(x: Tensor, alpha: float, scale: float, k: float) -> Tensor:
        return torch.ops.aten.elu(x, alpha, scale, k)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return run(ELUSlope, delta, x, *ctx.settings), None, None, None


class ELUInPlace(InPlace, ELU):
    """The same in the place of x, for scale alpha k >= 0: y is positive if x is.

    dL/dx = delta scale, or delta k (y + scale alpha). Kept: y.
    """

    @staticmethod
    def forward(x: Tensor, alpha: float, scale: float, k: float) -> Tensor:
        return torch.ops.aten.elu_(x, alpha, scale, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.settings = inputs
        ctx.mark_dirty(output)
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return run(ELUSlopeOfOutput, delta, y, *ctx.settings), None, None, None


class ELUSlope(ElementwiseRule):
    """dx = delta scale where x > 0, else delta scale alpha k exp(k x).

    By delta: the same map of eps. By x: the same map of k eps delta [x <= 0].
    """

    @staticmethod
    def forward(delta: Tensor, x: Tensor, alpha: float, scale: float, k: float) -> Tensor:
        return kernels.elu_slope(delta, x, alpha, scale, k)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (delta, x), (*_, k) = ctx.saved_tensors, ctx.settings
        below = eps * delta * (x <= 0) * k
        return run(ELUSlope, eps, x, *ctx.settings), run(ELUSlope, below, x, *ctx.settings), None, None, None


class ELUSlopeOfOutput(ElementwiseRule):
    """dx = delta scale where y > 0, else delta k (y + scale alpha).

    By delta: the same map of eps. By y: k eps delta [y <= 0].
    """

    @staticmethod
    def forward(delta: Tensor, y: Tensor, alpha: float, scale: float, k: float) -> Tensor:
        return kernels.elu_slope_of_output(delta, y, alpha, scale, k)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (delta, y), (*_, k) = ctx.saved_tensors, ctx.settings
        return run(ELUSlopeOfOutput, eps, y, *ctx.settings), eps * delta * (y <= 0) * k, None, None, None


class Softplus(ElementwiseRule):
    """y = log(1 + exp(beta x)) / beta, x above the threshold. dL/dx = delta s(beta x), or delta; kept: x."""

    @staticmethod
    def forward(x: Tensor, beta: float, threshold: float) -> Tensor:
        return T.softplus(x, beta, threshold)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return run(SoftplusSlope, delta, x, *ctx.settings), None, None


class LogSigmoid(ElementwiseRule):
    """y = -log(1 + exp(-x)). dL/dx = delta s(-x); kept: x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.logsigmoid(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(SoftplusSlope, delta, x, -1.0, inf)


class SoftplusSlope(ElementwiseRule):
    """dx = delta s(beta x), or delta. By delta: the same map of eps. By x: eps delta beta s (1 - s), or 0."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
        return kernels.softplus_slope(delta, x, beta, threshold)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (delta, x), (beta, threshold) = ctx.saved_tensors, ctx.settings
        z = beta * x
        s = run(Sigmoid, z)
        curvature = beta * s * (1 - s) * (z <= threshold)
        return run(SoftplusSlope, eps, x, beta, threshold), eps * delta * curvature, None, None


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.elu with a backward pass by hand.

    input of any shape and floating dtype -> input where it is positive, else alpha (exp(input) - 1), the same shape. At
    0 the slope is alpha, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: the input, as the slope in the output is a difference of nearly equal numbers; in place the output all the
    same, as in PyTorch, or for alpha below 0 a copy of the input. Raises TypeError for other dtypes.
    Source: Clevert et al. 2015, sec. 3; derivation at the head of this file.
    """
    require_floating("elu", input=input)
    return _elu(input, alpha, 1.0, 1.0, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.selu with a backward pass by hand.

    input of any shape and floating dtype -> scale input where it is positive, else scale alpha (exp(input) - 1), the
    same shape, with scale = 1.0507 and alpha = 1.6733. At 0 the slope is scale alpha, as in PyTorch. inplace and kept
    for backward: as `elu`. Raises TypeError for other dtypes.
    Source: Klambauer et al. 2017, eq. 2; derivation at the head of this file.
    """
    require_floating("selu", input=input)
    return _elu(input, *SELU, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.celu with a backward pass by hand.

    input of any shape and floating dtype -> input where it is positive, else alpha (exp(input / alpha) - 1), the same
    shape. The slope has no jump at 0. inplace and kept for backward: as `elu`. Raises ValueError for alpha = 0,
    TypeError for other dtypes. Source: Barron 2017; derivation at the head of this file.
    """
    require_floating("celu", input=input)
    if alpha == 0:
        raise ValueError("celu: alpha = 0; it must not be 0, as the input is divided by it")
    return _elu(input, alpha, 1.0, 1 / alpha, inplace)


def _elu(x: Tensor, alpha: float, scale: float, k: float, inplace: bool) -> Tensor:
    if not inplace:
        return run(ELU, x, alpha, scale, k)
    if scale * alpha * k < 0:
        return copied(ELU, x, alpha, scale, k)
    return write(ELUInPlace, ELU, x, alpha, scale, k)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """torch.nn.functional.softplus with a backward pass by hand.

    input of any shape and floating dtype (under autocast on CUDA: cast to float32) -> log(1 + exp(beta input)) / beta,
    the same shape, and input itself where beta input > threshold. Kept for backward: the input, as the output
    does not tell on which side of the threshold it was. Raises TypeError for other dtypes.
    Source: Dugas et al. 2001; derivation at the head of this file.
    """
    require_floating("softplus", input=input)
    x = full_precision(input)[0] if input.device.type == "cuda" else input
    return run(Softplus, x, beta, threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """torch.nn.functional.logsigmoid with a backward pass by hand.

    input of any shape and floating dtype -> log(1 / (1 + exp(-input))), the same shape. Kept for backward: the input.
    Raises TypeError for other dtypes. Source: Dugas et al. 2001; derivation at the head of this file.
    """
    require_floating("logsigmoid", input=input)
    return run(LogSigmoid, input)
