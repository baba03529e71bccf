"""Positions that occur twice, as overlapping windows of max pooling make them."""

import torch

import manualbp.functional as F
from tests.checks import EXACT, distance, random_like

TWICE = torch.tensor([[1, 1], [5, 10]]).view(1, 1, 2, 2)


def test_each_of_equal_positions_gets_the_gradient(device: str) -> None:
    """Two equal values at one place: written once, and each gets that delta; first and second derivative."""
    results = []
    for f in (F.max_unpool2d, torch.nn.functional.max_unpool2d):
        x = torch.tensor([[3.0, 3.0], [1.0, 2.0]], dtype=torch.float64, device=device).view(1, 1, 2, 2).requires_grad_()
        y = f(x, TWICE.to(device), 2)
        delta = random_like(y).requires_grad_()
        (dx,) = torch.autograd.grad(y, x, delta, create_graph=True)
        (ddelta,) = torch.autograd.grad(dx, delta, random_like(dx, 2))
        results.append([y.detach(), dx.detach(), ddelta])
    ours = results[0]
    assert ours[0].flatten()[1] == 3
    assert ours[1].flatten()[0] == ours[1].flatten()[1]
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


def test_unpooling_overlapping_maxima_writes_them_once(device: str) -> None:
    x = random_like(torch.empty(2, 3, 9, 8, device=device))
    y, index = F.max_pool2d(x, 3, 2, return_indices=True)
    back = F.max_unpool2d(y, index, 3, 2, output_size=x.shape)
    assert index[0, 0].unique().numel() < index[0, 0].numel()
    assert torch.equal(back, torch.where(back != 0, x, 0))
    assert torch.equal(back, torch.nn.functional.max_unpool2d(y, index, 3, 2, output_size=x.shape))
