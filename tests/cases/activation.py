"""Activations and softmax."""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from tests.cases.make import ORACLES, Case, Make, normal, together

# PyTorch's own hardsigmoid has no second derivative, and its first in float64 takes 1/6 in float32.
ORACLES["hardsigmoid"] = lambda x, inplace=False: T.relu6(x + 3) / 6


def wide_normal(*shape: int) -> Make:
    """Normal with a deviation of 4: values on each side of -3, 0, 3 and 6."""

    def make(g: torch.Generator) -> tuple[Tensor]:
        return ((4 * torch.randn(shape, generator=g, dtype=torch.float64)).requires_grad_(),)

    return make


def activation(op: str, **kwargs: Any) -> Case:
    return Case(op, ", ".join(f"{name} {a}" for name, a in kwargs.items()), wide_normal(3, 5), kwargs)


SMOOTH = [
    *[activation("gelu", approximate=approximate) for approximate in ("none", "tanh")],
    *[activation("elu", alpha=alpha) for alpha in (1.0, 0.0, 0.3, 2.5, -0.7)],
    *[activation("softplus", beta=beta, threshold=threshold) for beta, threshold in ((1, 20), (2.5, 6), (-1, 3))],
    *[Case(op, "each side", wide_normal(3, 5)) for op in ("selu", "mish", "logsigmoid", "softsign")],
    *[activation("celu", alpha=alpha) for alpha in (1.0, 0.5, 2.5, -0.75)],  # PyTorch rounds alpha to float32
]
HARD = [
    *[activation("leaky_relu", negative_slope=slope) for slope in (0.01, 0.0, 2.0, -0.5)],
    activation("hardtanh", min_val=-3.5, max_val=2.0),
    activation("hardtanh"),
    *[activation(op, lambd=l) for op, l in (("hardshrink", 0.5), ("hardshrink", 3.0), ("softshrink", 0.5))],
    activation("softshrink", lambd=0.0),
    *[activation("threshold", threshold=l, value=v) for l, v in ((0.5, -2.0), (-1.0, -1.0), (-1.0, 20.0))],
    *[
        Case("prelu", name, together(wide_normal(*shape), normal(*weights)))
        for name, shape, weights in [
            ("one weight", (3, 5), (1,)),
            ("a weight a map", (2, 3, 4, 2), (3,)),
            ("a weight an input", (4, 3), (3,)),
            ("one axis", (5,), (1,)),
            ("one map", (2, 1, 3), (1,)),
            ("a number", (2, 3, 2), ()),
        ]
    ],
]
MORE = ("gelu", "silu", "elu", "softplus", "relu6", "leaky_relu", "hardsigmoid", "hardswish")
MORE = (*MORE, "selu", "celu", "mish", "logsigmoid", "softsign", "hardshrink", "softshrink")

ELEMENTWISE = [
    *[Case(op, "matrix", normal(4, 5)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "images", normal(2, 3, 4, 2)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "number", normal()) for op in ("sigmoid", "tanh", "relu")],
    *SMOOTH,
    *HARD,
    *[Case(op, "images", wide_normal(2, 3, 4, 2)) for op in MORE],
    *[Case(op, "number", normal()) for op in MORE],
    *[Case(op, f"dim {dim}", normal(3, 4, 2), {"dim": dim}) for op in ("softmax", "log_softmax") for dim in (0, 1, -1)],
    *[Case(op, "dtype", normal(3, 4), {"dim": 1, "dtype": torch.float64}) for op in ("softmax", "log_softmax")],
    *[Case(op, "number", normal(), {"dim": 0}) for op in ("softmax", "log_softmax")],
]

# The activations that have an argument `inplace`, but for `threshold`.
IN_PLACE = [
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "silu",
    "mish",
    "hardsigmoid",
    "hardswish",
]
