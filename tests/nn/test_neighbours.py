"""The layers that stand for several, beside these one after the other in PyTorch."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import manualbp
from manualbp.nn import ActivationConv2d, BatchNormActivation, BatchNormActivationConv2d
from tests.checks import distance, random_like

ACTIVATIONS: list[nn.Module] = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(inplace=True),
    nn.Hardswish(),
    manualbp.nn.SiLU(),
]
NORMS: list[dict[str, Any]] = [
    {},
    {"momentum": None},
    {"momentum": 0.3, "eps": 0.1},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]
LIMIT = 1e-12


def alike(together: nn.Module, *apart: nn.Module, shape: tuple[int, ...] = (3, 4, 6, 5)) -> bool:
    """Three steps, the last in evaluation: outputs, gradients, statistics."""
    expected = copy.deepcopy(nn.Sequential(*apart)).double()
    together.double()
    names = [list(one.state_dict()) for one in (together, expected)]
    assert len(names[0]) == len(names[1])
    found = []
    for one in (together, expected):
        for step in range(3):
            one.train(step < 2)
            x = random_like(torch.empty(shape, dtype=torch.float64), step).requires_grad_()
            y = one(x * 1)
            found.append([y, *torch.autograd.grad(y, [x, *one.parameters()], random_like(y)), *one.buffers()])
            found[-1] = [t.detach().clone() for t in found[-1]]
    floor = 1e-3 * max(t.double().norm().item() for t in found[0])
    return all(
        (a.double() - b.double()).norm() <= LIMIT * max(b.double().norm().item(), floor)
        for mine, theirs in zip(found[:3], found[3:], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def layers(activation: nn.Module = ACTIVATIONS[0], **norm: Any) -> tuple[nn.Module, nn.Module, nn.Conv2d]:
    torch.manual_seed(0)
    first = nn.BatchNorm2d(4, **norm)
    for p in first.parameters():
        nn.init.normal_(p)
    return first, activation, nn.Conv2d(4, 2, 3, padding=1, stride=2)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_every_activation(activation: nn.Module) -> None:
    norm, _, conv = layers()
    assert alike(BatchNormActivation(norm, activation), norm, activation)
    assert alike(BatchNormActivationConv2d(norm, activation, conv), norm, activation, conv)
    assert alike(ActivationConv2d(activation, conv), activation, conv)


@pytest.mark.parametrize("settings", NORMS, ids=str)
def test_every_setting_of_the_norm(settings: dict[str, Any]) -> None:
    norm, activation, conv = layers(**settings)
    assert alike(BatchNormActivation(norm, activation), norm, activation)
    norm, activation, conv = layers(**settings)
    assert alike(BatchNormActivationConv2d(norm, activation, conv), norm, activation, conv)


def test_every_shape() -> None:
    norm = nn.BatchNorm1d(4)
    assert alike(BatchNormActivation(norm, nn.GELU()), norm, nn.GELU(), shape=(5, 4))
    assert alike(BatchNormActivation(norm, nn.GELU()), norm, nn.GELU(), shape=(2, 4, 3))
    norm = nn.BatchNorm3d(4)
    assert alike(BatchNormActivation(norm, nn.GELU()), norm, nn.GELU(), shape=(2, 4, 3, 2, 2))
    conv = nn.Conv2d(4, 3, (2, 3), padding="same", dilation=2, bias=False)
    assert alike(ActivationConv2d(nn.SiLU(), conv), nn.SiLU(), conv, shape=(4, 6, 5))


def test_state_and_copies() -> None:
    """The layers are submodules, so their names are in the state; the numbers survive a copy."""
    module = BatchNormActivationConv2d(*layers())
    names = [f"norm.{name}" for name in nn.BatchNorm2d(4).state_dict()]
    assert list(module.state_dict()) == [*names, "conv.weight", "conv.bias"]
    x: Tensor = torch.randn(2, 4, 5, 5)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is BatchNormActivationConv2d
        assert distance(other(x), copy.deepcopy(module)(x)) == 0
    assert manualbp.coverage(module(x)).by_hand.keys() == {"Normalise", "Reactivate", "Recorrelate"}


CONV, RING = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
REFUSED: list[tuple[type[nn.Module], tuple[Any, ...], type[Exception], list[str]]] = [
    (BatchNormActivation, (nn.GroupNorm(2, 4), nn.ReLU()), TypeError, ["norm is a GroupNorm", "BatchNorm"]),
    (BatchNormActivation, (nn.BatchNorm2d(4), nn.ELU()), TypeError, ["activation is a ELU", "Hardswish"]),
    (BatchNormActivationConv2d, (nn.BatchNorm1d(4), nn.ReLU(), CONV), TypeError, ["norm is a BatchNorm1d"]),
    (BatchNormActivationConv2d, (nn.BatchNorm2d(4), CONV, CONV), TypeError, ["activation is a Conv2d"]),
    (BatchNormActivationConv2d, (nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 4)), TypeError, ["conv is a Linear"]),
    (BatchNormActivationConv2d, (nn.BatchNorm2d(4), nn.ReLU(), RING), ValueError, ["padding_mode = 'circular'"]),
    (ActivationConv2d, (nn.Softplus(), CONV), TypeError, ["activation is a Softplus"]),
    (ActivationConv2d, (nn.GELU(), nn.Conv1d(4, 4, 3)), TypeError, ["conv is a Conv1d"]),
    (ActivationConv2d, (nn.GELU(), RING), ValueError, ["padding_mode = 'circular'", "'zeros'"]),
]


@pytest.mark.parametrize(("kind", "args", "error", "words"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_other_layers_are_refused(kind: Any, args: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as info:
        kind(*args)
    for word in [kind.__name__, *words]:
        assert word in str(info.value)


def test_what_the_norm_refuses_is_refused_as_it_does() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        BatchNormActivation(nn.BatchNorm2d(4), nn.ReLU())(torch.zeros(2, 4))
