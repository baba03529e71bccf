"""Normalisation, softmax and losses where their domain ends, at a NaN, and before an operation in place."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F
from tests.cases import CASES, Case
from tests.checks import EXACT, random_like

OPS = ("batch_norm", "layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy", "nll_loss")
LOSSES = ("mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits")
NORMS = [case for case in CASES if case.op in OPS[:3]]
OTHERS = [case for op in (*OPS[3:], *LOSSES) for case in [case for case in CASES if case.op == op][:2]]


def r(*shape: int, seed: int = 1) -> Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


def tell(f: Callable[..., Tensor], *leaves: Tensor) -> list[Tensor] | Exception:
    """f's value and gradients, or what it raised."""
    given = [t.clone().requires_grad_() for t in leaves]
    try:
        y = f(*given)
        gradients = torch.autograd.grad(y, given, torch.full_like(y, 0.7), allow_unused=True, materialize_grads=True)
    except Exception as error:
        return error
    return [y.detach(), *gradients]


def alike(what: Any, f: Callable[..., Tensor], *leaves: Tensor) -> None:
    """Where PyTorch computes, its numbers; where it refuses, numbers or a refusal by name."""
    theirs, ours = (tell(lambda *t, m=m: f(m, *t), *leaves) for m in (T, F))
    if isinstance(ours, Exception):
        assert isinstance(theirs, Exception), (what, ours)
        assert isinstance(ours, ValueError | TypeError), (what, ours)
    elif not isinstance(theirs, Exception):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12, equal_nan=True, msg=lambda m: f"{what}: {m}")


SHAPES = [
    *((0, 3), (2, 0), (0, 0), (1, 3), (1, 1), (2, 1)),
    *((0, 4, 3), (2, 0, 3), (2, 4, 0), (1, 4, 1), (1, 1, 1)),
    *((0, 4, 2, 2), (2, 0, 2, 2), (2, 4, 0, 2), (2, 4, 2, 0), (1, 4, 1, 1), (2, 4, 1, 1), (1, 4, 0, 0)),
    *((0, 4, 1, 2, 2), (2, 4, 2, 1, 0), (), (0,), (3,)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms_of_little_or_nothing(shape: Sequence[int]) -> None:
    x, C = r(*shape), shape[1] if len(shape) > 1 else 3
    for w, b in product((True, False), repeat=2):
        leaves = [r(C)] * (w + b)

        def split(given: Sequence[Tensor], w: bool = w, b: bool = b) -> tuple[Tensor | None, Tensor | None]:
            return given[0] if w else None, given[-1] if b else None

        for training, tracked in product((True, False), repeat=2):

            def batch(m: Any, x: Tensor, *given: Tensor, training: bool = training, tracked: bool = tracked) -> Tensor:
                running = [torch.full((C,), v, dtype=x.dtype) if tracked else None for v in (0.3, 2.0)]
                y = m.batch_norm(x, *running, *split(given), training)
                return y.sum() + running[1].sum() if tracked else y

            alike((training, tracked, w, b), batch, x, *leaves)
        for groups in (1, 2, 4, 0):
            alike((groups, w, b), lambda m, x, *given, G=groups: m.group_norm(x, G, *split(given)), x, *leaves)
        for axes in range(min(len(shape), 3)):
            normed = shape[len(shape) - axes - 1 :]
            own = [r(*normed)] * (w + b)
            alike((normed, w, b), lambda m, x, *given, s=normed: m.layer_norm(x, s, *split(given)), x, *own)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax_and_losses_of_little_or_nothing(shape: Sequence[int]) -> None:
    x = r(*shape)
    for op, dim in product(("softmax", "log_softmax"), (0, 1, -1, 4)):
        alike((op, dim), lambda m, x, op=op, dim=dim: getattr(m, op)(x, dim), x)
    for op, reduction in product(LOSSES, ("none", "mean", "sum")):
        alike((op, reduction), lambda m, x, op=op, n=reduction: getattr(m, op)(x, x.detach() / 2, reduction=n), x)
    if not shape:
        return
    C = shape[1] if len(shape) > 1 else shape[0]
    t = torch.zeros((shape[0], *shape[2:]) if len(shape) > 1 else (), dtype=torch.int64)
    for reduction, weight, ignored in product(
        ("none", "mean", "sum"), (None, r(C).abs(), torch.zeros(C).double()), (-100, 0)
    ):
        how = {"reduction": reduction, "weight": weight, "ignore_index": ignored}
        for op in ("cross_entropy", "nll_loss"):
            alike((op, how), lambda m, x, op=op, how=how: getattr(m, op)(x, t, **how), x)
        if C:  # with none PyTorch divides by it, and an ignored sample's loss is no number
            alike(("smooth", how), lambda m, x, how=how: m.cross_entropy(x, t, label_smoothing=0.1, **how), x)


W, PROBABILITIES, CLASSES = r(4, seed=3), r(2, 4, 3, 2).softmax(1), torch.arange(12).reshape(2, 3, 2) % 4
WEIGHT = torch.tensor([1.0, 0, 2, 3]).double()  # a class without weight
NAN: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("batch_norm", {"training": True}, (None, None, W, W)),
    ("batch_norm", {}, (W, W.abs(), W, W)),
    ("batch_norm", {}, (W, torch.tensor([1, torch.nan, torch.inf, 2]).double())),
    ("layer_norm", {}, ((4, 3, 2),)),
    ("layer_norm", {}, ((3, 2), r(3, 2), r(3, 2))),
    ("group_norm", {}, (2, W, W)),
    ("group_norm", {}, (4,)),
    *((op, {}, (dim,)) for op in ("softmax", "log_softmax") for dim in (0, 1, 3)),
    *((op, {"reduction": n}, (PROBABILITIES,)) for op in LOSSES for n in ("none", "sum", "mean")),
    ("smooth_l1_loss", {"beta": 0.5, "reduction": "none"}, (PROBABILITIES,)),
    ("mse_loss", {"weight": (PROBABILITIES > 0.2).double()}, (PROBABILITIES,)),
    ("binary_cross_entropy_with_logits", {"pos_weight": WEIGHT.view(4, 1, 1)}, (PROBABILITIES,)),
    *(
        (op, {"reduction": n, "weight": weight, "ignore_index": ignored}, (CLASSES,))
        for op in ("cross_entropy", "nll_loss")
        for n, weight, ignored in product(("none", "sum", "mean"), (None, WEIGHT), (-100, 1))
    ),
    *(
        ("cross_entropy", {"reduction": n, "weight": WEIGHT, "label_smoothing": 0.1}, (target,))
        for n, target in product(("none", "sum", "mean"), (CLASSES, PROBABILITIES))
    ),
]


@pytest.mark.parametrize(("op", "how", "args"), NAN, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_no_number_spreads_as_far_as_pytorchs(op: str, how: dict[str, Any], args: tuple[Any, ...]) -> None:
    """To the map, the sample, the group, the row, the number that it is of; an ignored one to nothing."""
    for where, v in product(((0, 1, 0, 0), (1, 3, 1, 0), (0, slice(None), 2, 1)), (torch.nan, torch.inf)):
        x = r(2, 4, 3, 2, seed=5)
        x[where] = v
        alike((where, v), lambda m, x: getattr(m, op)(x, *args, **how), x)


def number_set(y: Tensor) -> Tensor:
    if y.ndim:
        y[0] = 0
    return y


def part_of_a_view(y: Tensor) -> Tensor:
    (y[..., :1] if y.ndim else y.view(1)).mul_(3)
    return y


FOLLOWERS = [lambda y: F.relu(y, inplace=True), lambda y: F.leaky_relu(y, 0.1, True), lambda y: y.add_(1)]
FOLLOWERS += [number_set, part_of_a_view]


def eager(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).square().sum(), x)[0]


def twice(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (dx,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(dx.square().sum(), x)[0]


def stacked(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return eager(torch.func.vmap(f), torch.stack([x, 2 * x]))


def each_of_a_stack(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda x: f(x).square().sum()))(torch.stack([x, 2 * x]))


def tangent(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.jvp(f, (x,), (x.cos(),))[1]


@pytest.mark.parametrize("case", [*NORMS, *OTHERS], ids=str)
def test_any_operation_in_place_may_follow(case: Case) -> None:
    """That may follow PyTorch's: where a softmax's own output is kept, none may."""
    x, *rest = (a.detach() if isinstance(a, Tensor) else a for a in case.inputs())
    some = product((FOLLOWERS[0], number_set), (twice, stacked, each_of_a_stack, tangent))
    for follow, way in [*product(FOLLOWERS, (eager,)), *some]:

        def changed(f: Callable[..., Tensor], follow: Any = follow, way: Any = way) -> Tensor:
            return way(lambda x: follow(f(x, *rest, **case.kwargs)), x)

        try:
            theirs = changed(case.torchs)
        except RuntimeError:
            assert "softmax" in case.op
            continue
        assert (changed(case.ours) - theirs).norm() <= EXACT * max(theirs.norm(), 1), (follow, way)
