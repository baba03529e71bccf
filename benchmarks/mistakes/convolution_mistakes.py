"""Convolutions with a mistake; the right ones stand in convolution.py."""

from typing import Any

import torch.nn.functional as T
from torch import Tensor

from .convolution import (
    BIASED,
    NONE,
    ONE,
    PLAIN,
    SQUARE,
    TWO,
    Pair,
    conv,
    padded,
    right,
    to_w,
    to_x,
    transposed,
    true_conv,
    true_right,
)
from .sample import Sample, normal, rule


def seen_as(kernel):
    """The gradient of x through another kernel."""

    def backward(ctx: Any, delta: Tensor, *, stride=ONE, pad=NONE, dilation=ONE):
        x, w = ctx.saved_tensors
        return to_x(delta, x, kernel(w), stride, pad, dilation, 1), to_w(delta, x, w, stride, pad, dilation, 1)

    return backward


def then(to_x_or_w: int, change):
    """The gradient of one input, changed."""

    def backward(ctx: Any, delta: Tensor, **geometry: Any):
        gradients = list(right(ctx, delta, **geometry))
        gradients[to_x_or_w] = change(gradients[to_x_or_w], delta)
        return tuple(gradients)

    return backward


def with_another_geometry(**other: Any):
    """The gradient of x with other settings."""

    def backward(ctx: Any, delta: Tensor, **geometry: Any):
        return right(ctx, delta, **(geometry | other))[0], right(ctx, delta, **geometry)[1]

    return backward


def exchanged(ctx: Any, delta: Tensor, *, stride=ONE, pad=NONE, dilation=ONE):
    x, w = ctx.saved_tensors
    return to_x(delta, x, w, stride, pad, dilation, 1), to_w(delta, x, w, dilation, pad, stride, 1)


def height_for_width(ctx: Any, delta: Tensor, *, pad=ONE):
    x, w = ctx.saved_tensors
    H = x.shape[2]
    full = to_x(delta, padded(x, pad), w, ONE, NONE, ONE, 1)
    return full[..., pad[0] : pad[0] + H, pad[1] : pad[1] + H], to_w(delta, x, w, ONE, pad, ONE, 1)


def border(ctx: Any, delta: Tensor, *, pad=ONE):
    x, w = ctx.saved_tensors
    return to_x(delta, x, w, ONE, pad, ONE, 1, start=(pad[0] - 1, pad[1])), to_w(delta, x, w, ONE, pad, ONE, 1)


def rest_in_front(ctx: Any, delta: Tensor, *, stride: Pair):
    """A stride may leave rows and columns at the end that no window reaches; here they are put in front."""
    x, w = ctx.saved_tensors
    reached = [(e - 1) * s + m for e, s, m in zip(delta.shape[2:], stride, w.shape[2:], strict=True)]
    rest = [whole - part for whole, part in zip(x.shape[2:], reached, strict=True)]
    small = to_x(delta, x[..., : reached[0], : reached[1]], w, stride, NONE, ONE, 1)
    return T.pad(small, (rest[1], 0, rest[0], 0)), to_w(delta, x, w, stride, NONE, ONE, 1)


def last_of_dilated(ctx: Any, delta: Tensor, *, stride: Pair):
    """dL/dw as a convolution of x with the dilated delta: its first rows are the kernel's, not its last."""
    x, w = ctx.saved_tensors
    all_offsets = T.conv2d(x.transpose(0, 1), delta.transpose(0, 1), dilation=stride).transpose(0, 1)
    return to_x(delta, x, w, stride, NONE, ONE, 1), all_offsets[..., -w.shape[2] :, -w.shape[3] :]


def bias_inside_the_kernels_branch(ctx: Any, delta: Tensor):
    x, w = ctx.saved_tensors
    to_kernel = to_bias = None
    if ctx.needs_input_grad[1]:
        to_kernel = to_w(delta, x, w, ONE, NONE, ONE, 1)
        to_bias = delta.sum((0, 2, 3))
    return to_x(delta, x, w, ONE, NONE, ONE, 1), to_kernel, to_bias


def true_twice(ctx: Any, delta: Tensor):
    x, w = ctx.saved_tensors
    return to_x(delta, x, w.flip(2, 3).flip(2, 3), ONE, NONE, ONE, 1), true_right(ctx, delta)[1]


def true_kernel_as_it_comes(ctx: Any, delta: Tensor):
    x, w = ctx.saved_tensors
    return true_right(ctx, delta)[0], to_w(delta, x, w, ONE, NONE, ONE, 1)


def transposed_at_stride_1(ctx: Any, delta: Tensor, *, stride=ONE):
    x, w = ctx.saved_tensors
    return T.conv2d(delta, w, stride=stride), to_w(x, delta, w, ONE, NONE, ONE, 1)


def mean_over_batch(gradient: Tensor, delta: Tensor) -> Tensor:
    return gradient / len(delta)


CHANNELS = normal((2, 3, 4, 5), (3, 3, 2, 2))

SAMPLES = [
    Sample(
        "conv2d: kernel not rotated",
        rule(conv, seen_as(lambda w: w.flip(2, 3))),
        PLAIN,
        "kernel not rotated, or rotated twice",
        17,
    ),
    Sample(
        "conv2d: gradient of the kernel reversed",
        rule(conv, then(1, lambda g, delta: g.flip(2, 3)), stride=TWO),
        SQUARE,
        "kernel not rotated, or rotated twice",
        17,
    ),
    Sample("conv2d: kernel transposed", rule(conv, seen_as(lambda w: w.mT)), SQUARE, "kernel transposed in space", 17),
    Sample(
        "conv2d: gradient of the kernel transposed",
        rule(conv, then(1, lambda g, delta: g.mT), pad=ONE),
        SQUARE,
        "kernel transposed in space",
        17,
    ),
    Sample(
        "conv2d: maps exchanged", rule(conv, seen_as(lambda w: w.transpose(0, 1))), CHANNELS, "channels exchanged", 18
    ),
    Sample(
        "conv2d: maps of the kernel's gradient exchanged",
        rule(conv, then(1, lambda g, delta: g.transpose(0, 1))),
        CHANNELS,
        "channels exchanged",
        18,
    ),
    Sample("conv2d: height for width", rule(conv, height_for_width, pad=ONE), SQUARE, "height for width", 16),
    Sample("conv2d: padding cut off by one", rule(conv, border, pad=ONE), PLAIN, "off by one at the border", 14),
    Sample(
        "conv2d: stride forgotten",
        rule(conv, with_another_geometry(stride=ONE), stride=TWO),
        normal((1, 2, 6, 5), (2, 2, 3, 2)),
        "stride forgotten",
        15,
    ),
    Sample(
        "conv_transpose2d: stride forgotten in the kernel's gradient",
        rule(transposed, transposed_at_stride_1, stride=TWO),
        normal((2, 2, 2, 3), (2, 2, 3, 2)),
        "stride forgotten",
        15,
    ),
    Sample(
        "conv2d: dilation forgotten",
        rule(conv, with_another_geometry(dilation=ONE), dilation=TWO),
        normal((1, 2, 7, 5), (2, 2, 3, 2)),
        "dilation forgotten",
        15,
    ),
    Sample(
        "conv2d: stride and dilation exchanged",
        rule(conv, exchanged, stride=TWO),
        normal((1, 2, 9, 9), (2, 2, 3, 3)),
        "stride and dilation exchanged",
        15,
    ),
    Sample(
        "conv2d: rest of the stride in front",
        rule(conv, rest_in_front, stride=TWO),
        normal((1, 2, 6, 6), (2, 2, 3, 3)),
        "moved by rows or columns",
        14,
    ),
    Sample(
        "conv2d: rest of the stride in the kernel's gradient, where there is none",
        rule(conv, last_of_dilated, stride=TWO),
        normal((1, 2, 5, 7), (2, 2, 3, 3)),
        "moved by rows or columns",
        14,
    ),
    Sample("conv2d: kernel averaged", rule(conv, then(1, mean_over_batch)), PLAIN, "averaged, not summed", 19),
    Sample("conv2d: bias averaged", rule(conv, then(2, mean_over_batch)), BIASED, "averaged, not summed", 19),
    Sample(
        "conv2d: bias of one position",
        rule(conv, then(2, lambda g, delta: delta[..., 0, 0].sum(0))),
        BIASED,
        "bias not summed",
        19,
    ),
    Sample(
        "conv2d: bias not summed where J = O",
        rule(conv, then(2, lambda g, delta: delta)),
        BIASED,
        "bias not summed",
        19,
    ),
    Sample(
        "conv2d: bias only with the kernel",
        rule(conv, bias_inside_the_kernels_branch),
        BIASED,
        "wrong where another input is frozen",
        19,
    ),
    Sample(
        "true convolution: kernel rotated twice",
        rule(true_conv, true_twice),
        PLAIN,
        "kernel not rotated, or rotated twice",
        17,
    ),
    Sample(
        "true convolution: gradient of the kernel not rotated",
        rule(true_conv, true_kernel_as_it_comes),
        PLAIN,
        "kernel not rotated, or rotated twice",
        17,
    ),
]
