"""Activations where two pieces meet, at infinity and at what is no number, in place, and past the second derivative."""

from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd import forward_ad, grad, gradgradcheck

import manualbp.functional as F
from tests.checks import distance, random_like

INF, NAN = float("inf"), float("nan")
KINKS = [
    ("relu6", {}),
    ("hardtanh", {"min_val": -3.0, "max_val": 6.0}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    *[("leaky_relu", {"negative_slope": slope}) for slope in (0.01, 0.0, -0.5, 2.0)],
    *[("elu", {"alpha": alpha}) for alpha in (1.0, 0.0, -0.5, 2.0)],
    *[("softplus", {"beta": beta, "threshold": threshold}) for beta, threshold in ((1, 3), (2, 6), (-2, 6), (1, 0))],
]
SMOOTH = [("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}), ("softplus", {})]
INPLACE = [("relu", {}), *KINKS[:12], ("silu", {})]
ids = {"ids": lambda v: v if isinstance(v, str) else " ".join(map(str, v.values()))}


def around_kinks(dtype: torch.dtype, device: str) -> Tensor:
    """0, 3 and 6 of either sign, and their neighbours in this precision."""
    ends = torch.tensor([0.0, -0.0, 3, -3, 6, -6], dtype=dtype)
    beside = [torch.nextafter(ends, torch.full_like(ends, side)) for side in (INF, -INF)]
    return torch.cat([ends, *beside, torch.tensor([-INF, INF], dtype=dtype)]).to(device)


@pytest.mark.parametrize(("op", "kwargs"), KINKS, **ids)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_slope_where_pieces_meet_is_pytorchs(op: str, kwargs: Any, dtype: torch.dtype, device: str) -> None:
    results = []
    for functions in (F, T):
        x = around_kinks(dtype, device).requires_grad_()
        y = getattr(functions, op)(x, **kwargs)
        results.append((y.detach(), *grad(y.sum(), x)))
    # PyTorch's hardsigmoid takes 1/6 in float32 even in float64.
    limit = 1e-7 if op == "hardsigmoid" and dtype == torch.float64 else 16 * torch.finfo(dtype).eps
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=limit, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("end", [0.1, 0.3, 0.7, 1.1, 2 / 3])
def test_an_end_that_half_precision_does_not_hold(end: float, dtype: torch.dtype, device: str) -> None:
    """Beside it PyTorch compares in float32, but for the shrinking ones."""
    rounded = torch.tensor(end, dtype=dtype)
    beside = [torch.nextafter(rounded, torch.tensor(side, dtype=dtype)) for side in (INF, -INF)]
    numbers = torch.stack([rounded, *beside])
    ends = {"threshold": (end, 20.0), "hardshrink": (end,), "softshrink": (end,), "hardtanh": (-end, end)}
    for op, settings in ends.items():
        for inplace in ({}, {"inplace": True}) if op in ("threshold", "hardtanh") else ({},):
            results = []
            for functions in (F, T):
                x = torch.cat([numbers, -numbers]).to(device).requires_grad_()
                y = getattr(functions, op)(x * 1, *settings, **inplace)
                results.append((y.detach(), *grad(y.sum(), x)))
            assert all(map(torch.equal, *results)), op


@pytest.mark.parametrize(("op", "kwargs"), [*KINKS, *SMOOTH], **ids)
def test_no_number_and_infinity(op: str, kwargs: Any, device: str) -> None:
    x = torch.tensor([NAN, INF, -INF], device=device)
    assert torch.equal(*(getattr(f, op)(x, **kwargs).nan_to_num(nan=7) for f in (F, T)))


@pytest.mark.parametrize(("op", "kwargs"), INPLACE, **ids)
def test_in_place(op: str, kwargs: Any, device: str) -> None:
    """Input holds the output, and the gradient is that of the input as it was."""
    leaf = (3 * random_like(torch.empty(4, 5, device=device))).requires_grad_()
    delta = random_like(leaf, 2)
    copy = leaf * 1
    y = getattr(F, op)(copy, **kwargs, inplace=True)
    expected = getattr(T, op)(leaf, **kwargs)
    assert y is copy
    assert torch.equal(copy, expected)
    assert distance(grad(y, leaf, delta)[0], grad(expected, leaf, delta)[0]) <= 1e-6


@pytest.mark.parametrize(("op", "kwargs"), INPLACE, **ids)
def test_a_part_in_place(op: str, kwargs: Any, device: str) -> None:
    """A view that is changed changes the tensor, and its gradient and its tangent."""
    leaf, t = (3 * random_like(torch.empty(4, 5, dtype=torch.float64, device=device), seed) for seed in (1, 2))

    def in_place(x: Tensor) -> Tensor:
        whole = x * 2
        getattr(F, op)(whole[1:3], **kwargs, inplace=True)
        return whole**2

    def apart(x: Tensor) -> Tensor:
        above, middle, below = (x * 2).split([1, 2, 1])
        return torch.cat([above, getattr(T, op)(middle, **kwargs), below]) ** 2

    leaf.requires_grad_()
    delta = random_like(leaf, 3)
    ours, expected = (grad(f(leaf), leaf, delta)[0] for f in (in_place, apart))
    assert distance(ours, expected) <= 1e-9  # PyTorch rounds 1 / 6 to float32
    with forward_ad.dual_level():
        x = forward_ad.make_dual(leaf, t)
        ours, expected = (forward_ad.unpack_dual(f(x)).tangent for f in (in_place, apart))
    assert distance(ours, expected) <= 1e-9  # PyTorch rounds 1 / 6 to float32


@pytest.mark.parametrize(("op", "kwargs"), [*SMOOTH, ("elu", {"alpha": 2.0}), ("hardswish", {})], **ids)
def test_third_derivative(op: str, kwargs: Any, device: str) -> None:
    """The second derivative of the first: rules all the way."""
    x = random_like(torch.empty(6, dtype=torch.float64, device=device)).requires_grad_()

    def slope(x: Tensor) -> Tensor:
        return grad(getattr(F, op)(x, **kwargs).sum(), x, create_graph=True)[0]

    assert gradgradcheck(slope, x, check_fwd_over_rev=True, rtol=1e-6, atol=1e-7)
