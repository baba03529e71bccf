"""Activations made of straight pieces.

hardtanh     y = min(max(x, low), high)       dy/dx = [low < y < high]                   (Collobert 2004)
relu6        the same from 0 to 6                                                        (Krizhevsky 2010)
hardsigmoid  y = min(max(x + 3, 0), 6) / 6    dy/dx = [-3 < x < 3] / 6                   (Howard et al. 2019)
leaky_relu   y = x above 0, else a x          dy/dx = 1 above, else a                    (Maas et al. 2013)
prelu        the same with a trained a, one for all or one a map c                       (He et al. 2015)
             dL/da[c] = sum_{n,i,j} delta x [x <= 0]

A straight piece has a constant slope: delta times the slope is linear in delta, its own adjoint, and does not depend on
x. Where two pieces meet PyTorch's slope is taken: 0 at low and high (hardtanh), 0 at -3 and 3 (hardsigmoid), a at 0
(leaky_relu, prelu).

Letters: x input, y output, a negative slope, delta = dL/dy, eps = dL/d(dx); t a tensor that tells the pieces apart.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.relu import Masked, rectify
from manualbp.functional.checks import low_precision, refuse_complex, same_kind
from manualbp.functional.rule import ElementwiseRule, LinearRule, Rule, keep, run
from manualbp.kernels import activation as kernels
from manualbp.kernels.bits import packed
from manualbp.kernels.layout import maps_last
from manualbp.kernels.transforms import followed


class Hardtanh(ElementwiseRule):
    """y = min(max(x, low), high). dL/dx = delta [low < y < high]; kept: y."""

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return T.hardtanh(x, low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        _, *ctx.ends = inputs
        keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return run(InsideSlope, delta, y, *ctx.ends, 1.0), None, None


class Hardsigmoid(ElementwiseRule):
    """y = min(max(x + 3, 0), 6) / 6. dL/dx = delta [-3 < x < 3] / 6; kept: x, as y rounds to 1 before x is 3."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return T.hardsigmoid(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return run(InsideSlope, delta, x, -3.0, 3.0, 1 / 6)


class HardsigmoidInPlace(Rule):
    """The same, with y in the place of x; kept: a bit a number. As functional.activation.relu's rule in place."""

    setup_context = staticmethod(torch.autograd.Function.setup_context)  # there is none

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.last = maps_last(x)
        bits = packed((x > -3) & (x < 3), ctx.last)
        ctx.mark_dirty(x)
        keep(ctx, bits)
        return T.hardsigmoid(x, inplace=True)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (bits,) = ctx.saved_tensors
        return run(Masked, delta, bits, ctx.last) * (1 / 6)

    @staticmethod
    def tangent(ctx: Any, dx: Tensor) -> Tensor:
        """A sixth of the tangent where -3 < x < 3, in its own place."""
        (bits,) = ctx.saved_tensors
        return dx.copy_(run(Masked, dx, bits, ctx.last) * (1 / 6))


class InsideSlope(LinearRule, ElementwiseRule):
    """dx = slope delta [low < t < high]. By delta: the same map of eps. By t: nothing."""

    @staticmethod
    def forward(delta: Tensor, t: Tensor, low: float, high: float, slope: float) -> Tensor:
        return kernels.inside_slope(delta, t, low, high, slope)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        (t,) = ctx.saved_tensors
        return run(InsideSlope, eps, t, *ctx.settings), None, None, None, None


class LeakyReLU(ElementwiseRule):
    """y = x where x > 0, else a x. dL/dx = delta, or delta a; kept: y, positive where x is; x if a is negative."""

    @staticmethod
    def forward(x: Tensor, a: float) -> Tensor:
        return T.leaky_relu(x, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.a = inputs
        keep(ctx, output if ctx.a >= 0 else x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        return run(LeakySlope, delta, t, ctx.a), None


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
        above = run(LeakySlope, delta, x, 0.0)
        below = delta - above
        dx = above + _on_maps(a, x) * below if x_needed else None
        return dx, _over_maps(below * x, a) if a_needed else None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, da: Tensor) -> Tensor:
        """The product rule: dy = dx [x > 0] + a dx [x <= 0] + da x [x <= 0]."""
        x, a = ctx.saved_tensors
        above = run(LeakySlope, dx, x, 0.0)
        return above + _on_maps(a, x) * (dx - above) + _on_maps(da, x) * (x - run(LeakySlope, x, x, 0.0))


def _on_maps(a: Tensor, x: Tensor) -> Tensor:
    """a as a factor of x: one number, or one for each place of axis 1."""
    return a.view(()) if a.numel() == 1 else a.view(-1, *[1] * (x.ndim - 2))


def _over_maps(t: Tensor, a: Tensor) -> Tensor:
    """The adjoint: the sum over all that one number of a is the factor of."""
    return (t.sum() if a.numel() == 1 else t.movedim(1, 0).flatten(1).sum(1)).view(a.shape)


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
    0, as in PyTorch. inplace: the values are also written into input, which is returned. Kept for backward: the input;
    in place, where that would be a copy, a bit a number. Raises TypeError for complex numbers.
    Source: Howard et al. 2019, sec. 5.2; derivation at the head of this file.
    """
    refuse_complex("hardsigmoid", input=input)
    if not inplace:
        return run(Hardsigmoid, input)
    return input.copy_(run(Hardsigmoid, input.clone())) if followed() else run(HardsigmoidInPlace, input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """torch.nn.functional.prelu with a backward pass by hand.

    input of any shape and floating dtype, weight of one number, or [C] for input [N, C, ...] -> input where it is
    positive, else weight input, the same shape. At 0 the slope is weight, as in PyTorch. Under autocast both are cast
    to its dtype. Kept for backward: input and weight. Raises ValueError for a weight of another size, dtype or device,
    TypeError for complex numbers. Source: He et al. 2015, eq. 1 and 3; derivation at the head of this file.
    """
    input, weight = low_precision(input, weight)
    same_kind("prelu", input=input, weight=weight)
    maps = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, maps):
        shapes = f"weight has shape {tuple(weight.shape)} and input {tuple(input.shape)}"
        raise ValueError(f"prelu: {shapes}; weight must be one number, or one for each of the {maps} places of axis 1")
    return run(PReLU, input, weight)
