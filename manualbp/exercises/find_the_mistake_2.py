"""Find the mistake in the backward pass of batch normalisation.

The forward pass is right. `backward` has exactly one mistake, one that people make. Find it, say which gradient is
wrong, and why, and mend it.

    mu = 1/m sum x    var = 1/m sum (x - mu)^2    r = 1 / sqrt(var + eps)    x^ = (x - mu) r    y = x^ w + b

where each sum is over the m = N H W numbers of a map c, and w and b have one number a map. (Ioffe and Szegedy 2015,
sec. 3.)

Shapes: x, y and delta [N, C, H, W], w and b [C], mu and r [1, C, 1, 1].
"""

from typing import Any

import torch
from torch import Tensor

INPUTS = ((2, 2, 3, 4), (2,), (2,))
EPS = 1e-5
MAP = (0, 2, 3)  # the axes that are summed over


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """mu and r."""
    mu = x.mean(MAP, keepdim=True)
    var = (x - mu).square().mean(MAP, keepdim=True)
    return mu, (var + EPS).rsqrt()


class BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        mu, r = statistics(x)
        return (x - mu) * r * w[:, None, None] + b[:, None, None]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, _ = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w = ctx.saved_tensors
        mu, r = statistics(x)
        x_hat = (x - mu) * r
        d_hat = delta * w[:, None, None]  # dL/dx^
        dx = r * d_hat
        return dx, (delta * x_hat).sum(MAP), delta.sum(MAP)


def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return BatchNorm.apply(x, w, b)
