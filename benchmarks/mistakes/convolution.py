r"""Convolutions.

With padded x, strides s t and dilations d e, within each group

$$ y_{n o i j} = \sum_{c p q} w_{o c p q} x_{n, c, i s + p d, j t + q e} $$

Each (p, q) takes a window of x, of the output's extent. The gradients go through the same windows:

$$ \frac{\partial L}{\partial w_{o c p q}} = \sum_{n i j} \delta_{n o i j} x_{n, c, i s + p d, j t + q e} $$

and what delta and w say of a window's x is added to the window of the gradient.
"""

from itertools import product
from typing import Any

import torch.nn.functional as T
from torch import Tensor, einsum

from .sample import Sample, normal, rule

Pair = tuple[int, int]
ONE, NONE = (1, 1), (0, 0)


def window(x: Tensor, at: Pair, extent: Pair, s: Pair, d: Pair) -> Tensor:
    (h, k), (I, J) = (at[0] * d[0], at[1] * d[1]), extent
    return x[..., h : h + (I - 1) * s[0] + 1 : s[0], k : k + (J - 1) * s[1] + 1 : s[1]]


def padded(x: Tensor, pad: Pair) -> Tensor:
    return T.pad(x, (pad[1], pad[1], pad[0], pad[0]))


def to_x(
    delta: Tensor, x: Tensor, w: Tensor, stride: Pair, pad: Pair, dilation: Pair, groups: int, start: Pair | None = None
) -> Tensor:
    N, _, I, J = delta.shape
    delta, w = delta.reshape(N, groups, -1, I, J), w.reshape(groups, -1, *w.shape[1:])
    full = padded(x.new_zeros(x.shape), pad).unflatten(1, (groups, -1))
    for p, q in product(range(w.shape[-2]), range(w.shape[-1])):
        window(full, (p, q), (I, J), stride, dilation).add_(einsum("ngoij,goc->ngcij", delta, w[..., p, q]))
    h, k = start or pad
    return full.flatten(1, 2)[..., h : h + x.shape[2], k : k + x.shape[3]]


def to_w(delta: Tensor, x: Tensor, w: Tensor, stride: Pair, pad: Pair, dilation: Pair, groups: int) -> Tensor:
    N, _, I, J = delta.shape
    delta, x = delta.reshape(N, groups, -1, I, J), padded(x, pad).unflatten(1, (groups, -1))
    gradient = w.new_zeros(groups, w.shape[0] // groups, *w.shape[1:])
    for p, q in product(range(w.shape[-2]), range(w.shape[-1])):
        gradient[..., p, q] = einsum("ngoij,ngcij->goc", delta, window(x, (p, q), (I, J), stride, dilation))
    return gradient.flatten(0, 1)


def conv(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None = None, *, stride=ONE, pad=NONE, dilation=ONE, groups=1):
    ctx.save_for_backward(x, w)
    return T.conv2d(x, w, b, stride, pad, dilation, groups)


def right(ctx: Any, delta: Tensor, *, stride=ONE, pad=NONE, dilation=ONE, groups=1):
    x, w = ctx.saved_tensors
    geometry = (stride, pad, dilation, groups)
    to_b = delta.sum((0, 2, 3)) if len(ctx.needs_input_grad) == 3 else None
    return (to_x(delta, x, w, *geometry), to_w(delta, x, w, *geometry), to_b)[: len(ctx.needs_input_grad)]


def true_conv(ctx: Any, x: Tensor, w: Tensor):
    ctx.save_for_backward(x, w)
    return T.conv2d(x, w.flip(2, 3))


def true_right(ctx: Any, delta: Tensor):
    x, w = ctx.saved_tensors
    plain = (ONE, NONE, ONE, 1)
    return to_x(delta, x, w.flip(2, 3), *plain), to_w(delta, x, w, *plain).flip(2, 3)


def transposed(ctx: Any, x: Tensor, w: Tensor, *, stride=ONE):
    ctx.save_for_backward(x, w)
    return T.conv_transpose2d(x, w, stride=stride)


def transposed_right(ctx: Any, delta: Tensor, *, stride=ONE):
    x, w = ctx.saved_tensors
    return T.conv2d(delta, w, stride=stride), to_w(x, delta, w, stride, NONE, ONE, 1)


def conv1d(x: Tensor, w: Tensor) -> Tensor:
    return rule(conv, right, stride=(1, 2))(x.unsqueeze(2), w.unsqueeze(2)).squeeze(2)


PLAIN = normal((2, 2, 4, 3), (3, 2, 3, 2))
SQUARE = normal((1, 2, 5, 5), (2, 2, 3, 3))
BIASED = normal((2, 2, 4, 5), (4, 2, 2, 2), (4,))  # O = J = 4: a gradient that is not summed has a shape that passes
TWO = (2, 2)

SAMPLES = [
    Sample("conv2d", rule(conv, right), PLAIN),
    Sample("conv2d: strides and padding", rule(conv, right, stride=(2, 1), pad=(1, 2)), PLAIN),
    Sample("conv2d: a stride that leaves a rest", rule(conv, right, stride=TWO), normal((1, 2, 6, 6), (2, 2, 3, 3))),
    Sample("conv2d: dilation", rule(conv, right, stride=(1, 2), dilation=(2, 1)), normal((1, 2, 6, 5), (2, 2, 3, 2))),
    Sample("conv2d: groups", rule(conv, right, pad=ONE, groups=2), normal((1, 4, 3, 4), (4, 2, 2, 3))),
    Sample("conv2d: depthwise", rule(conv, right, groups=3), normal((2, 3, 4, 5), (3, 1, 3, 2))),
    Sample("conv2d: bias", rule(conv, right), BIASED),
    Sample("conv1d", conv1d, normal((2, 3, 7), (2, 3, 3))),
    Sample("true convolution", rule(true_conv, true_right), PLAIN),
    Sample("conv_transpose2d", rule(transposed, transposed_right, stride=TWO), normal((2, 2, 2, 3), (2, 2, 3, 2))),
]
