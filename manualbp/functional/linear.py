"""The fully connected layer: the triple without space.

    F(x, w, delta) = sum_{n,o,i} delta[n,o] x[n,i] w[o,i]

    y[n,o]  = dF/d delta = sum_i x[n,i] w[o,i]        = x w^T
    dx[n,i] = dF/dx      = sum_o delta[n,o] w[o,i]    = delta w        (lecture 003, eq. 3.2; lecture 004, eq. 4.5)
    dw[o,i] = dF/dw      = sum_n delta[n,o] x[n,i]    = delta^T x      (lecture 003, eq. 3.3: an outer product an image)

With L(a, c) = a c^T the three are L(x, w), L(delta, w^T) and L(delta^T, x^T): one rule, its own derivative.

Shapes: x [N, I], w [O, I], b [O], y and delta [N, O].
"""

from math import prod
from typing import Any

import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.checks import INTEGERS, low_precision, require_floating
from manualbp.functional.rule import BilinearRule, run


class Linear(BilinearRule):
    """y = x w^T + b.

    dL/dx = delta w               kept: w, if dL/dx is asked for
    dL/dw = delta^T x             kept: x, if dL/dw is asked for
    dL/db[o] = sum_n delta[n,o]   (lecture 003, eq. 3.4)
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return T.linear(x, w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        BilinearRule.setup_context(ctx, inputs, output)
        x, *_ = inputs
        ctx.by_columns = x.stride() == (1, x.shape[0])  # as an image in channels_last is: dx lies as x does

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        x_needed, w_needed, b_needed = ctx.needs_input_grad
        dx = None
        if x_needed:
            dx = run(Linear, w.mT, delta, None).mT if ctx.by_columns else run(Linear, delta, w.mT, None)
        dw = run(Linear, delta.mT, x.mT, None) if w_needed else None
        db = delta.sum(0) if b_needed else None
        return dx, dw, db


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear with a backward pass by hand.

    input [..., I], weight [O, I] (or [I]: O = 1, and its axis falls away), bias [O] (or one number), all of one real
    dtype (under autocast: cast to its dtype) -> [..., O]. Kept for backward: input if the gradient of weight is asked
    for, weight if that of input is. Raises ValueError for shapes that do not fit, TypeError for complex numbers.
    Source: lecture 003, eq. 3.2-3.4; lecture 004, eq. 4.5; derivation at the head of this file.
    """
    x, w, b = low_precision("linear", input=input, weight=weight, bias=bias)
    require_floating("linear", *INTEGERS, input=x)
    if w.ndim not in (1, 2) or x.ndim == 0 or x.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"linear: input has shape {list(x.shape)} and weight {list(w.shape)}; weight must be [O, I] or [I], and "
            "input [..., I] with the same I"
        )
    matrix = w if w.ndim == 2 else w.unsqueeze(0)
    O, I = matrix.shape
    if b is not None and tuple(b.shape) not in ((O,), (1,), ()):
        raise ValueError(f"linear: bias has shape {list(b.shape)} and weight {list(w.shape)}; bias must be [O]")
    b = b.expand(O) if b is not None else None
    leading = x.shape[:-1]
    y = run(Linear, x if x.ndim == 2 else x.reshape(prod(leading), I), matrix, b)
    return y if x.ndim == 2 and w.ndim == 2 else y.reshape((*leading, *w.shape[:-1]))
