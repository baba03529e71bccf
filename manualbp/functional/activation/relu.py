"""The rectified linear unit.

    y = max(x, 0)        dL/dx = delta [x > 0]

The slope is 0 or 1, and 0 where two pieces meet, as in PyTorch: delta times it is linear in delta, and its own adjoint
(lecture 003, eq. 3.2; Nair and Hinton 2010). What is no number lets delta through, as in PyTorch.

All that backward asks of x, or of y, is which of the two it is. `relu` keeps y, as PyTorch does: it costs nothing where
the next layer keeps it, too (a convolution, a linear layer), and so it is in place. Where the next layer keeps nothing
(a sum, average pooling) or something else (a concatenation) a bit a number is less: a 32nd of a float32. Bits are what
all activations of straight pieces keep whose output PyTorch does not: nothing that is done to x or y changes them.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx); a the slope where the bit is 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.activation.in_place import InPlace, write
from manualbp.functional.checks import require_real
from manualbp.functional.rule import ElementwiseRule, LinearRule, keep, run
from manualbp.kernels import activation as kernels
from manualbp.kernels import bits
from manualbp.kernels.layout import hands_on
from manualbp.kernels.transforms import forward_mode


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


class ReLUInPlace(InPlace, ReLU):
    """The same in the place of x; kept: y, which is what x holds then."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.ops.aten.relu_(x)


class ReLUSlope(LinearRule, ElementwiseRule):
    """dx = delta where y is not 0. By delta: the same map of eps. By y: nothing, the slope is constant on each side."""

    @staticmethod
    def forward(delta: Tensor, y: Tensor) -> Tensor:
        return kernels.relu_slope(delta, y)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(ReLUSlope, eps, y), None


class ReLUBits(ElementwiseRule):
    """y = max(x, 0). dL/dx = delta [y > 0]; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep_bits(ctx, bits.nonzero, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return let_through(ctx, delta)


def keep_bits(ctx: Any, test: Callable[..., Tensor], t: Tensor, *ends: float) -> None:
    """Keep the bits of test(t, *ends), where a derivative by the first argument is asked for or may be."""
    ctx.last = hands_on(t)
    if ctx.needs_input_grad[0] or forward_mode():
        keep(ctx, bits.bits_of(test, t, *ends))


def let_through(ctx: Any, delta: Tensor, a: float = 0.0) -> Tensor:
    """delta where the bit is 1, else a delta."""
    (yes,) = ctx.saved_tensors
    return run(Masked, delta, yes, ctx.last, a)


class Masked(LinearRule):
    """dx = delta where the bit is 1, else a delta. By delta: the same map of eps; kept: the bits."""

    @staticmethod
    def forward(delta: Tensor, yes: Tensor, last: bool, a: float) -> Tensor:
        return bits.masked(delta, yes, last, a)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None, None]:
        (yes,) = ctx.saved_tensors
        return run(Masked, eps, yes, *ctx.settings), None, None, None


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu with a backward pass by hand.

    input of any shape and real dtype -> max(input, 0), the same shape. inplace: the values are also written into input,
    which is returned. Kept for backward: the output, which may not be changed. Raises TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    require_real("relu", input=input)
    return write(ReLUInPlace, ReLUBits, input) if inplace else run(ReLU, input)


def relu_bits(input: Tensor) -> Tensor:
    """relu with a backward pass by hand that keeps a bit a number instead of the output.

    input of any shape and real dtype -> max(input, 0), the same shape. Kept for backward: ceil(n / 8) bytes. `relu`
    keeps less where the next layer keeps the output anyway; the output of this may be changed. Raises TypeError for
    complex numbers.
    Source: lecture 003, eq. 3.2; derivation at the head of this file.
    """
    require_real("relu_bits", input=input)
    return run(ReLUBits, input)
