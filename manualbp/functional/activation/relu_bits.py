"""The rectified linear unit, with or without a ceiling, that keeps a bit a number.

    y = min(max(x, 0), high)        dL/dx = delta [0 < x < high]        high: infinity (ReLU) or 6 (ReLU6)

The slope is 0 or 1: all that backward asks of x, or of y, is which. `relu` keeps y, which costs nothing where the next
layer keeps it, too (a convolution, a linear layer). Where that keeps nothing (a sum, average pooling) or something else
(a concatenation), a bit is a 32nd of a float32. The map is linear in delta, and its own adjoint.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from math import inf
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import Rule, keep, run
from manualbp.kernels import bits as kernels
from manualbp.kernels.layout import maps_last
from manualbp.kernels.transforms import followed


class ReLUBits(Rule):
    """y = min(max(x, 0), high). dL/dx = delta [0 < x < high]; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, high: float) -> tuple[Tensor, Tensor]:
        return kernels.rectified(x, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        x, _ = inputs
        _, bits = output
        ctx.last = maps_last(x)
        ctx.mark_non_differentiable(bits)
        keep(ctx, bits)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, delta, bits, ctx.last), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> tuple[Tensor, None]:
        """The tangent where 0 < x < high."""
        (bits,) = ctx.saved_tensors
        return run(Masked, dx, bits, ctx.last), None


class Masked(Rule):
    """dx = delta [bit]. By delta: eps [bit], the same map; kept: the bits."""

    @staticmethod
    def forward(delta: Tensor, bits: Tensor, last: bool) -> Tensor:
        return kernels.masked(delta, bits, last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, bits, ctx.last = inputs
        keep(ctx, bits)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, eps, bits, ctx.last), None, None

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, *_: None) -> Tensor:
        """Linear, so the tangent goes alike."""
        (bits,) = ctx.saved_tensors
        return run(Masked, ddelta, bits, ctx.last)


class ReLUBitsInPlace(Rule):
    """The same, with y in the place of x. Not for torch.func and torch.compile, which follow no change of an input.

    y is the only output, because PyTorch allows no second one where x is a view: so `forward` itself keeps the bits.
    """

    setup_context = staticmethod(torch.autograd.Function.setup_context)  # there is none

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        ctx.last = maps_last(x)
        y, bits = kernels.rectified(x, high, x)
        ctx.mark_dirty(y)
        keep(ctx, bits)
        return y

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, delta, bits, ctx.last), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        (bits,) = ctx.saved_tensors
        return dx.copy_(run(Masked, dx, bits, ctx.last))


def rectify(x: Tensor, high: float) -> Tensor:
    """min(max(x, 0), high), written into x; kept: a bit a number."""
    if followed():
        return x.copy_(run(ReLUBits, x, high)[0])
    return run(ReLUBitsInPlace, x, high)


def relu_bits(input: Tensor) -> Tensor:
    """relu with a backward pass by hand that keeps a bit a number instead of the output.

    input of any shape and real dtype -> max(input, 0), the same shape. Kept for backward: ceil(n / 8) bytes. `relu`
    keeps less where the next layer keeps the output anyway. Raises TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("relu_bits", input=input)
    return run(ReLUBits, input, inf)[0]
