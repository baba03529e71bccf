import pytest
import torch

from manualbp.training.classifier import rate
from manualbp.training.optimizers import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (64, 576)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u = torch.randn(shape, dtype=torch.float64)
    U, S, V = torch.linalg.svd(u, full_matrices=False)
    y = U.T @ orthogonal(u) @ V.T
    assert (y - y.diagonal().diag()).abs().max() < 1e-10  # of the same singular vectors
    large = 0.1 * S.norm() < S
    assert large.any()
    assert 0.6 < y.diagonal()[large].min() <= y.diagonal()[large].max() < 1.25


def test_kernels_are_normalised_and_take_an_orthogonal_step() -> None:
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(6, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    optimizer = Muon([w], lr=0.1, weight_decay=0.5, lr_matrices=1, lr_vectors=1)
    g1, g2 = torch.randn(2, *w.shape)
    expected, b = w.detach().clone(), torch.zeros_like(w)
    for g in (g1, g2):
        w.grad = g.clone()
        optimizer.step()
        b = 0.6 * b + g
        expected = expected * (6**0.5 / expected.norm())
        expected -= 0.1 * orthogonal((g + 0.6 * b).flatten(1)).view(w.shape)
    torch.testing.assert_close(w.detach(), expected)


@pytest.mark.parametrize(("shape", "lr"), [((4, 5), 0.02), ((4,), 0.5), ((), 0.5), ((2, 3, 4), 0.5)])
def test_other_parameters_descend_with_nesterovs_momentum(shape: tuple[int, ...], lr: float) -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    theirs = torch.optim.SGD([b], lr=lr, momentum=0.85, nesterov=True, weight_decay=0.004 / lr)
    ours = Muon([a], lr=0.24, weight_decay=0.004, lr_matrices=0.02, lr_vectors=0.5)
    for optimizer in (ours, theirs):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 5)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            a.grad = b.grad = torch.randn(shape, generator=generator)
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(a, b)


def test_parameters_without_a_gradient_stay() -> None:
    frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
    Muon([frozen, torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.1, lr_matrices=1, lr_vectors=1).step()
    assert torch.equal(frozen, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0: 1, 50: 1, 100: 1}),
        ("linear", {0: 1, 25: 0.75, 50: 0.5, 100: 0, 120: 0}),
        ("cosine", {0: 0.2, 4: 0.996, 50: 0.5, 75: 0.1464, 100: 0, 120: 0}),
        ("one-cycle", {0: 1 / 30, 14: 0.5, 29: 1, 65: 0.5, 100: 0, 120: 0}),
    ],
)
def test_learning_rates(schedule: str, values: dict[int, float]) -> None:
    assert {step: rate(schedule, step, 100) for step in values} == pytest.approx(values, abs=1e-3)
    assert max(rate(schedule, step, 7) for step in range(7)) <= 1
    assert rate(schedule, 0, 1) > 0
