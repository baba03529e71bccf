"""Average pooling, windows of m x m that move by s.

Write the backward pass of

    y[n,c,i,j] = 1/m^2 sum_pq x[n,c, s i + p, s j + q]          p, q = 0 .. m - 1

Given delta = dL/dy, return dL/dx, and None for m and s. Where s < m the windows overlap, and behind the last window
rows and columns of x may be left over. (Lecture 001, eq. 1.7; lecture 004, eq. 4.8.)

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
        raise NotImplementedError("write this")


def f(x: Tensor, m: int, s: int) -> Tensor:
    return AveragePool.apply(x, m, s)
