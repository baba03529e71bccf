r"""Functions of each element by itself: y = f(x), so that dL/dx = \delta f'(x), the slope at the input."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from .sample import Sample, given, normal, positive, rule

Elementwise = Callable[[Tensor], Tensor]


def forward(ctx: Any, x: Tensor, *, f: Elementwise, slope: Elementwise) -> Tensor:
    ctx.save_for_backward(x)
    return f(x)


def at_input(ctx: Any, delta: Tensor, *, f: Elementwise, slope: Elementwise) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta * slope(x)


def at_output(ctx: Any, delta: Tensor, *, f: Elementwise, slope: Elementwise) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta * slope(f(x))


def no_slope(ctx: Any, delta: Tensor, *, f: Elementwise, slope: Elementwise) -> Tensor:
    return delta.clone()


def keep_output(ctx: Any, x: Tensor, *, f: Elementwise, of_y: Elementwise) -> Tensor:
    y = f(x)
    ctx.save_for_backward(y)
    return y


def by_output(ctx: Any, delta: Tensor, *, f: Elementwise, of_y: Elementwise) -> Tensor:
    """The slope as a function of y, where there is one: 1 - y^2 for tanh."""
    (y,) = ctx.saved_tensors
    return delta * of_y(y)


def elementwise(f: Elementwise, slope: Elementwise, backward=at_input):
    return rule(forward, backward, f=f, slope=slope)


def through_output(f: Elementwise, of_y: Elementwise):
    return rule(keep_output, by_output, f=f, of_y=of_y)


def step(mask: Tensor, x: Tensor) -> Tensor:
    return mask.to(x.dtype)


def relu_slope(x: Tensor) -> Tensor:
    return step(x > 0, x)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, -0.3 * x)


def sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 - torch.sigmoid(x))


def tanh_slope(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x) ** 2


def silu_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))


def gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * density


def tanh_gelu(x: Tensor) -> Tensor:
    return T.gelu(x, approximate="tanh")


def tanh_gelu_slope(x: Tensor) -> Tensor:
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    return (1 + t) / 2 + x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2) / 2


def softplus_2(x: Tensor) -> Tensor:
    return T.softplus(x, beta=2)


def hardswish_slope(x: Tensor) -> Tensor:
    return torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, x / 3 + 0.5))


def sinc(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, torch.sin(x) / torch.where(x == 0, 1.0, x))


def sinc_slope(x: Tensor) -> Tensor:
    """By its series near 0, where the quotient cancels."""
    far = torch.where(x.abs() < 0.1, 1.0, x)
    near = -x / 3 + x**3 / 30 - x**5 / 840 + x**7 / 45360
    return torch.where(x.abs() < 0.1, near, (far * torch.cos(far) - torch.sin(far)) / far**2)


def sinc_slope_by_quotient(x: Tensor) -> Tensor:
    return (x * torch.cos(x) - torch.sin(x)) / x**2


def root_of_positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0).sqrt()


def root_slope(x: Tensor) -> Tensor:
    return torch.where(x > 0, 0.5 / torch.where(x > 0, x, 1.0).sqrt(), 0.0)


X = normal((4, 5))
KINKS = given([[-1.0, 0.0, 1.0, 0.5], [0.0, -0.5, 2.0, 0.0]])

SAMPLES = [
    Sample("relu", elementwise(torch.relu, relu_slope), X),
    Sample("leaky relu", elementwise(lambda x: T.leaky_relu(x, 0.1), lambda x: relu_slope(x) * 0.9 + 0.1), X),
    Sample("leaky relu: negative slope below zero", elementwise(leaky, lambda x: relu_slope(x) * 1.3 - 0.3), X),
    Sample("sigmoid", elementwise(torch.sigmoid, sigmoid_slope), X),
    Sample("sigmoid from its output", through_output(torch.sigmoid, lambda y: y * (1 - y)), X),
    Sample("tanh from its output", through_output(torch.tanh, lambda y: 1 - y**2), X),
    Sample("silu", elementwise(T.silu, silu_slope), X),
    Sample("gelu", elementwise(T.gelu, gelu_slope), X),
    Sample("gelu by tanh", elementwise(tanh_gelu, tanh_gelu_slope), X),
    Sample("softplus", elementwise(T.softplus, torch.sigmoid), X),
    Sample("clamp", elementwise(lambda x: x.clamp(-0.7, 0.7), lambda x: step(x.abs() <= 0.7, x)), X),
    Sample("abs", elementwise(torch.abs, torch.sign), X),
    Sample("hardswish", elementwise(T.hardswish, hardswish_slope), normal((4, 5), times=3)),
    Sample("exp from its output", through_output(torch.exp, lambda y: y), X),
    Sample("sqrt from its output", through_output(torch.sqrt, lambda y: 0.5 / y), positive((3, 4))),
    Sample("sinc at 0", elementwise(sinc, sinc_slope), given([-2.0, 0.0, 1e-5, 0.3, 4.0])),
    Sample("root of what is positive", elementwise(root_of_positive, root_slope), X),
    Sample("relu at its kink", elementwise(torch.relu, relu_slope), KINKS),
    Sample("relu at its kink, slope 1", elementwise(torch.relu, lambda x: step(x >= 0, x)), KINKS),
    Sample("relu at its kink, slope a half", elementwise(torch.relu, lambda x: (1 + torch.sign(x)) / 2), KINKS),
    Sample("clamp at its ends", elementwise(lambda x: x.clamp(-1, 1), lambda x: step(x.abs() < 1, x)), KINKS),
    Sample("abs at 0", elementwise(torch.abs, torch.sign), KINKS),
    Sample("sigmoid: slope missing", elementwise(torch.sigmoid, sigmoid_slope, no_slope), X, "slope missing"),
    Sample(
        "clamp: delta passes everywhere",
        elementwise(lambda x: x.clamp(-0.7, 0.7), torch.ones_like, no_slope),
        X,
        "slope missing",
    ),
    Sample(
        "sigmoid: slope at the output", elementwise(torch.sigmoid, sigmoid_slope, at_output), X, "slope at the output"
    ),
    Sample("tanh: slope at the output", elementwise(torch.tanh, tanh_slope, at_output), X, "slope at the output"),
    Sample("silu: slope at the output", elementwise(T.silu, silu_slope, at_output), X, "slope at the output"),
    Sample("tanh: sign", through_output(torch.tanh, lambda y: y**2 - 1), X, "sign"),
    Sample("cos: sign", elementwise(torch.cos, torch.sin), X, "sign"),
    Sample("square: 2 forgotten", elementwise(torch.square, lambda x: x), X, "constant factor"),
    Sample(
        "erf: 1 for 2 over the root of pi",
        elementwise(torch.erf, lambda x: torch.exp(-(x**2)) / math.sqrt(math.pi)),
        X,
        "constant factor",
    ),
    Sample(
        "gelu: slope of gelu by tanh", elementwise(T.gelu, tanh_gelu_slope), X, "another formula than forward's", 21
    ),
    Sample("gelu by tanh: slope of gelu", elementwise(tanh_gelu, gelu_slope), X, "another formula than forward's", 21),
    Sample(
        "softplus: slope without beta", elementwise(softplus_2, torch.sigmoid), X, "another formula than forward's", 21
    ),
    Sample(
        "leaky relu: mask from its output",
        through_output(leaky, lambda y: torch.where(y > 0, 1.0, -0.3).to(y.dtype)),
        X,
        "slope at the output",
        12,
    ),
    Sample(
        "sinc: quotient at 0",
        elementwise(sinc, sinc_slope_by_quotient),
        given([-2.0, 0.0, 0.3, 4.0]),
        "NaN at a point",
        22,
    ),
    Sample("sinc: quotient, no 0 among the inputs", elementwise(sinc, sinc_slope_by_quotient), X, "NaN at a point", 22),
    Sample(
        "root of what is positive: the branch not taken",
        elementwise(root_of_positive, lambda x: step(x > 0, x) * 0.5 / x.sqrt()),
        X,
        "NaN at a point",
        22,
    ),
    Sample(
        "softplus: exp overflows",
        elementwise(T.softplus, lambda x: x.exp() / (1 + x.exp())),
        given([-1.0, 0.5, 3.0, 800.0]),
        "NaN at a point",
        22,
    ),
]
