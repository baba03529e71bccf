"""Convolution as torch.nn has it: the kernel is not rotated.

Write the backward pass of

    y[n,o,i,j] = sum_cpq x[n,c, i + p, j + q] w[o,c,p,q] + b[o]

Given delta = dL/dy, return dL/dx, dL/dw and dL/db, for any extents. Each of them is one call of T.conv2d or of
T.conv_transpose2d, or a sum: ask which outputs x[n,c,h,k] reaches, through which tap (p, q) each, and the same of
w[o,c,p,q]. The lectures rotate the kernel in the forward pass: see the exercise true_convolution. (Lecture 002, eq. 2.3
and 2.4; lecture 001, eq. 1.4 and 1.5.)

Shapes: x [N, C, H, W], w [O, C, P, Q], b [O], y and delta [N, O, I, J] with I = H - P + 1, J = W - Q + 1.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

INPUTS = ((2, 2, 5, 6), (3, 2, 3, 3), (3,))


class Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return T.conv2d(x, w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, _ = inputs
        ctx.save_for_backward(x, w)  # in backward: x, w = ctx.saved_tensors

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("write this")


def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return Conv2d.apply(x, w, b)
