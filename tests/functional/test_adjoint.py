"""Inner products: each pair of maps is each other's adjoint, to 1e-12, without finite differences."""

from typing import Any

import pytest
import torch
from torch import Tensor

import manualbp.functional as F
from manualbp.functional.activation.piecewise_linear import InsideSlope, LeakySlope
from manualbp.functional.adaptive import AdaptiveMean, AdaptiveSpread
from manualbp.functional.dropout import Thin
from manualbp.functional.pad import Fold, Pad
from manualbp.functional.pool import Put, Take, WindowMean, WindowSpread
from manualbp.functional.resize import Interpolate, InterpolateAdjoint
from manualbp.functional.rule import run
from manualbp.kernels import pad as pad_kernels
from manualbp.kernels import pool as pool_kernels
from manualbp.kernels.adaptive import Windows
from manualbp.kernels.geometry import pooling
from manualbp.kernels.pad import Margins
from manualbp.kernels.resize import Resize
from tests.cases import Case
from tests.cases.conv import CONNECT, TRANSPOSED, TRIPLE
from tests.cases.fused import CONV2D_AVG_POOL2D
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


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution(case: Case, device: str) -> None:
    """<delta, conv_transpose(x, w)> = <conv(delta, w), x>: the windows of which x is the output, if there are more."""
    x, w, *_ = (a.detach() for a in case.inputs(device) if a is not None)
    settings = dict(case.kwargs)
    y = getattr(F, case.op)(x, w, **settings)
    delta = random_like(y)
    settings.pop("output_padding", None)
    back = getattr(F, case.op.replace("_transpose", ""))(delta, w, **settings)
    equal(inner(delta, y), inner(back[(..., *map(slice, x.shape[-w.ndim + 2 :]))], x), delta, w, x)


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
    for place in (index, pool_kernels.in_window(index, g)):
        taken, put = run(Take, other, place, g.places), run(Put, delta, place, g.places)
        equal(inner(delta, taken), inner(put, other), delta, other)


@pytest.mark.parametrize("case", CONV2D_AVG_POOL2D, ids=str)
def test_folded_convolution(case: Case, device: str) -> None:
    """<delta, mean of correlate(x, w)> is linear in w, too: <gradient by w, w> + <delta, b on every map>."""
    x, w, b, *how = case.inputs(device)
    y = F.conv2d_avg_pool2d(x.detach(), w, b, *how)
    delta = random_like(y)
    (dw,) = torch.autograd.grad(y, w, delta)
    of_b = 0.0 if b is None else inner(delta, b.detach().view(-1, 1, 1).expand_as(delta))
    equal(inner(delta, y.detach()), inner(dw, w.detach()) + of_b, delta, w.detach(), x.detach())


@pytest.mark.parametrize("case", AVG_POOL2D, ids=str)
def test_mean_and_spread(case: Case, device: str) -> None:
    x, g, rest = pool_inputs(case)
    x = x.to(device)
    how = g, rest.get("count_include_pad", True), rest.get("divisor_override")
    y = run(WindowMean, x, *how)
    delta = random_like(y)
    equal(inner(delta, y), inner(run(WindowSpread, delta, *how), x), delta, x)


def test_slopes_of_straight_pieces_and_noise_are_their_own_adjoints(device: str) -> None:
    """<delta, slope x> = <slope delta, x>"""
    x, delta, t = (random_like(torch.empty(5, 4, dtype=torch.float64, device=device), seed) for seed in (1, 2, 3))
    for rule, *how in [(InsideSlope, t, -0.5, 1.0, 2.0), (LeakySlope, t, 0.1), (Thin, t.sign() + 1)]:
        equal(inner(delta, run(rule, x, *how)), inner(run(rule, delta, *how), x), delta, x)


@pytest.mark.parametrize("y_size", [(1, 1), (3, 2), (4, 5), (9, 7), (0, 3)], ids=str)
def test_adaptive_mean_and_spread(y_size: tuple[int, int], device: str) -> None:
    x = random_like(torch.empty(2, 3, 6, 4, dtype=torch.float64, device=device))
    y = run(AdaptiveMean, x, *y_size)
    delta = random_like(y)
    equal(inner(delta, y), inner(run(AdaptiveSpread, delta, Windows((6, 4), y_size)), x), delta, x)


@pytest.mark.parametrize(
    ("size", "scale", "mode", "align_corners"),
    [
        ((12, 8), None, "nearest", None),
        ((246, 188), None, "nearest", None),  # by 41 and 47, which PyTorch rounds down in float32
        ((4, 9), None, "nearest-exact", None),
        (None, (2.3, 2.0), "nearest", None),
        ((12, 8), None, "bilinear", False),
        (None, (0.4, 1.9), "bilinear", True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_interpolate(size: Any, scale: Any, mode: str, align_corners: bool | None, dtype: Any, device: str) -> None:
    """Whole numbers, for which float32 is exact where the weights are 0 and 1."""
    x = random_like(torch.empty(2, 3, 6, 4, dtype=dtype, device=device)).mul(8).round()
    r = Resize(size, scale, mode, align_corners)
    y = run(Interpolate, x, r)
    delta = random_like(y).mul(8).round()
    a, b = inner(delta.double(), y.double()), inner(run(InterpolateAdjoint, delta, r, None, 6, 4).double(), x.double())
    if dtype == torch.float64 or "nearest" in mode:
        equal(a, b, delta.double(), x.double())
    else:
        assert abs(a - b) <= 1e-5 * delta.double().norm() * x.double().norm()


@pytest.mark.parametrize("m", [40, 41, 47])
def test_a_mean_over_large_windows_in_single_precision(m: int, device: str) -> None:
    """Upsampling by 41 or 47 is where PyTorch's interpolation to the nearest is a pixel off in float32."""
    x = torch.ones(1, 1, 3 * m, m, device=device, requires_grad=True)
    delta = torch.tensor([1.0, 2.0, 3.0], device=device).view(1, 1, 3, 1) * m**2
    (dx,) = torch.autograd.grad(F.avg_pool2d(x, m), x, delta)
    assert torch.equal(dx, torch.tensor([1.0, 2.0, 3.0], device=device).repeat_interleave(m)[:, None].expand_as(dx))


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
