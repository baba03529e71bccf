"""The gradient of every activation where x or delta is infinite or no number is PyTorch's; and integers, and no x."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from tests.cases.activation import IN_PLACE

INF, NAN = math.inf, math.nan
POINTS = [NAN, INF, -INF, 0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0, 20.0, -20.0, 100.0, -100.0]
DELTAS = [1.0, 0.0, INF, -INF, NAN]
ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    *[(op, {}) for op in ("relu", "relu_bits", "relu6", "hardtanh", "hardsigmoid", "hardswish", "hardshrink")],
    ("hardtanh", {"min_val": -3.0, "max_val": 6.0}),
    *[("leaky_relu", {"negative_slope": a}) for a in (0.01, -0.5, 2.0)],
    *[("elu", {"alpha": a}) for a in (1.0, 0.5, -0.5)],
    *[("celu", {"alpha": a}) for a in (1.0, 2.0)],
    *[("softplus", {"beta": beta, "threshold": end}) for beta, end in ((1, 20), (2, 3))],
    *[("threshold", {"threshold": end, "value": v}) for end, v in ((0.5, -1.0), (-1.0, 20.0))],
    ("hardshrink", {"lambd": -0.5}),
    ("gelu", {"approximate": "tanh"}),
    *[(op, {}) for op in ("selu", "logsigmoid", "softsign", "sigmoid", "tanh", "gelu", "silu", "mish", "softshrink")],
    ("prelu", {"weight": 0.25}),
    *[(op, {"inplace": True}) for op in ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "hardsigmoid")],
    *[(op, {"inplace": True}) for op in ("hardswish", "silu", "mish")],
]


def excepted(op: str, x: float, delta: float) -> bool:
    """Where ours is not PyTorch's, with the reason."""
    if op == "mish" and x == INF:
        return True  # the slope is 1, the limit; PyTorch's is a product of 0 and infinity
    if op == "softsign" and (math.isinf(x) or math.isinf(delta)):
        return True  # the slope is 1 / (1 + |x|)^2; PyTorch takes the difference of two, of infinity less infinity
    # Far below 0 the slope is less than the smallest number: 0 times infinity, or the sign of what is left.
    return math.isinf(delta) and op in ("softplus", "logsigmoid", "gelu", "silu", "mish") and abs(x) >= 6


def slopes(functions: Any, op: str, kwargs: dict[str, Any], x: Tensor, delta: float) -> list[float]:
    x = x.clone().requires_grad_()
    given = {k: torch.tensor([a], dtype=x.dtype) if k == "weight" else a for k, a in kwargs.items()}
    y = getattr(functions, op)(x * 1, **given)
    return grad(y, x, torch.full_like(y, delta))[0].tolist()


def near(a: float, b: float, limit: float) -> bool:
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= limit * max(1, abs(b))
    return a == b or (math.isnan(a) and math.isnan(b))


def complaints(op: str, kwargs: dict[str, Any], dtype: torch.dtype) -> Iterator[str]:
    """A number's slope may be what PyTorch gives it alone or among many: its loops differ where it is no number."""
    theirs = "relu" if op == "relu_bits" else op
    x = torch.tensor(POINTS, dtype=dtype)
    limit = 1e-7 if op == "hardsigmoid" else 32 * torch.finfo(dtype).eps
    for delta in DELTAS:
        ours = slopes(F, op, kwargs, x, delta)
        many = [slopes(T, theirs, kwargs, p.repeat(64), delta)[0] for p in x]
        alone = [slopes(T, theirs, kwargs, p.view(1), delta)[0] for p in x]
        for at, mine, *torchs in zip(POINTS, ours, many, alone, strict=True):
            if not (any(near(mine, t, limit) for t in torchs) or excepted(op, at, delta)):
                yield f"x = {at}, delta = {delta}: {mine}, PyTorch's {torchs}"


@pytest.mark.parametrize(("op", "kwargs"), ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_every_activation_by_every_delta(op: str, kwargs: dict[str, Any], dtype: torch.dtype) -> None:
    found = list(complaints(op, kwargs, dtype))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "f", [F.relu, F.relu6, F.relu_bits, F.leaky_relu, F.hardtanh, F.threshold], ids=lambda f: f.__name__
)
def test_followed_by_a_transform(f: Any) -> None:
    """The same without writing in place: what is no number and what is infinite stays where it is."""
    more = (0.5, -1.0) if f is F.threshold else ()
    x, delta = torch.tensor([NAN, 1.0, -1.0, -1.0, 0.0]), torch.tensor([2.0, NAN, INF, NAN, -INF])

    def product(x: Tensor, delta: Tensor) -> Tensor:
        return torch.func.vjp(lambda x: f(x, *more), x)[1](delta)[0]

    x2 = x.clone().requires_grad_()
    expected = grad(f(x2, *more), x2, delta)[0]
    assert torch.equal(product(x, delta).nan_to_num(7.5), expected.nan_to_num(7.5))
    both = torch.func.vmap(product)(x.expand(2, -1), delta.expand(2, -1))
    assert torch.equal(both[1].nan_to_num(7.5), expected.nan_to_num(7.5))


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("maps", [1, 3])
def test_the_trained_slope(maps: int, delta: float) -> None:
    """Its gradient does not see an infinite x above 0, nor a delta there."""
    for at in POINTS:
        weights = [torch.full((maps,), 0.25, requires_grad=True) for _ in range(2)]
        x = torch.full((2, maps), at)
        ours, torchs = (
            grad(f(x, a), a, torch.full_like(x, delta))[0] for f, a in zip((F.prelu, T.prelu), weights, strict=True)
        )
        assert torch.equal(ours.nan_to_num(7.5), torchs.nan_to_num(7.5)), (at, delta, ours, torchs)


REAL = [
    ("relu", {}),
    ("relu6", {}),
    ("hardtanh", {"min_val": -2, "max_val": 5}),
    ("threshold", {"threshold": 2, "value": 1}),
]
FLOATING = [
    "leaky_relu",
    "hardsigmoid",
    "hardswish",
    "hardshrink",
    "softshrink",
    "elu",
    "selu",
    "celu",
    "softplus",
    "logsigmoid",
]
FLOATING = [*FLOATING, "gelu", "silu", "mish", "dropout"]


@pytest.mark.parametrize(("op", "kwargs"), [*REAL, ("sigmoid", {}), ("tanh", {}), ("softsign", {})], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8], ids=str)
def test_integers(op: str, kwargs: dict[str, Any], dtype: torch.dtype) -> None:
    x = torch.arange(-6, 9, dtype=dtype)
    expected = getattr(T, op)(x, **kwargs)
    y = getattr(F, op)(x, **kwargs)
    assert y.dtype == expected.dtype
    assert torch.equal(y, expected)
    if (op, kwargs) in REAL:
        copy = x.clone()
        assert getattr(F, op)(copy, **kwargs, inplace=True) is copy
        assert torch.equal(copy, expected)


@pytest.mark.parametrize("op", FLOATING)
def test_integers_are_refused_by_name(op: str) -> None:
    with pytest.raises(TypeError, match=rf"^{op}: input is torch.int64; it must be of a floating dtype"):
        getattr(F, op)(torch.arange(3))


def test_hardshrink_of_a_negative_threshold() -> None:
    x = torch.tensor([-1.0, -0.2, 0.0, 0.2, NAN]).requires_grad_()
    ours, torchs = F.hardshrink(x, -0.5), T.hardshrink(x, -0.5)
    assert torch.equal(ours.nan_to_num(7), torchs.nan_to_num(7))
    assert torch.equal(grad(ours.sum(), x)[0][:4], torch.ones(4))


@pytest.mark.parametrize("op", IN_PLACE)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)], ids=str)
def test_empty_and_a_single_number_in_place(op: str, shape: tuple[int, ...]) -> None:
    results = []
    for functions in (F, T):
        x = torch.full(shape, 0.3).requires_grad_()
        y = getattr(functions, op)(x * 2, inplace=True)
        results.append((y.detach(), *grad(y.sum(), x)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
