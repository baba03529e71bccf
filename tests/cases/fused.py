"""Neighbours that are derived together; PyTorch's functions one after the other stand beside them."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as T
from torch import Tensor

from tests.cases.make import ORACLES, Case, distinct, fixed, normal, together
from tests.cases.norm import batch_norm, statistics

PHI: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(T, name) for name in ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "hardswish")},
    **{name: getattr(T, name) for name in ("leaky_relu", "elu", "mish")},
    "gelu_tanh": lambda z: T.gelu(z, approximate="tanh"),
}
NORM = ("training", "momentum", "eps")


def batch_norm_activation(x: Tensor, *settings: Any, activation: str = "relu", **norm: Any) -> Tensor:
    return PHI[activation](batch_norm(x, *settings, **norm))


def batch_norm_activation_conv2d(
    x: Tensor, mean: Any, var: Any, gamma: Any, beta: Any, w: Tensor, b: Any, activation: str = "relu", **more: Any
) -> Tensor:
    norm = {name: more.pop(name) for name in NORM if name in more}
    return T.conv2d(PHI[activation](batch_norm(x, mean, var, gamma, beta, **norm)), w, b, **more)


def activation_conv2d(x: Tensor, activation: str, w: Tensor, b: Any, **more: Any) -> Tensor:
    return T.conv2d(PHI[activation](x), w, b, **more)


ORACLES |= {
    "relu_bits": T.relu,
    "batch_norm_activation": batch_norm_activation,
    "batch_norm_activation_conv2d": batch_norm_activation_conv2d,
    "activation_conv2d": activation_conv2d,
}

BATCH_NORM_ACTIVATION = [
    Case(
        "batch_norm_activation",
        f"{activation}, {name}",
        together(normal(*x), statistics(x[1]) if given else fixed(None, None), *weights),
        {"training": not given, "activation": activation, **kwargs},
    )
    for activation, name, x, given, weights, kwargs in [
        ("relu", "images", (2, 3, 4, 3), False, (normal(3), normal(3)), {}),
        ("relu", "matrix, no bias", (5, 3), False, (normal(3), fixed(None)), {"eps": 0.1}),
        ("gelu", "images, no weight", (2, 3, 2, 3), False, (fixed(None), normal(3)), {}),
        ("gelu_tanh", "sequence, no weight, no bias", (3, 2, 4), False, (), {}),
        ("silu", "evaluation, images", (2, 3, 4, 3), True, (normal(3), normal(3)), {}),
        ("relu", "evaluation, images, no bias", (2, 3, 2, 3), True, (normal(3), fixed(None)), {}),
        ("sigmoid", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("tanh", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("relu6", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("hardswish", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("leaky_relu", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("elu", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
        ("mish", "images", (2, 2, 3, 2), False, (normal(2), normal(2)), {}),
    ]
]

BATCH_NORM_ACTIVATION_CONV2D = [
    Case(
        "batch_norm_activation_conv2d",
        f"{activation}, {name}",
        together(normal(*x), statistics(x[1]) if given else fixed(None, None), *weights),
        {"training": not given, "activation": activation, **kwargs},
    )
    for activation, name, x, given, weights, kwargs in [
        (
            "relu",
            "3x3, padding",
            (2, 3, 4, 5),
            False,
            (normal(3), normal(3), normal(2, 3, 3, 3), normal(2)),
            {"padding": 1},
        ),
        (
            "gelu",
            "stride, no bias",
            (2, 2, 5, 6),
            False,
            (fixed(None), normal(2), normal(3, 2, 3, 2), fixed(None)),
            {"stride": 2, "eps": 0.1},
        ),
        (
            "silu",
            "groups, dilation",
            (2, 4, 5, 5),
            False,
            (normal(4), normal(4), normal(4, 2, 2, 2), normal(4)),
            {"groups": 2, "dilation": (2, 1)},
        ),
        (
            "relu",
            "evaluation, same",
            (2, 3, 4, 5),
            True,
            (normal(3), normal(3), normal(2, 3, 3, 3), normal(2)),
            {"padding": "same"},
        ),
        (
            "relu",
            "same, an odd pixel",
            (2, 2, 4, 5),
            False,
            (normal(2), normal(2), normal(2, 2, 2, 2), normal(2)),
            {"padding": "same"},
        ),
    ]
]

ACTIVATION_CONV2D = [
    Case("activation_conv2d", f"{activation}, {name}", together(normal(*x), fixed(activation), *weights), kwargs)
    for activation, name, x, weights, kwargs in [
        ("gelu", "3x3, padding", (2, 3, 4, 5), (normal(2, 3, 3, 3), normal(2)), {"padding": 1}),
        ("silu", "unbatched", (3, 4, 5), (normal(2, 3, 2, 2), normal(2)), {}),
        ("relu", "stride, no bias", (2, 3, 5, 4), (normal(2, 3, 2, 3), fixed(None)), {"stride": 2}),
        ("hardswish", "same, an odd pixel", (2, 2, 4, 5), (normal(2, 2, 2, 3), normal(2)), {"padding": "same"}),
    ]
]

RELU_BITS = [
    Case("relu_bits", str(x), normal(*x)) for x in [(3,), (2, 8), (2, 3, 5), (2, 3, 4, 5), (2, 2, 3, 1, 2), (), (16,)]
]


def activated_then_pooled(x: Tensor, activation: str, *how: Any, **more: Any) -> Tensor:
    return T.max_pool2d(getattr(T, activation)(x), *how, **more)


def convolved_then_pooled(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    kernel_size: Any = 2,
    pool_stride: Any = None,
) -> Tensor:
    return T.avg_pool2d(T.conv2d(x, w, b, stride, padding, dilation, groups), kernel_size, pool_stride)


ORACLES |= {"activation_max_pool2d": activated_then_pooled, "conv2d_avg_pool2d": convolved_then_pooled}

ACTIVATION_MAX_POOL2D = [
    Case("activation_max_pool2d", f"{phi}, {name}", together(distinct(*x), fixed(phi, *how)), kwargs)
    for phi, name, x, how, kwargs in [
        ("sigmoid", "tiles", (2, 2, 6, 4), (2,), {}),
        ("tanh", "pixels over", (2, 2, 5, 5), (2,), {"ceil_mode": True}),
        ("relu", "overlap", (2, 2, 7, 6), (3, 2, 1), {}),
        ("sigmoid", "dilation", (1, 2, 8, 7), ((3, 2), (2, 1), 0, (2, 3)), {}),
        ("relu", "unbatched", (2, 6, 5), (2,), {}),
        ("relu6", "tiles", (2, 2, 6, 40), (2,), {}),
    ]
]


def pooled(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool, *how: Any) -> Case:
    b = normal(w[0]) if bias else fixed(None)
    return Case("conv2d_avg_pool2d", name, together(normal(*x), normal(*w), b, fixed(*how)))


CONV2D_AVG_POOL2D = [
    pooled("plain", (2, 3, 8, 6), (4, 3, 3, 3), True),
    pooled("no bias, windows that overlap", (2, 2, 8, 9), (3, 2, 2, 3), False, 1, 1, 1, 1, (3, 2), (2, 1)),
    pooled("windows with gaps, pixels that none sees", (2, 2, 9, 12), (3, 2, 2, 1), True, 1, 0, 1, 1, 2, 4),
    pooled("stride, padding, dilation", (2, 2, 14, 12), (3, 2, 3, 2), True, (2, 3), (2, 1), (1, 2)),
    pooled("groups", (2, 4, 7, 6), (6, 2, 2, 2), True, 2, 1, 2, 2, 2, 1),
    pooled("padding same, even kernel", (2, 2, 6, 5), (3, 2, 2, 4), True, 1, "same", (2, 1), 1, 2),
    pooled("unbatched, padding valid, window of 1", (2, 5, 4), (3, 2, 3, 2), False, 1, "valid", 1, 1, (1, 3)),
]
