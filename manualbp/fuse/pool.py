"""Activation and max pooling in one: pool first, and activate what is left.

phi never falls: where a <= b, phi(a) <= phi(b). So the largest of some numbers stays the largest under phi,

    y = max_window phi(x) = phi(max_window x) = phi(z),    z[n,c,i,j] = x[n,c] at place[n,c,i,j]

and phi is asked for once a window, not once a pixel: for windows of 2 x 2 a quarter of the exponentials. The chain rule
goes the same way back. With zeta = dL/dz = delta phi'(z), written in y as in functional.activation,

    sigmoid  zeta = delta y (1 - y)        tanh  zeta = delta (1 - y^2)        relu  zeta = delta [y > 0]
    dL/dx = put(zeta, place)               as in functional.pool               (lecture 003, eq. 3.2; 004, eq. 4.8)

Each is a rule that exists, with its own derivatives, so the composition has derivatives of every order. What is kept is
y, which the next layer keeps anyway, and one byte a window. In the other order the unpooled phi(x) would be kept, too.

Ties. phi may give two pixels one value: rounded, as sigmoid does for 4.06 and 4.09 in bfloat16, or relu below 0. Then
the other order sends the error to the first of the equal values, this one to the larger x. (For relu both send 0.)

Shapes: x [N, C, H, W]; y, z, delta, zeta and place [N, C, I, J].
"""

from torch import Tensor

from manualbp.functional.activation.table import ACTIVATIONS
from manualbp.functional.checks import require_real
from manualbp.functional.pool import max_pool2d
from manualbp.kernels.geometry import Size

MONOTONE = [name for name, phi in ACTIVATIONS.items() if phi.monotone]


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
    return ACTIVATIONS[activation].of(max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode))
