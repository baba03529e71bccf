r"""Products: linear layers, matrices, attention, broadcasting.

y = x W + b has dL/dx = \delta W^T, dL/dW = x^T \delta and dL/db = \sum_n \delta_n; what is broadcast is summed.
"""

import math
from typing import Any

import torch
from torch import Tensor, einsum

from .sample import Sample, normal, rule


def linear(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    ctx.save_for_backward(x, w)
    return x @ w + b


def linear_right(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
    x, w = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return delta @ w.T if wanted[0] else None, x.T @ delta if wanted[1] else None, delta.sum(0) if wanted[2] else None


def linear_bias_left_to_autograd(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
    """Right in PyTorch: it sums a gradient to the shape of its input."""
    x, w = ctx.saved_tensors
    return delta @ w.T, x.T @ delta, delta


def linear_changed(change):
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
        x, w = ctx.saved_tensors
        return change(delta @ w.T, x.T @ delta, delta.sum(0), delta, x)

    return backward


def scale_only_with_x(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
    """The product of delta and x is made for one case, and taken for granted in the other."""
    x, w = ctx.saved_tensors
    to_w = torch.zeros_like(w)
    if ctx.needs_input_grad[0]:
        to_w = x.T @ delta
    return delta @ w.T, to_w, delta.sum(0)


def matmul(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
    ctx.save_for_backward(a, b)
    return a @ b


def matmul_right(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return delta @ b.mT, a.mT @ delta


def matmul_exchanged(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    to_a, to_b = matmul_right(ctx, delta)
    return to_b, to_a


def matmul_in_float(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return (delta.float() @ b.mT.float()).to(a.dtype), a.mT @ delta


def outer(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
    ctx.save_for_backward(a, b)
    return torch.outer(a, b)


def outer_right(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return delta @ b, a @ delta


def multiply(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
    ctx.save_for_backward(a, b)
    return a * b


def multiply_right(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes (N, C, L) and (C, 1)."""
    a, b = ctx.saved_tensors
    return delta * b, (delta * a).sum((0, 2)).unsqueeze(1)


def multiply_one_position(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return delta * b, (delta * a)[..., :1].sum(0)


def multiply_exchanged(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return delta * a, delta * b


def multiply_maps(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
    """Shapes (N, C, L) and (C)."""
    ctx.save_for_backward(a, b)
    return a * b[:, None]


def multiply_left_to_autograd(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Autograd sums a gradient to the shape of its input, but from the front: where L = C it passes, and is wrong."""
    a, b = ctx.saved_tensors
    return delta * b[:, None], delta * a


def subtract(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
    return a - b


def subtract_right(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    return delta, -delta


def subtract_same(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    return delta, delta


def attention(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    ctx.save_for_backward(q, k, v)
    return weights(q, k) @ v


def weights(q: Tensor, k: Tensor) -> Tensor:
    return (einsum("nld,nsd->nls", q, k) / math.sqrt(q.shape[-1])).softmax(-1)


def attention_right(ctx: Any, delta: Tensor, *, centred=True, scaled=True) -> tuple[Tensor, ...]:
    q, k, v = ctx.saved_tensors
    a = weights(q, k)
    to_a = einsum("nld,nsd->nls", delta, v)
    to_scores = a * (to_a - (to_a * a).sum(-1, keepdim=True) if centred else to_a)
    to_scores = to_scores / math.sqrt(q.shape[-1]) if scaled else to_scores
    return to_scores @ k, to_scores.mT @ q, a.mT @ delta


def no_sum(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
    return attention_right(ctx, delta, centred=False)


def no_scale(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
    return attention_right(ctx, delta, scaled=False)


def key_for_query(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
    to_q, to_k, to_v = attention_right(ctx, delta)
    return to_k, to_q, to_v


X_W_B = normal((4, 3), (3, 5), (5,))
SQUARES = normal((3, 3), (3, 3))
MAPS = normal((2, 3, 4), (3, 1))
HEADS = normal((2, 3, 4), (2, 3, 4), (2, 3, 4))

SAMPLES = [
    Sample("linear", rule(linear, linear_right), X_W_B),
    Sample("linear: autograd sums the bias", rule(linear, linear_bias_left_to_autograd), X_W_B),
    Sample("matmul", rule(matmul, matmul_right), normal((2, 3, 4), (2, 4, 2))),
    Sample("outer product", rule(outer, outer_right), normal((3,), (4,))),
    Sample("product with a scale for each map", rule(multiply, multiply_right), MAPS),
    Sample("difference", rule(subtract, subtract_right), SQUARES),
    Sample("attention", rule(attention, attention_right), normal((2, 3, 4), (2, 5, 4), (2, 5, 3))),
    Sample(
        "linear: weight averaged",
        rule(linear, linear_changed(lambda x, w, b, delta, _: (x, w / len(delta), b))),
        X_W_B,
        "averaged, not summed",
        19,
    ),
    Sample(
        "linear: bias averaged",
        rule(linear, linear_changed(lambda x, w, b, delta, _: (x, w, delta.mean(0)))),
        X_W_B,
        "averaged, not summed",
        19,
    ),
    Sample(
        "linear: bias of the first row",
        rule(linear, linear_changed(lambda x, w, b, delta, _: (x, w, delta[0]))),
        X_W_B,
        "bias not summed",
        19,
    ),
    Sample(
        "linear: bias summed in bfloat16",
        rule(linear, linear_changed(lambda x, w, b, delta, _: (x, w, delta.bfloat16().sum(0).to(b.dtype)))),
        X_W_B,
        "precision lost",
        23,
    ),
    Sample(
        "linear: first delta for all",
        rule(linear, linear_changed(lambda x, w, b, delta, i: (x, i.T @ delta[:1].expand_as(delta), b))),
        X_W_B,
        "first row of delta for all",
        8,
    ),
    Sample(
        "linear: weight only with x", rule(linear, scale_only_with_x), X_W_B, "wrong where another input is frozen", 19
    ),
    Sample("matmul: gradients exchanged", rule(matmul, matmul_exchanged), SQUARES, "gradient of another input"),
    Sample("matmul: in float32", rule(matmul, matmul_in_float), SQUARES, "precision lost", 23),
    Sample("product: gradients exchanged", rule(multiply, multiply_exchanged), SQUARES, "gradient of another input"),
    Sample("product: scale of one position", rule(multiply, multiply_one_position), MAPS, "broadcast not summed", 5),
    Sample(
        "product: scale not summed where L = C",
        rule(multiply_maps, multiply_left_to_autograd),
        normal((2, 3, 3), (3,)),
        "broadcast not summed",
        5,
    ),
    Sample("difference: sign", rule(subtract, subtract_same), SQUARES, "sign"),
    Sample("attention: softmax as a factor", rule(attention, no_sum), HEADS, "softmax's sum missing", 4),
    Sample("attention: scale forgotten", rule(attention, no_scale), HEADS, "constant factor"),
    Sample("attention: query and key exchanged", rule(attention, key_for_query), HEADS, "gradient of another input"),
]
