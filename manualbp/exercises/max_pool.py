"""Maximum pooling, windows of m x m that move by s.

Write the backward pass of

    y[n,c,i,j] = max over p, q = 0 .. m - 1 of x[n,c, s i + p, s j + q]

Given delta = dL/dy, return dL/dx, and None for m and s. Where s < m the windows overlap, and behind the last window
rows and columns of x may be left over. Of equal numbers in a window y takes one: PyTorch takes the first, and
T.max_pool2d(x, m, s, return_indices=True) tells its place in the map, as h W + k. (Lecture 001, eq. 1.6; lecture 004,
eq. 4.8.)

Shapes: x [N, C, H, W], y and delta [N, C, I, J] with I = (H - m) // s + 1, J = (W - m) // s + 1.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

INPUTS = ((2, 2, 5, 6), 3, 2)


class MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, m: int, s: int) -> Tensor:
        return T.max_pool2d(x, m, s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.m, ctx.s = inputs
        ctx.save_for_backward(x)  # in backward: (x,) = ctx.saved_tensors

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        raise NotImplementedError("write this")


def f(x: Tensor, m: int, s: int) -> Tensor:
    return MaxPool.apply(x, m, s)
