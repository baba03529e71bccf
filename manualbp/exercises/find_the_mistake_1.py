"""Find the mistake in the backward pass of average pooling.

The forward pass is right. `backward` has exactly one mistake, one that people make. Find it, say which numbers of dL/dx
are wrong, and why, and mend it.

    y[n,c,i,j] = 1/m^2 sum_pq x[n,c, s i + p, s j + q]          p, q = 0 .. m - 1

(Lecture 001, eq. 1.7.)

Shapes: x [N, C, H, W], y and delta [N, C, I, J] with I = (H - m) // s + 1, J = (W - m) // s + 1.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

INPUTS = ((2, 2, 5, 6), 3, 2)


class AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, m: int, s: int) -> Tensor:
        return T.avg_pool2d(x, m, s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.m, ctx.s = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        m, s = ctx.m, ctx.s
        I, J = delta.shape[2:]
        dx = delta.new_zeros(ctx.shape)
        for i in range(I):
            for j in range(J):
                dx[:, :, s * i : s * i + m, s * j : s * j + m] = delta[:, :, i, j, None, None] / m**2
        return dx, None, None


def f(x: Tensor, m: int, s: int) -> Tensor:
    return AveragePool.apply(x, m, s)
