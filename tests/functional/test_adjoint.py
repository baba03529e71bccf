"""Inner products: each pair of maps is each other's adjoint, to 1e-12, without finite differences."""

import pytest
import torch
from torch import Tensor

import manualbp.functional as F
from manualbp.functional._rule import run
from manualbp.functional.pad import Fold, Pad
from manualbp.functional.pool import Put, Take, WindowMean, WindowSpread
from manualbp.kernels import pad as pad_kernels
from manualbp.kernels import pool as pool_kernels
from manualbp.kernels.geometry import pooling
from manualbp.kernels.pad import Margins
from tests.cases import Case
from tests.cases.conv import CONNECT, TRIPLE
from tests.cases.pool import AVG_POOL2D, MAX_POOL2D, PAD
from tests.checks import EXACT, random_like
from tests.kernels.test_reference import pool_inputs


def inner(a: Tensor, b: Tensor) -> float:
    return (a * b).sum().item()


def equal(a: float, b: float, *factors: Tensor) -> None:
    """a = b up to rounding of a sum of this size."""
    size = 1.0
    for t in factors:
        size *= t.norm().item()
    assert abs(a - b) <= EXACT * size, (a, b)


@pytest.mark.parametrize("case", [case for case in TRIPLE if case.op == "correlate"], ids=str)
def test_triple(case: Case, device: str) -> None:
    """<delta, correlate(x, w)> = <full_convolve(delta, w), x> = <kernel_gradient(x, delta), w> = F(x, w, delta)."""
    x, w, *steps = case.inputs(device)
    x, w = x.detach(), w.detach()
    y = F.correlate(x, w, *steps)
    delta = random_like(y)
    by_y = inner(delta, y)
    equal(by_y, inner(F.full_convolve(delta, w, x.shape[2:], *steps), x), delta, w, x)
    equal(by_y, inner(F.kernel_gradient(x, delta, w.shape[2:], *steps), w), delta, w, x)


def test_rotation_is_its_own_adjoint(device: str) -> None:
    """<delta, rotate(w)> = <rotate(delta), w>"""
    w, delta = (random_like(torch.empty(4, 3, 3, 2, dtype=torch.float64, device=device), seed) for seed in (1, 2))
    equal(inner(delta, F.rotate(w)), inner(F.rotate(delta), w), delta, w)
    assert torch.equal(F.rotate(F.rotate(w)), w)


@pytest.mark.parametrize("case", [case for case in CONNECT if case.op == "scatter_kernels"], ids=str)
def test_scatter_and_gather(case: Case, device: str) -> None:
    """<delta, scatter(weight)> = <gather(delta), weight>"""
    weight, o, c, maps = case.inputs(device)
    weight = weight.detach()
    w = F.scatter_kernels(weight, o, c, maps)
    delta = random_like(w)
    equal(inner(delta, w), inner(F.gather_kernels(delta, o, c), weight), delta, weight)


@pytest.mark.parametrize("case", [c for c in PAD if c.kwargs["mode"] == "constant" or "-" not in c.name], ids=str)
def test_pad(case: Case, device: str) -> None:
    x, sides = case.inputs(device)
    x = x.detach()
    margins = Margins(sides, tuple(x.shape[-len(sides) // 2 :][::-1]), case.kwargs["mode"])
    y = run(Pad, x, margins, 0.0)
    delta = random_like(y)
    back = run(Pad, delta, margins.inward(), 0.0) if margins.mode == "constant" else run(Fold, delta, margins)
    equal(inner(delta, y), inner(back, x), delta, x)


@pytest.mark.parametrize("case", MAX_POOL2D, ids=str)
def test_take_and_put(case: Case, device: str) -> None:
    x, g, _ = pool_inputs(case)
    x = x.to(device)
    y, index = pool_kernels.max_pool(x, g)
    delta, other = random_like(y), random_like(x, seed=5)
    equal(inner(delta, run(Take, other, index, g)), inner(run(Put, delta, index, g), other), delta, other)


@pytest.mark.parametrize("case", AVG_POOL2D, ids=str)
def test_mean_and_spread(case: Case, device: str) -> None:
    x, g, rest = pool_inputs(case)
    x = x.to(device)
    how = g, rest.get("count_include_pad", True), rest.get("divisor_override")
    y = run(WindowMean, x, *how)
    delta = random_like(y)
    equal(inner(delta, y), inner(run(WindowSpread, delta, *how), x), delta, x)


def test_linear(device: str) -> None:
    x, w, delta = (random_like(torch.empty(s, dtype=torch.float64, device=device)) for s in ((3, 4), (5, 4), (3, 5)))
    by_y = inner(delta, F.linear(x, w))
    equal(by_y, inner(F.linear(delta, w.mT), x), delta, w, x)
    equal(by_y, inner(F.linear(delta.mT, x.mT), w), delta, w, x)


def test_an_adjoint_with_a_wrong_margin_is_caught() -> None:
    """The identity does fail for maps that are no adjoints."""
    x = random_like(torch.empty(1, 4, 4, dtype=torch.float64))
    right, wrong = Margins((1, 1), (4,), "reflect"), Margins((2, 0), (4,), "reflect")
    y = pad_kernels.pad(x, right, 0.0)
    delta = random_like(y)
    with pytest.raises(AssertionError):
        equal(inner(delta, y), inner(pad_kernels.fold(delta, wrong), x), delta, x)
    x = x[None]
    g = pooling("test", x.shape, 2, 2, 0, 1, False)
    y = pool_kernels.window_mean(x, g, True, None)
    delta = random_like(y)
    with pytest.raises(AssertionError):
        equal(inner(delta, y), inner(pool_kernels.window_spread(delta, g, True, 1), x), delta, x)
