"""Normalisation."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from tests.cases.make import ORACLES, Case, Make, fixed, normal, together


def affine(y: Tensor, w: Tensor | None, b: Tensor | None, first: int) -> Tensor:
    """y w + b for w or b alone, of whose axes the first is y's axis `first`.

    With a bias alone PyTorch's functions lack a second derivative; with a weight alone their jacrev of jacrev is
    wrong.
    """
    last = y.ndim - first
    w, b = (t if t is None else t.reshape(*t.shape, *[1] * (last - t.ndim)) for t in (w, b))
    return y + b if w is None else y * w


def batch_norm(
    x: Tensor, running_mean: Any, running_var: Any, w: Tensor | None = None, b: Tensor | None = None, **settings: Any
) -> Tensor:
    if (w is None) == (b is None):
        return T.batch_norm(x, running_mean, running_var, w, b, **settings)
    return affine(T.batch_norm(x, running_mean, running_var, **settings), w, b, 1)


def layer_norm(
    x: Tensor, normalized_shape: Any, w: Tensor | None = None, b: Tensor | None = None, **settings: Any
) -> Tensor:
    if (w is None) == (b is None):
        return T.layer_norm(x, normalized_shape, w, b, **settings)
    return affine(T.layer_norm(x, normalized_shape, **settings), w, b, x.ndim - len(normalized_shape))


def group_norm(x: Tensor, num_groups: int, w: Tensor | None = None, b: Tensor | None = None, **settings: Any) -> Tensor:
    if (w is None) == (b is None):
        return T.group_norm(x, num_groups, w, b, **settings)
    return affine(T.group_norm(x, num_groups, **settings), w, b, 1)


ORACLES |= {"batch_norm": batch_norm, "layer_norm": layer_norm, "group_norm": group_norm}


def statistics(C: int) -> Make:
    """A running mean and a running variance, made anew for each call."""

    def make(g: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(C, generator=g, dtype=torch.float64), torch.rand(C, generator=g, dtype=torch.float64) + 0.5

    return make


def batch(name: str, x: Sequence[int], w: bool = True, b: bool = True, given: bool = False, **kwargs: Any) -> Case:
    running = statistics(x[1]) if given else fixed(None, None)
    weights = (normal(x[1]) if needed else fixed(None) for needed in (w, b))
    return Case("batch_norm", name, together(normal(*x), running, *weights), {"training": not given, **kwargs})


BATCH_NORM = [
    batch("matrix", (5, 3)),
    batch("sequence", (3, 2, 4)),
    batch("images", (2, 3, 4, 3)),
    batch("volumes, no bias", (2, 2, 3, 1, 2), b=False, eps=0.1),
    batch("images, no weight", (2, 3, 2, 3), w=False),
    batch("images, no weight, no bias", (3, 1, 2, 2), w=False, b=False),
    batch("evaluation, images", (2, 3, 4, 3), given=True),
    batch("evaluation, matrix, no bias", (1, 3), b=False, given=True, eps=0.1),
    batch("evaluation, sequence, no weight", (2, 3, 4), w=False, given=True),
]

LAYER_NORM = [
    Case("layer_norm", name, together(normal(*x), fixed(shape), *weights), kwargs)
    for name, x, shape, weights, kwargs in [
        ("last axis", (4, 5), (5,), (normal(5), normal(5)), {}),
        ("images", (2, 3, 2, 4), [3, 2, 4], (normal(3, 2, 4), normal(3, 2, 4)), {"eps": 0.1}),
        ("last axis of images", (2, 3, 2, 4), (4,), (normal(4), normal(4)), {}),
        ("one sample", (3, 2), (3, 2), (normal(3, 2), normal(3, 2)), {}),
        ("no bias", (3, 2, 4), (2, 4), (normal(2, 4), fixed(None)), {}),
        ("no weight", (3, 4), (4,), (fixed(None), normal(4)), {}),
        ("no weight, no bias", (3, 4), (4,), (), {}),
    ]
]

GROUP_NORM = [
    Case("group_norm", name, together(normal(*x), fixed(groups), *weights), kwargs)
    for name, x, groups, weights, kwargs in [
        ("images", (2, 6, 3, 2), 3, (normal(6), normal(6)), {}),
        ("one group", (2, 3, 2, 4), 1, (normal(3), normal(3)), {"eps": 0.1}),
        ("a group a map", (2, 3, 2, 3), 3, (normal(3), normal(3)), {}),
        ("matrix", (3, 6), 2, (normal(6), normal(6)), {}),
        ("sequence, no bias", (2, 4, 3), 2, (normal(4), fixed(None)), {}),
        ("volumes, no weight", (2, 4, 1, 2, 3), 2, (fixed(None), normal(4)), {}),
        ("images, no weight, no bias", (2, 4, 3, 2), 2, (), {}),
    ]
]
