"""Activation and max pooling in one: pool first, and activate what is left.

phi never falls: where a <= b, phi(a) <= phi(b). So the largest of some numbers stays the largest under phi,

    y = max_window phi(x) = phi(max_window x) = phi(z),    z[n,c,i,j] = x[n,c] at place[n,c,i,j]

and phi is asked for once a window, not once a pixel: for windows of 2 x 2 a quarter of the exponentials. The chain rule
goes the same way back. With zeta = dL/dz = delta phi'(z), written in y as in functional.activation,

    sigmoid  zeta = delta y (1 - y)        tanh  zeta = delta (1 - y^2)        relu  zeta = delta [y > 0]
    dL/dx = put(zeta, place)               as in functional.pool               (lecture 003, eq. 3.2; 004, eq. 4.8)

Each step is a rule that exists. One pass over memory takes both where nothing derives what it makes; else the two rules
run, so there are derivatives of every order. What is kept is y, which the next layer keeps anyway, and one byte a
window. In the other order the unpooled phi(x) would be kept, too. These three are told by y; where the slope of phi is
told by z, phi and the pooling are two rules forward, too.

Ties. phi may give two pixels one value: rounded, as sigmoid does for 4.06 and 4.09 in bfloat16, or relu below 0. Then
the other order sends the error to the first of the equal values, this one to the larger x. (For relu both send 0.)

Shapes: x [N, C, H, W]; y, z, delta, zeta and place [N, C, I, J].
"""

from typing import Any

from torch import Tensor

from manualbp.functional.activation.table import ACTIVATIONS, Activation
from manualbp.functional.checks import require_real
from manualbp.functional.pool import Put, Take, max_pool2d
from manualbp.functional.rule import Rule, keep, run
from manualbp.kernels import pool as kernels
from manualbp.kernels.geometry import Geometry, Size, pooling

MONOTONE = [name for name, phi in ACTIVATIONS.items() if phi.monotone]


class ActivatedMaxPool(Rule):
    """y = phi(z), z = take(x, place), place = argmax of each window. dL/dx = put(delta phi'(z), place).

    Kept: y, which tells phi', and place, a byte.
    """

    @staticmethod
    def forward(x: Tensor, g: Geometry, phi: str) -> tuple[Tensor, Tensor]:
        return kernels.max_pool_by_bytes(x, g, phi)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, g, ctx.phi = inputs
        y, place = output
        ctx.places = g.places
        ctx.mark_non_differentiable(place)
        keep(ctx, y, place)

    @staticmethod
    def backward(ctx: Any, delta: Tensor, _: Any) -> tuple[Tensor, None, None]:
        y, place = ctx.saved_tensors
        if kernels.compiled_for(delta, y) is not None:
            return kernels.put(delta, place, ctx.places, y, ctx.phi), None, None
        zeta = ACTIVATIONS[ctx.phi].sloped(delta, y)
        return run(Put, zeta, place, ctx.places), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> tuple[Tensor, None]:
        """dy = phi'(z) dz, the tangent being taken at the same places."""
        y, place = ctx.saved_tensors
        return ACTIVATIONS[ctx.phi].sloped(run(Take, dx, place, ctx.places), y), None


def activation_max_pool2d(
    input: Tensor,
    activation: str,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """max_pool2d(activation(input)), the pooling first: with a backward pass by hand.

    input [N, C, H, W] or [C, H, W] of any floating dtype -> y [N, C, I, J] or [C, I, J]. activation: "sigmoid",
    "tanh", "relu" or another that never falls, with PyTorch's default settings. The other arguments are those of
    `max_pool2d`. Where rounding makes equals of two activated values, the larger input gets the gradient, not the first
    one. Kept for backward: the output, or the pooled input where the activation keeps that, and the place in the window
    (one byte an output). Raises ValueError for settings that do not fit, TypeError for complex numbers.
    Source: lecture 003, eq. 3.2; lecture 004, eq. 4.4 and 4.8; derivation at the head of this file.
    """
    op = "activation_max_pool2d"
    require_real(op, input=input)
    if activation not in MONOTONE:
        raise ValueError(f"{op}: activation = {activation!r}; it must be one of {', '.join(map(repr, MONOTONE))}")
    if not input.is_floating_point():
        raise TypeError(f"{op}: input is {input.dtype}; it must be of a floating dtype")
    return pooled(op, input, ACTIVATIONS[activation], kernel_size, stride, padding, dilation, ceil_mode)


def pooled(
    op: str,
    x: Tensor,
    phi: Activation,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
) -> Tensor:
    """phi(max_pool2d(x)), by one rule where phi is told by y and a byte names the pixels of a window."""
    g = pooling(op, x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if phi.name not in kernels.PHI or g.w_size[0] * g.w_size[1] > 256:
        return phi.of(max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode))
    y, _ = run(ActivatedMaxPool, x if x.ndim == 4 else x.unsqueeze(0), g, phi.name)
    return y if x.ndim == 4 else y.squeeze(0)
