"""Losses."""

import torch
from torch import Tensor

from tests.cases.make import Case, Make, fixed, normal, together


def classes(*shape: int, C: int, ignore: int | None = None) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        t = torch.randint(C, shape, generator=g)
        if ignore is not None:
            t.view(-1)[::3] = ignore
        return (t,)

    return make


def probabilities(*shape: int) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        return (torch.rand(shape, generator=g, dtype=torch.float64).softmax(1).requires_grad_(),)

    return make


def log_probabilities(*shape: int) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        z = torch.randn(shape, generator=g, dtype=torch.float64)
        return (z.log_softmax(1 if z.ndim > 1 else 0).requires_grad_(),)

    return make


WEIGHT = torch.tensor([0.5, 2.0, 0.25, 1.5], dtype=torch.float64)

CROSS_ENTROPY = [
    Case("cross_entropy", f"{target}, {settings}", together(normal(5, 4), make), settings)
    for target, make in [("classes", classes(5, C=4)), ("probabilities", probabilities(5, 4))]
    for settings in [
        {},
        {"reduction": "sum"},
        {"reduction": "none", "label_smoothing": 0.1},
        {"weight": WEIGHT},
        {"weight": WEIGHT, "label_smoothing": 0.3},
        {"weight": WEIGHT, "label_smoothing": 1.0, "reduction": "none"},
    ]
] + [
    Case("cross_entropy", name, together(*makes), settings)
    for name, makes, settings in [
        ("ignore", (normal(6, 4), classes(6, C=4, ignore=-100)), {}),
        ("ignore a class", (normal(6, 4), classes(6, C=4)), {"ignore_index": 2, "weight": WEIGHT}),
        ("ignore, smoothing", (normal(6, 4), classes(6, C=4, ignore=-1)), {"ignore_index": -1, "label_smoothing": 0.2}),
        ("images", (normal(2, 4, 3, 2), classes(2, 3, 2, C=4, ignore=-100)), {"weight": WEIGHT}),
        ("images, smoothing", (normal(2, 4, 3, 2), classes(2, 3, 2, C=4)), {"weight": WEIGHT, "label_smoothing": 0.1}),
        ("images, probabilities", (normal(2, 4, 3), probabilities(2, 4, 3)), {"weight": WEIGHT}),
        ("one sample", (normal(4), classes(C=4)), {"reduction": "none"}),
        ("one sample, probabilities", (normal(4), fixed(WEIGHT / 4.25)), {"label_smoothing": 0.1}),
    ]
]

NLL_LOSS = [
    Case("nll_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (log_probabilities(5, 4), classes(5, C=4)), {}),
        ("sum", (log_probabilities(5, 4), classes(5, C=4)), {"reduction": "sum", "weight": WEIGHT}),
        ("none", (log_probabilities(5, 4), classes(5, C=4, ignore=-100)), {"reduction": "none"}),
        ("weight, ignore", (log_probabilities(6, 4), classes(6, C=4)), {"weight": WEIGHT, "ignore_index": 1}),
        ("images", (log_probabilities(2, 4, 3, 2), classes(2, 3, 2, C=4, ignore=-100)), {"weight": WEIGHT}),
        ("one sample", (log_probabilities(4), classes(C=4)), {}),
    ]
]

MSE_LOSS = [
    Case("mse_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (normal(3, 4), normal(3, 4)), {}),
        ("sum", (normal(3, 4), normal(3, 4)), {"reduction": "sum"}),
        ("none", (normal(2, 3, 4), normal(2, 3, 4)), {"reduction": "none"}),
        ("weight", (normal(2, 4), normal(2, 4)), {"weight": WEIGHT.expand(2, 4)}),
    ]
]

L1_LOSS = [
    Case("l1_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (normal(3, 4), normal(3, 4)), {}),
        ("none", (normal(2, 3, 4), normal(2, 3, 4)), {"reduction": "none"}),
        ("images", (normal(2, 3, 4, 2), normal(2, 3, 4, 2)), {"reduction": "sum"}),
        ("weight", (normal(2, 4), normal(2, 4)), {"weight": WEIGHT.expand(2, 4)}),
    ]
]

SMOOTH_L1_LOSS = [
    Case("smooth_l1_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (normal(3, 4), normal(3, 4)), {}),
        ("sum, beta 2", (normal(3, 4), normal(3, 4)), {"reduction": "sum", "beta": 2.0}),
        ("beta 0", (normal(3, 4), normal(3, 4)), {"beta": 0}),
        ("number", (normal(), normal()), {"beta": 10}),
        ("images, beta 0.5", (normal(2, 3, 4, 2), normal(2, 3, 4, 2)), {"reduction": "none", "beta": 0.5}),
    ]
]

BINARY_CROSS_ENTROPY = [
    Case("binary_cross_entropy_with_logits", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (normal(3, 4), probabilities(3, 4)), {}),
        ("none", (normal(2, 3, 4), probabilities(2, 3, 4)), {"reduction": "none"}),
        ("any target", (normal(3, 4), normal(3, 4)), {"reduction": "sum"}),
        ("weight", (normal(3, 4), probabilities(3, 4)), {"weight": WEIGHT}),
        ("fixed target, pos_weight", (normal(2, 4), fixed(WEIGHT.gt(1).double().expand(2, 4))), {"pos_weight": WEIGHT}),
        (
            "images, weight, pos_weight",
            (normal(2, 4, 3, 2), probabilities(2, 4, 3, 2)),
            {"weight": WEIGHT[:3, None], "pos_weight": WEIGHT[:, None, None]},
        ),
    ]
]
