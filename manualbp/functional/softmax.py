"""Softmax and its logarithm along one axis.

softmax      y_i = exp(x_i) / sum_k exp(x_k)       dy_i/dx_j = y_i ([i = j] - y_j)
             dL/dx_j = sum_i delta_i y_i ([i = j] - y_j) = y_j (delta_j - sum_i delta_i y_i)
log softmax  y_i = x_i - log sum_k exp(x_k)        dy_i/dx_j = [i = j] - exp(y_j)
             dL/dx_j = delta_j - exp(y_j) sum_i delta_i

Both are written in the output y. Letters: x input, y output, delta = dL/dy; i, j positions on the axis.
Source: the softmax of lecture 004, eq. 4.1; its derivative is the step between the two halves of eq. 4.2.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import full_precision, require_real
from manualbp.functional.rule import Rule, keep, run
from manualbp.kernels.precision import wide


class Softmax(Rule):
    """y = exp(x) / sum exp(x). dL/dx = y (delta - sum delta y); kept: y."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.softmax(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        _, ctx.dim = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y, d = y.to(wide(y.dtype)), delta.to(wide(y.dtype))  # half precision would differ in nearly equal numbers
        return (y * (d - (d * y).sum(ctx.dim, keepdim=True))).to(delta.dtype), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        """The same map as backward: the Jacobian is symmetric."""
        return Softmax.backward(ctx, dx)[0]


class LogSoftmax(Rule):
    """y = x - log sum exp(x). dL/dx = delta - exp(y) sum delta; kept: y."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.log_softmax(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        _, ctx.dim = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y, d = y.to(wide(y.dtype)), delta.to(wide(y.dtype))
        return (d - y.exp() * d.sum(ctx.dim, keepdim=True)).to(delta.dtype), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        """dy = dx - sum exp(y) dx."""
        (y,) = ctx.saved_tensors
        return dx - (y.exp() * dx).sum(ctx.dim, keepdim=True)


def _prepared(op: str, x: Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None) -> tuple[Tensor, int]:
    """Input in the dtype to compute in, and the axis."""
    require_real(op, input=x)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(f"{op}: implicit choice of axis dim = {dim}; pass dim", stacklevel=stacklevel)
    least = -max(x.ndim, 1)
    if not least <= dim < -least:
        raise ValueError(
            f"{op}: dim = {dim} and input has shape {list(x.shape)}; dim must be from {least} to {-least - 1}"
        )
    if not (x.dtype if dtype is None else dtype).is_floating_point:
        raise TypeError(f"{op}: input is {x.dtype} and dtype = {dtype}; dtype, or else input's own, must be floating")
    if dtype is not None:
        return x.to(dtype), dim
    return (full_precision(x)[0] if x.device.type == "cuda" else x), dim


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """torch.nn.functional.softmax with a backward pass by hand.

    input of any shape and floating dtype (cast to `dtype` first if given, from integers, too; under autocast on CUDA to
    float32) -> the same shape, sums of 1 along `dim`. Kept for backward: the output. Raises ValueError for an axis that
    is not there, TypeError for complex numbers and for integers without a floating `dtype`. Source: lecture 004, eq.
    4.1; derivation at the head of this file.
    """
    x, dim = _prepared("softmax", input, dim, _stacklevel, dtype)
    return run(Softmax, x, dim)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """torch.nn.functional.log_softmax with a backward pass by hand.

    input as in `softmax` -> the logarithm of `softmax(input, dim)`, without overflow. Kept for backward: the output.
    Raises as `softmax`.
    Source: lecture 001, eq. 1.8; lecture 004, eq. 4.2; derivation at the head of this file.
    """
    x, dim = _prepared("log_softmax", input, dim, _stacklevel, dtype)
    return run(LogSoftmax, x, dim)
