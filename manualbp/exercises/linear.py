"""The fully connected layer.

Write the backward pass of

    y[n,o] = sum_i x[n,i] w[o,i] + b[o]          y = x w^T + b

Given delta = dL/dy, return dL/dx, dL/dw and dL/db, for any extents. Hold one number fixed, as w[o,i], and ask which
outputs it reaches, and by what factor. (Lecture 003, eq. 3.2 to 3.4; lecture 004, eq. 4.5.)

Shapes: x [N, I], w [O, I], b [O], y and delta [N, O].
"""

from typing import Any

import torch
from torch import Tensor

INPUTS = ((4, 3), (5, 3), (5,))


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return x @ w.T + b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, _ = inputs
        ctx.save_for_backward(x, w)  # in backward: x, w = ctx.saved_tensors

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("write this")


def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return Linear.apply(x, w, b)
