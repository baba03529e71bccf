r"""Softmax and losses.

y = softmax(x) has dL/dx = y (\delta - \sum \delta y). A cross entropy over N rows, with classes t, has
dL/dx = \delta (softmax(x) - onehot(t)) / N. The mean squared error over all numbers has 2 \delta (x - t) / N.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from .sample import Sample, given, normal, rule


def classes(x: Tensor) -> Tensor:
    """A class for each row."""
    return torch.arange(len(x)) * 2 % x.shape[1]


def onehot(x: Tensor) -> Tensor:
    return T.one_hot(classes(x), x.shape[1]).to(x.dtype)


def softmax(ctx: Any, x: Tensor) -> Tensor:
    y = x.softmax(-1)
    ctx.save_for_backward(y)
    return y


def softmax_right(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return y * (delta - (delta * y).sum(-1, keepdim=True))


def softmax_as_a_factor(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return y * delta


def softmax_diagonal(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return y * (1 - y) * delta


def log_softmax(ctx: Any, x: Tensor) -> Tensor:
    y = x.log_softmax(-1)
    ctx.save_for_backward(y)
    return y


def log_softmax_right(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta - y.exp() * delta.sum(-1, keepdim=True)


def log_softmax_no_sum(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta - y.exp() * delta


def keep(ctx: Any, *inputs: Tensor, f: Any, gradient: Any) -> Tensor:
    ctx.save_for_backward(*inputs)
    return f(*inputs)


def times_delta(ctx: Any, delta: Tensor, *, f: Any, gradient: Any) -> Any:
    gradients = gradient(*ctx.saved_tensors)
    if isinstance(gradients, tuple):
        return tuple(g if g is None else delta * g for g in gradients)
    return delta * gradients


def without_delta(ctx: Any, delta: Tensor, *, f: Any, gradient: Any) -> Any:
    return gradient(*ctx.saved_tensors)


def loss(f: Any, gradient: Any, backward=times_delta):
    """A number of the inputs, and its gradient."""
    return rule(keep, backward, f=f, gradient=gradient)


def cross_entropy(x: Tensor) -> Tensor:
    return T.cross_entropy(x, classes(x))


def sum_of_cross_entropies(x: Tensor) -> Tensor:
    return T.cross_entropy(x, classes(x), reduction="sum")


def of_logits(x: Tensor) -> Tensor:
    return x.softmax(1) - onehot(x)


def bce(x: Tensor, t: Tensor) -> Tensor:
    return T.binary_cross_entropy_with_logits(x, t.sigmoid(), reduction="sum")


def bce_gradient(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return x.sigmoid() - t.sigmoid(), -x * t.sigmoid() * (1 - t.sigmoid())


def mse_gradient(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * (x - t) / x.numel(), 2 * (t - x) / x.numel()


def error_of_rows(ctx: Any, x: Tensor, t: Tensor) -> Tensor:
    ctx.save_for_backward(x, t)
    return (x - t).square().sum(1)


def rows_right(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    x, t = ctx.saved_tensors
    return 2 * delta[:, None] * (x - t), 2 * delta[:, None] * (t - x)


def rows_by_the_first(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    x, t = ctx.saved_tensors
    return 2 * delta[0] * (x - t), 2 * delta[0] * (t - x)


def huber_gradient(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return (x - t).clamp(-1, 1) / x.numel(), (t - x).clamp(-1, 1) / x.numel()


X = normal((4, 5))
TWO = normal((3, 4), (3, 4))
SURE = given([[900.0, -900.0, 0.0], [-1000.0, 3.0, 2.0]])

SAMPLES = [
    Sample("softmax", rule(softmax, softmax_right), X),
    Sample("softmax: logits of 1000", rule(softmax, softmax_right), SURE),
    Sample("log_softmax", rule(log_softmax, log_softmax_right), X),
    Sample("nll", loss(lambda x: T.nll_loss(x, classes(x)), lambda x: -onehot(x) / len(x)), X),
    Sample("cross entropy", loss(cross_entropy, lambda x: of_logits(x) / len(x)), X),
    Sample("cross entropy: sum", loss(sum_of_cross_entropies, of_logits), X),
    Sample("binary cross entropy of logits", loss(bce, bce_gradient), TWO),
    Sample("mse", loss(T.mse_loss, mse_gradient), TWO),
    Sample("squared error of each row", rule(error_of_rows, rows_right), TWO),
    Sample("huber", loss(T.huber_loss, huber_gradient), TWO),
    Sample("softmax: as a factor", rule(softmax, softmax_as_a_factor), X, "softmax's sum missing", 4),
    Sample("softmax: the diagonal alone", rule(softmax, softmax_diagonal), X, "softmax's sum missing", 4),
    Sample("log_softmax: sum missing", rule(log_softmax, log_softmax_no_sum), X, "softmax's sum missing", 4),
    Sample("cross entropy: not divided", loss(cross_entropy, of_logits), X, "divisor missing"),
    Sample(
        "cross entropy: mean for sum",
        loss(sum_of_cross_entropies, lambda x: of_logits(x) / len(x)),
        X,
        "averaged, not summed",
        19,
    ),
    Sample("cross entropy: target less softmax", loss(cross_entropy, lambda x: -of_logits(x) / len(x)), X, "sign"),
    Sample(
        "cross entropy: delta ignored",
        loss(cross_entropy, lambda x: of_logits(x) / len(x), without_delta),
        X,
        "delta ignored",
        8,
    ),
    Sample(
        "mse: 2 forgotten",
        loss(T.mse_loss, lambda x, t: ((x - t) / x.numel(), (t - x) / x.numel())),
        TWO,
        "constant factor",
    ),
    Sample("mse: delta ignored", loss(T.mse_loss, mse_gradient, without_delta), TWO, "delta ignored", 8),
    Sample("mse: sign of the target's", loss(T.mse_loss, lambda x, t: (mse_gradient(x, t)[0],) * 2), TWO, "sign"),
    Sample("mse: not divided", loss(T.mse_loss, lambda x, t: (2 * (x - t), 2 * (t - x))), TWO, "divisor missing"),
    Sample(
        "squared error of each row: first delta for all",
        rule(error_of_rows, rows_by_the_first),
        TWO,
        "first row of delta for all",
        8,
    ),
]
