"""Right ones that a careless checker would call wrong."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .sample import Inputs, Sample, given, normal, rule
from .structure import two_outputs

AXIS = given([[-2.0, 0.5, 1.0], [3.0, -0.25, 0.125]])


def keep(ctx: Any, x: Tensor, *, f: Any, gradient: Any) -> Tensor:
    ctx.save_for_backward(x)
    return f(x)


def backward(ctx: Any, delta: Tensor, *, f: Any, gradient: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return gradient(delta, x)


def by_x(f: Any, gradient: Any):
    return rule(keep, backward, f=f, gradient=gradient)


@once_differentiable
def once(ctx: Any, delta: Tensor, *, f: Any, gradient: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return gradient(delta, x)


square = by_x(torch.square, lambda delta, x: 2 * delta * x)


def in_float(x: Tensor) -> Tensor:
    return square(x.float()).to(x.dtype)


def float_alone(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise TypeError(f"float32 is expected, not {x.dtype}")
    return square(x)


def in_single(inputs: Inputs) -> Inputs:
    return lambda: tuple(x.detach().float().requires_grad_(x.requires_grad) for x in inputs())


def both(ctx: Any, to_sin: Tensor, to_cos: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return to_sin * x.cos() - to_cos * x.sin()


def not_materialised(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x)
    return x.sin(), x.cos()


def both_if_there(ctx: Any, to_sin: Tensor | None, to_cos: Tensor | None) -> Tensor | None:
    """None stands for an output that the loss does not depend on."""
    (x,) = ctx.saved_tensors
    to_x = None if to_sin is None else to_sin * x.cos()
    return to_x if to_cos is None else (0 if to_x is None else to_x) - to_cos * x.sin()


def maximum_and_position(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y, at = x.max(-1)
    ctx.save_for_backward(x, at)
    ctx.mark_non_differentiable(at)
    return y, at


def to_position(ctx: Any, delta: Tensor, _: Tensor) -> Tensor:
    x, at = ctx.saved_tensors
    return torch.zeros_like(x).scatter(-1, at.unsqueeze(-1), delta.unsqueeze(-1))


def keep_output(ctx: Any, x: Tensor) -> Tensor:
    y = x.sigmoid()
    ctx.save_for_backward(y)
    return y


def by_output(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta * y * (1 - y)


def weighted(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
    ctx.save_for_backward(weight)
    return x * weight


def weighted_right(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
    (weight,) = ctx.saved_tensors
    return delta * weight, None


def one_frozen() -> tuple[Tensor, ...]:
    x, weight = normal((3, 4), (3, 4))()
    return x, weight.detach()


def cube_slope(delta: Tensor, x: Tensor) -> Tensor:
    """Through another rule, so that each derivative is by hand."""
    return delta * 3 * square(x)


def product(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
    ctx.save_for_backward(x, y)
    return x * y


def product_right(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, y = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return delta * y if wanted[0] else None, delta * x if wanted[1] else None


def sign_slope(delta: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def strided() -> tuple[Tensor, ...]:
    (x,) = normal((4, 6))()
    return (x.detach().T[::2].requires_grad_(),)


X = normal((3, 4))

SAMPLES = [
    Sample("square in float32 inside", in_float, X),
    Sample("square that takes float32 alone", float_alone, in_single(X)),
    Sample(
        "sum of large numbers in float32",
        by_x(torch.sum, lambda delta, x: delta.expand_as(x)),
        in_single(normal((40, 30), plus=1e3)),
    ),
    Sample(
        "sum of squares in float32",
        by_x(lambda x: x.square().sum(), lambda delta, x: 2 * delta * x),
        in_single(normal((30, 30), times=30)),
    ),
    Sample("sine and cosine", rule(two_outputs, both), X),
    Sample("sine and cosine, deltas not materialised", rule(not_materialised, both_if_there), X),
    Sample("maximum and its position", rule(maximum_and_position, to_position), X),
    Sample("sigmoid keeps its output", rule(keep_output, by_output), X),
    Sample("cube, differentiable twice", by_x(lambda x: x**3, cube_slope), X),
    Sample("square, differentiable once", rule(keep, once, f=torch.square, gradient=lambda delta, x: 2 * delta * x), X),
    Sample("weights without gradient", rule(weighted, weighted_right), one_frozen),
    Sample("product, only what is asked for", rule(product, product_right), normal((3, 4), (3, 4))),
    Sample("x times itself, by two inputs", lambda x: rule(product, product_right)(x, x), X),
    Sample("sign, zero everywhere", by_x(torch.sign, sign_slope), AXIS),
    Sample("floor, zero everywhere", by_x(torch.floor, sign_slope), given([[-1.3, 0.4, 2.5]])),
    Sample("cubes of 1e-12", by_x(lambda x: x**3, cube_slope), normal((3, 4), times=1e-12)),
    Sample("a factor of 1e-12", by_x(lambda x: 1e-12 * x.sin(), lambda delta, x: 1e-12 * delta * x.cos()), X),
    Sample("a factor of 1e12", by_x(lambda x: 1e12 * x.sin(), lambda delta, x: 1e12 * delta * x.cos()), X),
    Sample("squares of 1e12", square, normal((3, 4), times=1e12)),
    Sample("sine of a hundred x", by_x(lambda x: (100 * x).sin(), lambda delta, x: 100 * delta * (100 * x).cos()), X),
    Sample("delta handed on as it is", by_x(torch.clone, lambda delta, x: delta), X),
    Sample("transpose", by_x(lambda x: x.T.clone(), lambda delta, x: delta.T), X),
    Sample("a loss without dimensions", by_x(torch.square, lambda delta, x: 2 * delta * x), given(1.5)),
    Sample("no elements", square, normal((0, 3))),
    Sample("an input with strides", square, strided),
]
