r"""Dropout at p = 1/2: y = m x with a mask m of zeros and twos, so that dL/dx = m \delta with the same mask."""

from typing import Any

import torch
from torch import Tensor

from .sample import Sample, given, normal, rule


def mask_of(x: Tensor, seed: int | None = None) -> Tensor:
    """Zeros and twos; without a seed from the generator of all."""
    g = torch.Generator().manual_seed(seed) if seed is not None else None
    return 2 * (torch.rand(x.shape, generator=g) < 0.5).to(x)


def dropout(ctx: Any, x: Tensor, *, seed: int | None = 0) -> Tensor:
    ctx.mask = mask_of(x, seed)
    return x * ctx.mask


def dropout_right(ctx: Any, delta: Tensor, *, seed: int | None = 0) -> Tensor:
    return delta * ctx.mask


def dropout_again(ctx: Any, delta: Tensor, *, seed: int | None = 0) -> Tensor:
    return delta * mask_of(delta, seed and seed + 1)


def dropout_not_scaled(ctx: Any, delta: Tensor) -> Tensor:
    return delta * (ctx.mask > 0)


def keep_dropped(ctx: Any, x: Tensor) -> Tensor:
    y = x * mask_of(x, 0)
    ctx.save_for_backward(y)
    return y


def mask_from_output(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta * 2 * (y != 0)


X = normal((4, 5))

SAMPLES = [
    Sample("dropout from the common generator", rule(dropout, dropout_right, seed=None), X),
    Sample("dropout with a given mask", rule(dropout, dropout_right), X),
    Sample("dropout: drawn again", rule(dropout, dropout_again, seed=1), X, "random numbers drawn again", 11),
    Sample(
        "dropout: drawn again from the common generator",
        rule(dropout, dropout_again, seed=None),
        X,
        "random numbers drawn again",
        11,
    ),
    Sample("dropout: not scaled", rule(dropout, dropout_not_scaled), X, "constant factor", 11),
    Sample("dropout: mask from its output", rule(keep_dropped, mask_from_output), X, "mask from values", 12),
    Sample(
        "dropout: mask from its output, zeros among the inputs",
        rule(keep_dropped, mask_from_output),
        given(torch.zeros(3, 4)),
        "mask from values",
        12,
    ),
]
