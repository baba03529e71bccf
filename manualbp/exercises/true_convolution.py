"""True convolution: the kernel is rotated by 180 degrees before it slides.

Write the backward pass of

    y[n,o,i,j] = sum_cpq x[n,c, i + P - 1 - p, j + Q - 1 - q] w[o,c,p,q]

Given delta = dL/dy, return dL/dx and dL/dw, for any extents. The forward pass rotates w once, by `flip`. Where does the
backward pass have to rotate what, and where do two rotations cancel? (Lecture 002, eq. 2.1 to 2.4; lecture 001, eq. 1.4
and 1.5.)

Shapes: x [N, C, H, W], w [O, C, P, Q], y and delta [N, O, I, J] with I = H - P + 1, J = W - Q + 1.
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

INPUTS = ((2, 2, 5, 6), (3, 2, 3, 3))


class TrueConvolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return T.conv2d(x, w.flip(2, 3))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)  # in backward: x, w = ctx.saved_tensors

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("write this")


def f(x: Tensor, w: Tensor) -> Tensor:
    return TrueConvolution.apply(x, w)
