"""Two layers in one: the numbers and the parameters of the two, and what they are not made of."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import manualbp
import manualbp.functional as F
import manualbp.nn as by_hand
from manualbp.nn import ActivationMaxPool2d, Conv2dAvgPool2d
from tests.checks import EXACT, distance, random_like

PAIRS: list[tuple[type[nn.Module], nn.Module, Any]] = [
    (ActivationMaxPool2d, nn.Sigmoid(), nn.MaxPool2d(2)),
    (ActivationMaxPool2d, by_hand.Tanh(), by_hand.MaxPool2d(3, 2, 1, ceil_mode=True)),
    (ActivationMaxPool2d, nn.ReLU(inplace=True), nn.MaxPool2d((2, 1), dilation=2)),
    (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3), nn.AvgPool2d(2)),
    (Conv2dAvgPool2d, by_hand.Conv2d(4, 6, (3, 2), 2, (1, 2), groups=2, bias=False), by_hand.AvgPool2d((2, 3), 1)),
    (Conv2dAvgPool2d, nn.Conv2d(4, 6, 4, padding="same", dilation=2), nn.AvgPool2d(3, (1, 2), (0, 0))),
]
every_pair = pytest.mark.parametrize(("fused", "first", "pool"), PAIRS)


@every_pair
def test_the_numbers_of_the_two(fused: Any, first: nn.Module, pool: nn.Module, device: str) -> None:
    first, pool = (copy.deepcopy(layer).to(device, torch.float64) for layer in (first, pool))
    x = random_like(torch.empty(2, 4, 9, 8, dtype=torch.float64, device=device)).requires_grad_()
    before = x.detach().clone()
    layer = fused(first, pool)
    y = layer(x)
    assert torch.equal(x, before)
    expected = pool(first(x * 1))  # not a leaf: ReLU may work in place
    delta, weights = random_like(y), [x, *layer.parameters()]
    ours, torchs = (torch.autograd.grad(t, weights, delta) for t in (y, expected))
    for a, b in zip((y, *ours), (expected, *torchs), strict=True):
        assert distance(a, b) <= EXACT


@every_pair
def test_parameters_copies_and_pickles(fused: Any, first: nn.Module, pool: nn.Module) -> None:
    layer = fused(first, pool)
    assert all(p is q for p, q in zip(layer.parameters(), first.parameters(), strict=True))
    assert "MaxPool2d(" in repr(layer) or "AvgPool2d(" in repr(layer)
    x = torch.randn(2, 4, 9, 8)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is fused
        assert torch.equal(other(x), layer(x))
    y = layer(x)
    manualbp.convert(layer)
    assert torch.equal(layer(x), y)
    manualbp.restore(layer)


@pytest.mark.parametrize(
    ("fused", "first", "pool", "error", "words"),
    [
        (ActivationMaxPool2d, nn.ReLU6(), nn.MaxPool2d(2), TypeError, "activation is a ReLU6"),
        (ActivationMaxPool2d, nn.ReLU(), nn.AvgPool2d(2), TypeError, "pool is a AvgPool2d"),
        (ActivationMaxPool2d, nn.ReLU(), nn.MaxPool2d(2, return_indices=True), ValueError, "return_indices = True"),
        (Conv2dAvgPool2d, by_hand.TrueConv2d(4, 6, 3), nn.AvgPool2d(2), TypeError, "conv is a TrueConv2d"),
        (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), TypeError, "pool is a MaxPool2d"),
        (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3, padding_mode="reflect"), nn.AvgPool2d(2), ValueError, "'reflect'"),
        (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3), nn.AvgPool2d(2, padding=1), ValueError, "padding = 1"),
        (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3), nn.AvgPool2d(2, ceil_mode=True), ValueError, "ceil_mode = True"),
        (Conv2dAvgPool2d, nn.Conv2d(4, 6, 3), nn.AvgPool2d(2, divisor_override=3), ValueError, "divisor_override = 3"),
    ],
)
def test_refused_by_name(fused: Any, first: nn.Module, pool: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"{fused.__name__}: .*{words}"):
        fused(first, pool)


def test_where_rounding_makes_equals_the_larger_input_gets_the_error() -> None:
    """PyTorch pools what is rounded, and takes the first."""
    x = torch.tensor([[[[4.0625, 4.09375]]]], dtype=torch.bfloat16, requires_grad=True)
    rounded = torch.sigmoid(x)
    assert rounded[..., 0] == rounded[..., 1] < 1
    y, expected = F.activation_max_pool2d(x, "sigmoid", (1, 2)), nn.functional.max_pool2d(rounded, (1, 2))
    assert torch.equal(y, expected)
    assert [torch.autograd.grad(t, x)[0].flatten().gt(0).tolist() for t in (y, expected)] == [
        [False, True],
        [True, False],
    ]
