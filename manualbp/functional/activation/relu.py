"""The rectified linear unit, with or without a ceiling.

    y = min(max(x, 0), high)        dL/dx = delta [0 < x < high]        high: infinity (ReLU) or 6 (ReLU6)

The slope is 0 or 1, and 0 where two pieces meet, as in PyTorch: delta times it is linear in delta, and its own adjoint
(lecture 003, eq. 3.2; Nair and Hinton 2010). All that backward asks of x, or of y, is which of the two it is. `relu`
keeps y, which costs nothing where the next layer keeps it, too (a convolution, a linear layer). Where that keeps
nothing (a sum, average pooling) or something else (a concatenation), and where y is written into x, a bit a number is
kept: a 32nd of a float32.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from math import inf
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import ElementwiseRule, LinearRule, Rule, keep, run
from manualbp.kernels import activation as kernels
from manualbp.kernels import bits as bit_kernels
from manualbp.kernels.layout import maps_last
from manualbp.kernels.transforms import followed


class ReLU(ElementwiseRule):
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


class ReLUSlope(LinearRule, ElementwiseRule):
    """dx = delta [y > 0]. By delta: eps [y > 0], the same map. By y: nothing, the slope is constant on each side."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.relu_slope(delta, y)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, eps, y), None


class ReLUBits(Rule):
    """y = min(max(x, 0), high). dL/dx = delta [0 < x < high]; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, high: float) -> tuple[Tensor, Tensor]:
        return bit_kernels.rectified(x, high)

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


class Masked(LinearRule):
    """dx = delta [bit]. By delta: eps [bit], the same map; kept: the bits."""

    @staticmethod
    def forward(delta: Tensor, bits: Tensor, last: bool) -> Tensor:
        return bit_kernels.masked(delta, bits, last)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, eps, bits, *ctx.settings), None, None


class ReLUBitsInPlace(Rule):
    """The same, with y in the place of x. Not for torch.func and torch.compile, which follow no change of an input.

    y is the only output, because PyTorch allows no second one where x is a view: so `forward` itself keeps the bits.
    """

    setup_context = staticmethod(torch.autograd.Function.setup_context)  # there is none

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        ctx.last = maps_last(x)
        y, bits = bit_kernels.rectified(x, high, x)
        ctx.mark_dirty(y)
        keep(ctx, bits)
        return y

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, delta, bits, ctx.last), None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, _: None) -> Tensor:
        """The tangent where 0 < x < high, in its own place."""
        (bits,) = ctx.saved_tensors
        return dx.copy_(run(Masked, dx, bits, ctx.last))


def rectify(x: Tensor, high: float) -> Tensor:
    """min(max(x, 0), high), written into x; kept: a bit a number."""
    if followed():
        return x.copy_(run(ReLUBits, x, high)[0])
    return run(ReLUBitsInPlace, x, high)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu with a backward pass by hand.

    input of any shape and real dtype -> max(input, 0), the same shape. inplace: the values are also written into input,
    which is returned. Kept for backward: the output; in place, where that would be a copy, a bit a number. Raises
    TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("relu", input=input)
    return rectify(input, inf) if inplace else run(ReLU, input)


def relu_bits(input: Tensor) -> Tensor:
    """relu with a backward pass by hand that keeps a bit a number instead of the output.

    input of any shape and real dtype -> max(input, 0), the same shape. Kept for backward: ceil(n / 8) bytes. `relu`
    keeps less where the next layer keeps the output anyway. Raises TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("relu_bits", input=input)
    return run(ReLUBits, input, inf)[0]
