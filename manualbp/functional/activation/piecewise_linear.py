"""Activations made of straight pieces.

hardtanh     y = min(max(x, low), high)       dy/dx = [low < y < high]                   (Collobert 2004)
relu6        the same from 0 to 6                                                        (Krizhevsky 2010)
hardsigmoid  y = min(max(x + 3, 0), 6) / 6    dy/dx = [-3 < x < 3] / 6                   (Howard et al. 2019)
leaky_relu   y = x above 0, else a x          dy/dx = 1 above, else a                    (Maas et al. 2013)
prelu        the same with a trained a, one for all or one a map c                       (He et al. 2015)
             dL/da[c] = sum_{n,i,j} delta x [x <= 0]

A straight piece has a constant slope: delta times the slope is linear in delta, its own adjoint, and does not depend on
x. Where two pieces meet PyTorch's slope is taken: 0 at low and high (hardtanh), 0 at -3 and 3 (hardsigmoid), a at 0
(leaky_relu, prelu). What is no number lets delta through where x goes through, too, as in PyTorch.

Kept is a bit a number, on which piece it is: a 32nd of the input that PyTorch keeps, and not the output, which the next
layer may change. `leaky_relu` in place keeps its output, as PyTorch does: the next layer keeps it anyway.

Letters: x input, y output, a negative slope, delta = dL/dy, eps = dL/d(dx); t a tensor that tells the pieces apart.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.in_place import InPlace, copied, write
from manualbp.functional.activation.relu import ReLUSlope, keep_bits, let_through
from manualbp.functional.checks import low_precision, require_floating, require_real
from manualbp.functional.rule import ElementwiseRule, LinearRule, Rule, keep, run
from manualbp.kernels import activation as kernels
from manualbp.kernels import bits


class Hardtanh(ElementwiseRule):
    """y = min(max(x, low), high). dL/dx = delta [low < x < high]; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return T.hardtanh(x, low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        keep_bits(ctx, bits.not_clamped, *inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        return let_through(ctx, delta), None, None


class HardtanhInPlace(InPlace, Hardtanh):
    """The same in the place of x; kept: a bit a number, which y tells as well as x where x can hold low and high."""

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return torch.ops.aten.hardtanh_(x, low, high)


class Hardsigmoid(ElementwiseRule):
    """y = min(max(x + 3, 0), 6) / 6. dL/dx = delta [-3 < x < 3] / 6; kept: a bit a number.

    Not told by y, which rounds to 1 before x is 3. What is no number has the slope 0, as in PyTorch.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.hardsigmoid(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        keep_bits(ctx, bits.between, inputs[0], -3.0, 3.0)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return let_through(ctx, delta) * (1 / 6)


class InsideSlope(LinearRule, ElementwiseRule):
    """dx = slope delta where low < t < high, else 0. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, low: float, high: float, slope: float) -> Tensor:
        return kernels.inside_slope(delta, t, low, high, slope)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (t,) = ctx.saved_tensors
        return run(InsideSlope, eps, t, *ctx.settings), None, None, None, None


class LeakyReLU(ElementwiseRule):
    """y = x where x > 0, else a x. dL/dx = delta, or delta a; kept: a bit a number."""

    @staticmethod
    def forward(x: Tensor, a: float) -> Tensor:
        return T.leaky_relu(x, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.a = inputs
        keep_bits(ctx, bits.above, x, 0.0)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        return let_through(ctx, delta, ctx.a), None


class LeakyReLUOfOutput(LeakyReLU):
    """The same for a >= 0, where y is positive if x is; kept: y."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        _, ctx.a = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return run(LeakySlope, delta, y, ctx.a), None


class LeakyReLUInPlace(InPlace, LeakyReLUOfOutput):
    """The same in the place of x."""

    @staticmethod
    def forward(x: Tensor, a: float) -> Tensor:
        return torch.ops.aten.leaky_relu_(x, a)


class LeakySlope(LinearRule, ElementwiseRule):
    """dx = delta where t > 0, else delta a. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, a: float) -> Tensor:
        return kernels.leaky_slope(delta, t, a)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None]:
        (t,) = ctx.saved_tensors
        return run(LeakySlope, eps, t, *ctx.settings), None, None


class PReLU(Rule):
    """y = x where x > 0, else a x, a one number or [C]. Kept: x and a.

    dL/dx = delta [x > 0] + a delta [x <= 0]        dL/da[c] = sum_{n,i,j} delta x [x <= 0]
    """

    @staticmethod
    def forward(x: Tensor, a: Tensor) -> Tensor:
        return T.prelu(x, a)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, a = ctx.saved_tensors
        x_needed, a_needed = ctx.needs_input_grad
        dx = run(PReLUSlope, delta, x, a) if x_needed else None
        return dx, _over_maps(run(PReLUShare, delta, x), a) if a_needed else None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, da: Tensor) -> Tensor:
        """The product rule: dy = dx [x > 0] + a dx [x <= 0] + da x [x <= 0]."""
        x, a = ctx.saved_tensors
        return run(PReLUSlope, dx, x, a) + _on_maps(da, x) * _not_above(x, x)


class PReLUSlope(Rule):
    """dx = delta where x > 0, else a delta. By delta: the same map of eps. By a[c]: sum eps delta [x <= 0]. By x: 0."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor, a: Tensor) -> Tensor:
        return kernels.prelu_slope(delta, x, _on_maps(a, x))

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        delta, x, a = ctx.saved_tensors
        da = _over_maps(_not_above(eps * delta, x), a) if ctx.needs_input_grad[2] else None
        return run(PReLUSlope, eps, x, a), None, da

    @staticmethod
    def tangent(ctx: Any, ddelta: Tensor, dx: Tensor, da: Tensor) -> Tensor:
        delta, x, a = ctx.saved_tensors
        return run(PReLUSlope, ddelta, x, a) + _on_maps(da, x) * _not_above(delta, x)


class PReLUShare(ElementwiseRule):
    """Each number's share of da: delta min(x, 0). By delta: eps min(x, 0), the same map. By x: eps delta [x <= 0]."""

    @staticmethod
    def forward(delta: Tensor, x: Tensor) -> Tensor:
        return kernels.prelu_share(delta, x)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
        delta, x = ctx.saved_tensors
        return run(PReLUShare, eps, x), _not_above(eps * delta, x)


def _not_above(t: Tensor, x: Tensor) -> Tensor:
    """t where x is not above 0, else 0."""
    return run(ReLUSlope, t, (x > 0).logical_not().to(x.dtype))


def _on_maps(a: Tensor, x: Tensor) -> Tensor:
    """a as a factor of x: one number, or one for each place of axis 1."""
    return a.view(()) if a.numel() == 1 else a.view(-1, *[1] * (x.ndim - 2))


def _over_maps(t: Tensor, a: Tensor) -> Tensor:
    """The adjoint: the sum over all that one number of a is the factor of."""
    return (t.sum() if a.numel() == 1 else t.sum([d for d in range(t.ndim) if d != 1])).view(a.shape)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardtanh with a backward pass by hand.

    input of any shape and real dtype -> min(max(input, min_val), max_val), the same shape. At min_val and at max_val
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: a bit a number. Raises ValueError for min_val above max_val, TypeError for complex numbers.
    Source: Collobert 2004, a tanh of straight pieces; derivation at the head of this file.
    """
    require_real("hardtanh", input=input)
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val = {min_val} and max_val = {max_val}; min_val must not be above max_val")
    return _clamped(input, min_val, max_val, inplace)


def _clamped(x: Tensor, low: float, high: float, inplace: bool) -> Tensor:
    if not inplace:
        return run(Hardtanh, x, low, high)
    if not bits.holds(x.dtype, low, high):
        return copied(Hardtanh, x, low, high)
    return write(HardtanhInPlace, Hardtanh, x, low, high)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu6 with a backward pass by hand.

    input of any shape and real dtype -> min(max(input, 0), 6), the same shape: `hardtanh` from 0 to 6. At 0 and at 6
    the slope is 0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for
    backward: a bit a number. Raises TypeError for complex numbers.
    Source: Krizhevsky 2010; derivation at the head of this file.
    """
    require_real("relu6", input=input)
    return _clamped(input, 0, 6, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """torch.nn.functional.leaky_relu with a backward pass by hand.

    input of any shape and floating dtype -> input where it is positive, else negative_slope input, the same shape. At 0
    the slope is negative_slope, as in PyTorch. inplace: the values are also written into input, which is returned. Kept
    for backward: a bit a number; in place the output, which may not be changed, unless negative_slope is below 0.
    Raises TypeError for other dtypes. Source: Maas et al. 2013, sec. 2; derivation at the head of this file.
    """
    require_floating("leaky_relu", input=input)
    if not inplace:
        return run(LeakyReLU, input, negative_slope)
    if negative_slope < 0:
        return copied(LeakyReLU, input, negative_slope)
    return write(LeakyReLUInPlace, LeakyReLU, input, negative_slope)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardsigmoid with a backward pass by hand.

    input of any shape and floating dtype -> min(max(input + 3, 0), 6) / 6, the same shape. At -3 and at 3 the slope is
    0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for backward: a bit a
    number. Raises TypeError for other dtypes.
    Source: Howard et al. 2019, sec. 5.2; derivation at the head of this file.
    """
    require_floating("hardsigmoid", input=input)
    return copied(Hardsigmoid, input) if inplace else run(Hardsigmoid, input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """torch.nn.functional.prelu with a backward pass by hand.

    input of any shape and floating dtype, weight of one number, or [C] for input [N, C, ...] -> input where it is
    positive, else weight input, the same shape. At 0 the slope is weight, as in PyTorch. Under autocast both are cast
    to its dtype. Kept for backward: input and weight. Raises ValueError for a weight of another size, dtype or device,
    TypeError for complex numbers. Source: He et al. 2015, eq. 1 and 3; derivation at the head of this file.
    """
    input, weight = low_precision("prelu", input=input, weight=weight)
    require_floating("prelu", input=input)
    maps = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, maps):
        shapes = f"weight has shape {tuple(weight.shape)} and input {tuple(input.shape)}"
        raise ValueError(f"prelu: {shapes}; weight must be one number, or one for each of the {maps} places of axis 1")
    return run(PReLU, input, weight)
