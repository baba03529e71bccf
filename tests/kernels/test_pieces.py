"""What goes through memory some samples at a time is what it is at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, grad

import manualbp.functional as F
from manualbp.kernels import pieces
from tests.checks import EXACT, distance, random_like


def batch_norm(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, random_like(x[0, :, 0, 0], 3), None, True)


OPS = [
    F.gelu,
    F.silu,
    F.hardswish,
    F.relu6,
    F.relu_bits,
    lambda x: F.relu(x * 1, inplace=True),
    lambda x: F.relu6(x * 9, inplace=True),
    batch_norm,
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(7, 3, 5, 6), (7, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_pieces(
    op: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bits of a sample of 90 numbers fill no bytes, those of one of 24 do."""
    x, delta = (random_like(torch.empty(shape, dtype=torch.float64), seed) for seed in (1, 2))
    x = x.contiguous(memory_format=layout).requires_grad_()

    def results() -> tuple[Tensor, Tensor]:
        y = op(x)
        return y, grad(y, x, delta)[0]

    at_once = results()
    monkeypatch.setattr(pieces, "PIECE", 60)
    for one, other in zip(results(), at_once, strict=True):
        assert distance(one, other) <= EXACT
        assert one.stride() == other.stride()


@pytest.mark.parametrize(("shape", "count"), [((7, 3, 5, 6), 7), ((7, 4, 2, 3), 4), ((9,), 1), ((), 1), ((0, 3), 1)])
def test_how_many(shape: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 60)
    x = torch.ones(shape)
    assert len(pieces.pieces(x)) == 1  # what is to be derived is left whole
    with torch.no_grad():
        found = pieces.pieces(x, 2 * x)
        assert len(found) == count
        assert torch.func.vmap(lambda t: t * len(pieces.pieces(t)))(torch.ones(2, 7, 90)).eq(1).all()
    for part, twice in found:
        assert torch.equal(2 * part, twice)


@pytest.mark.parametrize("op", [*OPS, F.batch_norm_activation])
def test_forward_over_reverse(op: Callable[..., Tensor]) -> None:
    """The tangent of a gradient, outside torch.func: nothing may be written in place there."""
    settings = (None, None, None, None, True) if op is F.batch_norm_activation else ()
    x, t, delta = (random_like(torch.empty(3, 4, 2, 3, dtype=torch.float64), seed) for seed in (1, 2, 3))

    def gradient(x: Tensor, create_graph: bool) -> Tensor:
        return grad(op(x, *settings) ** 2, x, delta, create_graph=create_graph)[0]

    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(gradient(forward_ad.make_dual(x.clone().requires_grad_(), t), False)).tangent
    x.requires_grad_()
    expected = grad(gradient(x, True), x, t)[0]  # the second derivative is symmetric
    assert found is not None
    assert distance(found, expected) <= 1e-10
