r"""Pooling.

Maximum: y takes one x of its window, and delta goes back to that one. Average: y is the sum of its window over a
divisor, and so is what delta gives to each x of the window. Where windows overlap, an x gets the sum.
"""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from .convolution import window
from .sample import Sample, given, normal, rule


def max_pool(ctx: Any, x: Tensor, **how: Any) -> Tensor:
    y, ctx.at = T.max_pool2d(x, return_indices=True, **how)
    ctx.shape = x.shape
    return y


def add_at(delta: Tensor, at: Tensor, shape: torch.Size) -> Tensor:
    return delta.new_zeros(shape).flatten(2).scatter_add(2, at.flatten(2), delta.flatten(2)).view(shape)


def max_right(ctx: Any, delta: Tensor, **how: Any) -> Tensor:
    return add_at(delta, ctx.at, ctx.shape)


def max_overwrites(ctx: Any, delta: Tensor, **how: Any) -> Tensor:
    zeros = delta.new_zeros(ctx.shape).flatten(2)
    return zeros.scatter(2, ctx.at.flatten(2), delta.flatten(2)).view(ctx.shape)


def max_height_for_width(ctx: Any, delta: Tensor, **how: Any) -> Tensor:
    """at = h W + k."""
    H, W = ctx.shape[2:]
    h, k = ctx.at // H, ctx.at % H
    return add_at(delta, h * W + k, ctx.shape)


def keep_both(ctx: Any, x: Tensor, *, m: int, s: int) -> Tensor:
    y = T.max_pool2d(x, m, s)
    ctx.save_for_backward(x, y)
    return y


def max_all_ties(ctx: Any, delta: Tensor, *, m: int, s: int) -> Tensor:
    x, y = ctx.saved_tensors
    gradient = torch.zeros_like(x)
    for at in product(range(m), range(m)):
        where = (at, y.shape[2:], (s, s), (1, 1))
        window(gradient, *where).add_(delta * (window(x, *where) == y))
    return gradient


def average(ctx: Any, x: Tensor, *, m: int, s: int, pad=0, ceil=False, with_pad=True) -> Tensor:
    ctx.shape = x.shape
    return T.avg_pool2d(x, m, s, pad, ceil, with_pad)


def spread(share: Tensor, shape: torch.Size, m: int, s: int, pad: int) -> Tensor:
    """Each window's share to each of its elements; the padding and what lies behind it are cut off."""
    (H, W), (I, J) = shape[2:], share.shape[2:]
    full = share.new_zeros(*shape[:2], max(H + 2 * pad, (I - 1) * s + m), max(W + 2 * pad, (J - 1) * s + m))
    for at in product(range(m), range(m)):
        window(full, at, (I, J), (s, s), (1, 1)).add_(share)
    return full[..., pad : pad + H, pad : pad + W]


def divisor(like: Tensor, shape: torch.Size, m: int, s: int, pad: int, ceil: bool, with_pad: bool) -> Tensor:
    """How many elements each window has: those of the padding count or not, those behind it never."""
    ones = T.pad(like.new_ones(1, 1, *shape[2:]), (pad,) * 4, value=float(with_pad))
    I, J = like.shape[2:]
    return T.avg_pool2d(ones, m, s, ceil_mode=ceil, divisor_override=1)[..., :I, :J]


def average_right(ctx: Any, delta: Tensor, *, m: int, s: int, pad=0, ceil=False, with_pad=True) -> Tensor:
    return spread(delta / divisor(delta, ctx.shape, m, s, pad, ceil, with_pad), ctx.shape, m, s, pad)


def no_divisor(ctx: Any, delta: Tensor, *, m: int, s: int) -> Tensor:
    return spread(delta, ctx.shape, m, s, 0)


def divisor_m(ctx: Any, delta: Tensor, *, m: int, s: int) -> Tensor:
    return spread(delta / m, ctx.shape, m, s, 0)


def whole_windows(ctx: Any, delta: Tensor, *, m: int, s: int, pad=0, ceil=False, with_pad=True) -> Tensor:
    return spread(delta / m**2, ctx.shape, m, s, pad)


def average_overwrites(ctx: Any, delta: Tensor, *, m: int, s: int) -> Tensor:
    gradient = delta.new_zeros(ctx.shape)
    for i, j in product(range(delta.shape[2]), range(delta.shape[3])):
        gradient[..., i * s : i * s + m, j * s : j * s + m] = delta[..., i, j, None, None] / m**2
    return gradient


def pairs(ctx: Any, x: Tensor) -> Tensor:
    """Sums of neighbours along a row; an odd last one is left out."""
    ctx.length = x.shape[-1]
    return x[..., 0 : ctx.length - 1 : 2] + x[..., 1::2]


def pairs_right(ctx: Any, delta: Tensor) -> Tensor:
    twice = delta.repeat_interleave(2, -1)
    return T.pad(twice, (0, ctx.length - twice.shape[-1]))


def pairs_from_the_end(ctx: Any, delta: Tensor) -> Tensor:
    twice = delta.repeat_interleave(2, -1)
    return T.pad(twice, (ctx.length - twice.shape[-1], 0))


def repeat(ctx: Any, x: Tensor) -> Tensor:
    """Twice as large, each pixel a block of four."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def repeat_right(ctx: Any, delta: Tensor) -> Tensor:
    return delta.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).sum((-1, -3))


def repeat_overwrites(ctx: Any, delta: Tensor) -> Tensor:
    return delta[..., 1::2, 1::2].clone()


X = normal((2, 3, 6, 7))
SQUARE = normal((1, 2, 5, 5))
TIES = given([[[[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 2.0, 2.0], [3.0, 3.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]]]])
OVERLAP = {"m": 3, "s": 2}

SAMPLES = [
    Sample("max_pool2d", rule(max_pool, max_right, kernel_size=2), X),
    Sample("max_pool2d: overlap", rule(max_pool, max_right, kernel_size=3, stride=1), X),
    Sample("max_pool2d: padding", rule(max_pool, max_right, kernel_size=3, stride=2, padding=1), X),
    Sample("max_pool2d: ceil", rule(max_pool, max_right, kernel_size=3, stride=2, ceil_mode=True), X),
    Sample("max_pool2d: ties", rule(max_pool, max_right, kernel_size=2), TIES),
    Sample("avg_pool2d", rule(average, average_right, m=2, s=2), X),
    Sample("avg_pool2d: overlap and padding", rule(average, average_right, m=3, s=2, pad=1), X),
    Sample("avg_pool2d: padding not counted", rule(average, average_right, m=3, s=2, pad=1, with_pad=False), X),
    Sample("avg_pool2d: ceil", rule(average, average_right, m=3, s=2, pad=1, ceil=True), X),
    Sample(
        "avg_pool2d: ceil, padding not counted",
        rule(average, average_right, m=2, s=2, pad=1, ceil=True, with_pad=False),
        X,
    ),
    Sample("sums of pairs", rule(pairs, pairs_right), normal((2, 7))),
    Sample("enlarged by repetition", rule(repeat, repeat_right), normal((1, 2, 3, 2))),
    Sample(
        "max_pool2d: overlap overwritten",
        rule(max_pool, max_overwrites, kernel_size=3, stride=1),
        X,
        "overlap overwritten",
        10,
    ),
    Sample(
        "max_pool2d: height for width",
        rule(max_pool, max_height_for_width, kernel_size=2),
        SQUARE,
        "height for width",
        16,
    ),
    Sample("max_pool2d: all ties", rule(keep_both, max_all_ties, m=2, s=2), TIES, "ties all counted", 13),
    Sample(
        "max_pool2d: all ties, none among the inputs",
        rule(keep_both, max_all_ties, **OVERLAP),
        X,
        "ties all counted",
        13,
    ),
    Sample("avg_pool2d: divisor missing", rule(average, no_divisor, **OVERLAP), X, "divisor missing"),
    Sample("avg_pool2d: divisor m", rule(average, divisor_m, **OVERLAP), X, "divisor is m, not m^2"),
    Sample(
        "avg_pool2d: divisor of overhanging windows",
        rule(average, whole_windows, ceil=True, **OVERLAP),
        X,
        "divisor of an overhanging window",
        9,
    ),
    Sample(
        "avg_pool2d: divisor of padded windows",
        rule(average, whole_windows, pad=1, with_pad=False, **OVERLAP),
        X,
        "divisor of an overhanging window",
        9,
    ),
    Sample(
        "avg_pool2d: overlap overwritten", rule(average, average_overwrites, **OVERLAP), X, "overlap overwritten", 10
    ),
    Sample(
        "sums of pairs: rest at the front, even length",
        rule(pairs, pairs_from_the_end),
        normal((2, 6)),
        "off by one at the border",
        14,
    ),
    Sample(
        "sums of pairs: rest at the front",
        rule(pairs, pairs_from_the_end),
        normal((2, 7)),
        "off by one at the border",
        14,
    ),
    Sample(
        "enlarged by repetition: one of four",
        rule(repeat, repeat_overwrites),
        normal((1, 2, 3, 2)),
        "overlap overwritten",
        10,
    ),
]
