"""The rectified linear unit that keeps a bit a number.

    y = max(x, 0)        dL/dx = delta [x > 0]

The slope is 0 or 1: all that backward asks of x, or of y, is which. `relu` keeps y, which costs nothing where the next
layer keeps it, too (a convolution, a linear layer). Where that keeps nothing (a sum, average pooling) or something else
(a concatenation), a bit is a 32nd of a float32. The map is linear in delta, and its own adjoint.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional._rule import Rule, refuse_complex, run
from manualbp.kernels import bits as kernels


class ReLUBits(Rule):
    """y = max(x, 0). dL/dx = delta [x > 0]; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(x), kernels.packed(x > 0, kernels.maps_last(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        (x,) = inputs
        _, bits = output
        ctx.last = kernels.maps_last(x)
        ctx.mark_non_differentiable(bits)
        ctx.save_for_backward(bits)
        ctx.save_for_forward(bits)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> Tensor:
        (bits,) = ctx.saved_tensors
        return run(Masked, delta, bits, ctx.last)


class ReLUBitsDual(ReLUBits):
    """Forward mode: the tangent where x > 0."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
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
        ctx.save_for_backward(bits)
        ctx.save_for_forward(bits)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        return run(Masked, eps, bits, ctx.last), None, None


class MaskedDual(Masked):
    """Forward mode: linear, so the tangent goes alike."""

    @staticmethod
    def jvp(ctx: Any, ddelta: Tensor, *_: None) -> Tensor:
        (bits,) = ctx.saved_tensors
        return run(Masked, ddelta, bits, ctx.last)


ReLUBits.dual, Masked.dual = ReLUBitsDual, MaskedDual


def relu_bits(input: Tensor) -> Tensor:
    """relu with a backward pass by hand that keeps a bit a number instead of the output.

    input of any shape and real dtype -> max(input, 0), the same shape. Kept for backward: ceil(n / 8) bytes. `relu`
    keeps less where the next layer keeps the output anyway. Raises TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    refuse_complex("relu_bits", input=input)
    return run(ReLUBits, input)[0]
