"""Find the mistake in the backward pass of convolution.

The forward pass is right. `backward` has exactly one mistake, one that people make. Find it, say which gradient is
wrong, and why, and mend it.

    y[n,o,i,j] = sum_cpq x[n,c, i + p, j + q] w[o,c,p,q]

(Lecture 002, eq. 2.3 and 2.4.)

Shapes: x [N, C, H, W], w [O, C, P, Q], y and delta [N, O, I, J] with I = H - P + 1, J = W - Q + 1.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

INPUTS = ((2, 2, 5, 6), (3, 2, 3, 3))


class Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return T.conv2d(x, w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        P, Q = w.shape[2:]
        padded = T.pad(delta, (Q - 1, Q - 1, P - 1, P - 1))
        dx = T.conv2d(padded, w.transpose(0, 1))
        dw = T.conv2d(x.transpose(0, 1), delta.transpose(0, 1)).transpose(0, 1)
        return dx, dw


def f(x: Tensor, w: Tensor) -> Tensor:
    return Conv2d.apply(x, w)
