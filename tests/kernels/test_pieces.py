"""What goes through memory some samples at a time is what it is at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

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
