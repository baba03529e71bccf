r"""Sums, extrema and moved elements.

What is summed gets delta back, and what is moved gets it from where it went. A maximum gives delta to one of its ties,
or a share to each; the shares add up to one.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from .sample import Sample, given, normal, rule


def keep(ctx: Any, x: Tensor, *, f: Any) -> Tensor:
    y = f(x)
    ctx.save_for_backward(x, y)
    return y


def by_x_and_y(f: Any, gradient: Any):
    """y = f(x), and the gradient of delta, x and y."""

    def backward(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
        return gradient(delta, *ctx.saved_tensors)

    return rule(keep, backward, f=f)


def cumsum(x: Tensor) -> Tensor:
    return x.cumsum(-1)


def from_the_end(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return delta.flip(-1).cumsum(-1).flip(-1)


def after_this(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return from_the_end(delta, x, y) - delta


def logsumexp(x: Tensor) -> Tensor:
    return x.logsumexp(-1)


def length(x: Tensor) -> Tensor:
    return x.norm(dim=-1)


def length_right(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of the slopes at 0 the one in the middle, 0."""
    return (delta / torch.where(y > 0, y, 1.0)).unsqueeze(-1) * x


def length_divides_by_0(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (delta / y).unsqueeze(-1) * x


def largest(x: Tensor) -> Tensor:
    return x.amax(-1)


def to_first(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), delta.unsqueeze(-1))


def to_last(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return to_first(delta, x.flip(-1), y).flip(-1)


def shared(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    ties = (x == y.unsqueeze(-1)).to(x.dtype)
    return delta.unsqueeze(-1) * ties / ties.sum(-1, keepdim=True)


def to_all_ties(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return delta.unsqueeze(-1) * (x == y.unsqueeze(-1))


def smallest(x: Tensor) -> Tensor:
    return x.amin(-1)


def to_first_smallest(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return to_first(delta, -x, y)


def at_a_byte(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    at = x.argmax(-1, keepdim=True).to(torch.uint8).long()
    return torch.zeros_like(x).scatter(-1, at, delta.unsqueeze(-1))


def middle(x: Tensor) -> Tensor:
    """The lower median of each row."""
    return x.sort(-1).values[..., (x.shape[-1] - 1) // 2]


def middle_right(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    at = x.sort(-1).indices[..., (x.shape[-1] - 1) // 2, None]
    return torch.zeros_like(x).scatter(-1, at, delta.unsqueeze(-1))


def sorted_values(x: Tensor) -> Tensor:
    return x.sort(-1).values


def sorted_right(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(-1, x.sort(-1).indices, delta)


def sorted_the_wrong_way(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return delta.gather(-1, x.sort(-1).indices)


def padded(x: Tensor) -> Tensor:
    return T.pad(x, (2, 1))


def unpadded(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return delta[..., 2:-1].clone()


def unpadded_from_1(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return delta[..., 1:-2].clone()


def rows(x: Tensor) -> Tensor:
    """Which rows of a table are looked up; some twice, some never."""
    return torch.arange(2 * len(x)) ** 2 % len(x)


def look_up(x: Tensor) -> Tensor:
    return x[rows(x)]


def look_up_right(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, rows(x), delta)


def look_up_overwrites(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    gradient = torch.zeros_like(x)
    for row, d in zip(rows(x), delta, strict=True):
        gradient[row] = d
    return gradient


def scatter_add(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, rows(x)[: len(x)], x)


def columns(x: Tensor) -> Tensor:
    return (torch.arange(x.numel()).view(x.shape) * 3 + 1) % x.shape[1]


def gather(x: Tensor) -> Tensor:
    return x.gather(1, columns(x))


def gather_right(delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter_add(1, columns(x), delta)


X = normal((3, 5))
TIES = given([[1.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, -1.0, -2.0]])
ONE_AT_0 = given([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])

SAMPLES = [
    Sample("cumsum", by_x_and_y(cumsum, from_the_end), X),
    Sample(
        "logsumexp", by_x_and_y(logsumexp, lambda delta, x, y: delta.unsqueeze(-1) * (x - y.unsqueeze(-1)).exp()), X
    ),
    Sample("norm", by_x_and_y(length, length_right), X),
    Sample("norm at 0", by_x_and_y(length, length_right), ONE_AT_0),
    Sample("maximum", by_x_and_y(largest, to_first), X),
    Sample("maximum: ties, the first", by_x_and_y(largest, to_first), TIES),
    Sample("maximum: ties, the last", by_x_and_y(largest, to_last), TIES),
    Sample("maximum: ties, shared", by_x_and_y(largest, shared), TIES),
    Sample("minimum: ties, the first", by_x_and_y(smallest, to_first_smallest), TIES),
    Sample("median", by_x_and_y(middle, middle_right), X),
    Sample("sort", by_x_and_y(sorted_values, sorted_right), X),
    Sample("sum of all", by_x_and_y(torch.sum, lambda delta, x, y: delta.expand_as(x)), X),
    Sample("mean", by_x_and_y(torch.mean, lambda delta, x, y: (delta / x.numel()).expand_as(x)), X),
    Sample("pad", by_x_and_y(padded, unpadded), X),
    Sample("roll", by_x_and_y(lambda x: x.roll(2, -1), lambda delta, x, y: delta.roll(-2, -1)), X),
    Sample("embedding", by_x_and_y(look_up, look_up_right), X),
    Sample("scatter_add", by_x_and_y(scatter_add, lambda delta, x, y: delta[rows(x)[: len(x)]]), X),
    Sample("gather", by_x_and_y(gather, gather_right), X),
    Sample(
        "where",
        by_x_and_y(
            lambda x: torch.where(x > 0, x**2, 3 * x), lambda delta, x, y: delta * torch.where(x > 0, 2 * x, 3.0)
        ),
        X,
    ),
    Sample("cumsum: this one left out", by_x_and_y(cumsum, after_this), X, "off by one at the border"),
    Sample("pad: cut off by one", by_x_and_y(padded, unpadded_from_1), X, "off by one at the border"),
    Sample("logsumexp: delta ignored", by_x_and_y(logsumexp, lambda delta, x, y: x.softmax(-1)), X, "delta ignored", 8),
    Sample(
        "logsumexp: first delta for all",
        by_x_and_y(logsumexp, lambda delta, x, y: delta[0] * x.softmax(-1)),
        X,
        "first row of delta for all",
        8,
    ),
    Sample("norm: NaN at 0", by_x_and_y(length, length_divides_by_0), ONE_AT_0, "NaN at a point", 22),
    Sample("norm: NaN at 0, no 0 among the inputs", by_x_and_y(length, length_divides_by_0), X, "NaN at a point", 22),
    Sample("maximum: all ties", by_x_and_y(largest, to_all_ties), TIES, "ties all counted", 13),
    Sample("maximum: all ties, none among the inputs", by_x_and_y(largest, to_all_ties), X, "ties all counted", 13),
    Sample(
        "maximum: position in a byte",
        by_x_and_y(largest, at_a_byte),
        given(torch.arange(600.0).view(2, 300) * 7 % 601),
        "offset overflows",
        24,
    ),
    Sample("mean: not divided", by_x_and_y(torch.mean, lambda delta, x, y: delta.expand_as(x)), X, "divisor missing"),
    Sample("embedding: overwritten", by_x_and_y(look_up, look_up_overwrites), X, "overlap overwritten", 10),
    Sample(
        "sort: the permutation for its inverse",
        by_x_and_y(sorted_values, sorted_the_wrong_way),
        X,
        "permutation for its inverse",
    ),
]
