"""The losses at their kinks and far out, where a formula that is right on paper overflows or picks the other side."""

from typing import Any

import pytest
import torch
from torch import Tensor

import manualbp.functional as F


def derivatives(f: Any, x: Tensor, t: Tensor, **settings: Any) -> list[Tensor]:
    """Losses, their gradients by both sides, and the gradients of these summed."""
    x, t = x.clone().requires_grad_(), t.clone().requires_grad_()
    l = f(x, t, reduction="none", **settings)
    dx, dt = torch.autograd.grad(l.sum(), (x, t), create_graph=True)
    second = torch.autograd.grad((dx + 2 * dt).sum(), (x, t), allow_unused=True, materialize_grads=True)
    return [l.detach(), dx.detach(), dt.detach(), *second]


def same(op: str, x: Tensor, t: Tensor, numbers: int = 5, **settings: Any) -> None:
    """The first `numbers` of the derivatives are PyTorch's, up to the last bits."""
    ours, torchs = (derivatives(getattr(m, op), x, t, **settings)[:numbers] for m in (F, torch.nn.functional))
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=4 * torch.finfo(a.dtype).eps, atol=0, equal_nan=True)


DISTANCES = torch.tensor([0, -0.0, 0.25, 0.5, -0.5, 1, -1, 2, -2, 3, 1e-300, 1e300, torch.inf, -torch.inf], dtype=float)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 2, 0, 1e-300, torch.inf])
def test_smooth_l1_at_its_kinks(beta: float) -> None:
    """At |x - t| = beta exactly the second derivative is that of the line; at 0 and far out as in PyTorch."""
    d = DISTANCES[DISTANCES.abs() < 1e200] if beta == torch.inf else DISTANCES
    same("smooth_l1_loss", d, torch.zeros_like(d), beta=beta)
    same("smooth_l1_loss", d + 1, torch.ones_like(d), beta=beta)


def test_l1_at_its_kink() -> None:
    """sign(0) = 0."""
    same("l1_loss", DISTANCES, torch.zeros_like(DISTANCES))
    same("l1_loss", DISTANCES.nan_to_num(), DISTANCES.nan_to_num())


def test_a_difference_that_is_no_number_stays_one() -> None:
    nan = torch.tensor([torch.nan, 1.0])
    for op in ("l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"):
        same(op, nan, torch.zeros(2), numbers=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_binary_cross_entropy_of_large_scores(t: float, pos_weight: float | None, dtype: torch.dtype) -> None:
    """No exponential overflows: finite, and what PyTorch has."""
    x = torch.tensor([1000, -1000, 90, -90, 0, 1e30, -1e30], dtype=dtype)
    p = None if pos_weight is None else torch.tensor(pos_weight, dtype=dtype)
    same("binary_cross_entropy_with_logits", x[[0, 1, 4, 5, 6]], torch.full((5,), t, dtype=dtype), pos_weight=p)
    assert all(a.isfinite().all() for a in derivatives(F.binary_cross_entropy_with_logits, x, torch.full_like(x, t)))


def test_binary_cross_entropy_is_the_cross_entropy_of_two_classes() -> None:
    """Lecture 004, eq. 4.2, with the scores x and 0."""
    x, t = torch.randn(7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    two = F.cross_entropy(torch.stack([x, torch.zeros_like(x)], 1), torch.stack([t, 1 - t], 1))
    torch.testing.assert_close(F.binary_cross_entropy_with_logits(x, t), two, rtol=1e-14, atol=0)


def test_binary_cross_entropy_of_a_clear_score_is_not_rounded_away() -> None:
    """log(1 + exp(-50)), which max(x, 0) - x t + log(1 + exp(-|x|)) with large terms would lose."""
    x, t = torch.tensor([50.0, -50.0]).double(), torch.tensor([1.0, 0.0]).double()
    l = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    torch.testing.assert_close(l, torch.tensor([-50.0, -50.0]).double().exp(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("x_dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("t_dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", ["mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"])
def test_mixed_dtypes_give_pytorchs(op: str, x_dtype: torch.dtype, t_dtype: torch.dtype) -> None:
    x, t = torch.randn(4).to(x_dtype).requires_grad_(), torch.rand(4).to(t_dtype)
    ours, torchs = (getattr(m, op)(x, t) for m in (F, torch.nn.functional))
    assert ours.dtype == torchs.dtype
    assert torch.autograd.grad(ours, x)[0].dtype == x_dtype


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, torch.ones(4)])
@pytest.mark.parametrize(("z", "t"), [((3, 4), [0, 4, 1]), ((3, 4), [-1, 0, 1]), ((4,), 200), ((1, 4, 2), [[0, -7]])])
def test_a_class_that_the_input_does_not_have(z: Any, t: Any, weight: Tensor | None, label_smoothing: float) -> None:
    """Refused by name with and without smoothing and weights; where it is ignored, no class."""
    x, target = torch.randn(z, dtype=torch.float64), torch.tensor(t)
    w = None if weight is None else weight.double()
    for op, how in (("cross_entropy", {"label_smoothing": label_smoothing}), ("nll_loss", {})):
        with pytest.raises(ValueError, match=rf"{op}: target.*outside of 0 to 3"):
            getattr(F, op)(x, target, w, **how)
        odd = next(c for c in target.flatten().tolist() if not 0 <= c < 4)
        ours, torchs = (
            getattr(m, op)(x, target, w, ignore_index=odd, reduction="sum", **how) for m in (F, torch.nn.functional)
        )
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_without_any_class_all_may_be_ignored(reduction: str) -> None:
    x, t = torch.zeros(2, 0, requires_grad=True), torch.full((2,), -100)
    for op in ("cross_entropy", "nll_loss"):
        ours, torchs = (getattr(m, op)(x, t, reduction=reduction) for m in (F, torch.nn.functional))
        torch.testing.assert_close(ours, torchs, equal_nan=True)
        assert torch.autograd.grad(ours.sum(), x)[0].shape == x.shape
        with pytest.raises(ValueError, match=f"{op}: target"):
            getattr(F, op)(x, t * 0)


def test_smoothed_losses_without_any_weight_have_no_mean() -> None:
    x, t, w = torch.randn(2, 3), torch.tensor([1, 1]), torch.tensor([1.0, 0, 1])
    for m in (F, torch.nn.functional):
        assert m.cross_entropy(x, t, w, label_smoothing=0.1).isnan()


@pytest.mark.parametrize("x_dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("t_dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cross_entropy_with_probabilities_of_another_dtype(x_dtype: torch.dtype, t_dtype: torch.dtype) -> None:
    x, t = torch.randn(2, 3).to(x_dtype).requires_grad_(), torch.rand(2, 3).to(t_dtype)
    ours, torchs = (m.cross_entropy(x, t) for m in (F, torch.nn.functional))
    assert ours.dtype == torchs.dtype
    torch.testing.assert_close(ours, torchs, rtol=1e-2, atol=0)
    assert torch.autograd.grad(ours, x)[0].dtype == x_dtype
