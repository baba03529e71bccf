"""restore(model, built=True): every layer of manualbp.nn becomes torch.nn's, with the same numbers and state_dict."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import manualbp
from manualbp.training.networks import NETWORKS
from tests.checks import EXACT, distance, random_like
from tests.nn.test_modules import LOSSES, MODULES, make

PLAIN = ("CELU", "SELU", "Mish", "LogSigmoid", "Softsign", "Hardshrink", "Softshrink", "PReLU")
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    *MODULES,
    *((name, (), {}, (3, 4)) for name in PLAIN),
    ("Threshold", (0.1, 20.0), {}, (3, 4)),
]
LACKING = {
    "TrueConv2d": ((4, 6, 3), {}, (2, 4, 7, 6)),
    "ConnectedConv2d": ((3, 2, 3, [[0, 2], [1]]), {}, (2, 3, 5, 5)),
}


def outputs(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    torch.manual_seed(1)  # for the noise of dropout
    y = model(*(x.clone() for x in inputs))
    return [*y] if isinstance(y, tuple) else [y]


def becomes(model: nn.Module, name: str, *inputs: Tensor) -> None:
    layout, state, printed = list(model.state_dict()), dict(model.state_dict()), repr(model)
    model.eval()
    before = outputs(model, *inputs)
    report = manualbp.restore(model, built=True)
    assert str(report).splitlines()[0] == "restored: 1 of 1 modules"
    assert [(row.kind, row.remark) for row in report.rows] == [(f"manualbp.nn.{name}", f"-> torch.nn.{name}")]
    assert type(model) is getattr(nn, name)
    assert list(model.state_dict()) == layout
    assert all(a.data_ptr() == state[k].data_ptr() for k, a in model.state_dict().items())
    assert repr(model) == printed
    for a, b in zip(before, outputs(model, *inputs), strict=True):
        assert distance(a, b) <= EXACT
    assert manualbp.restore(model, built=True).rows == ()
    assert manualbp.convert(model).converted


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layers(name: str, args: Any, kwargs: Any, shape: Any) -> None:
    model = make(manualbp.nn, name, *args, **kwargs).double()
    becomes(model, name, random_like(torch.empty(shape, dtype=torch.float64)))


@pytest.mark.parametrize(("name", "kwargs"), LOSSES)
def test_losses(name: str, kwargs: Any) -> None:
    z = random_like(torch.empty(6, 4, dtype=torch.float64))
    classes = name in ("CrossEntropyLoss", "NLLLoss")
    becomes(make(manualbp.nn, name, **kwargs), name, z, torch.tensor([0, 1, 2, 3, 0, 2]) if classes else z.sigmoid())


def test_max_unpool() -> None:
    y, index = nn.MaxPool2d(2, return_indices=True)(random_like(torch.empty(2, 3, 8, 6, dtype=torch.float64)))
    becomes(manualbp.nn.MaxUnpool2d(2), "MaxUnpool2d", y, index)


@pytest.mark.parametrize("name", LACKING)
def test_what_torch_lacks_is_left_and_named(name: str) -> None:
    args, kwargs, shape = LACKING[name]
    model = nn.Sequential(make(manualbp.nn, name, *args, **kwargs), manualbp.nn.ReLU())
    kinds, x = [type(layer) for layer in model], torch.randn(shape)
    before = outputs(model, x)
    report = manualbp.restore(model, built=True)
    assert [(row.path, row.remark) for row in report.left] == [("0", f"left: torch.nn has no {name}")]
    assert [type(layer) for layer in model] == [kinds[0], nn.ReLU]
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, x), strict=True))


def test_the_tables_have_every_class() -> None:
    classes = {name for name in manualbp.nn.__all__ if isinstance(getattr(manualbp.nn, name), type)}
    assert {name for name, *_ in LAYERS} | {name for name, _ in LOSSES} | {"MaxUnpool2d", *LACKING} == classes


def test_only_if_it_is_asked_for() -> None:
    model = nn.Sequential(manualbp.nn.ReLU(), nn.ReLU())
    manualbp.convert(model)
    assert [row.path for row in manualbp.restore(model).rows] == ["1"]
    assert [type(layer) for layer in model] == [manualbp.nn.ReLU, nn.ReLU]


def test_what_was_converted_what_was_built_and_what_is_somebody_elses() -> None:
    class Own(manualbp.nn.Linear):
        pass

    model = nn.Sequential(nn.Conv2d(1, 2, 3), manualbp.nn.ReLU(), Own(2, 2), nn.Flatten())
    nn.utils.parametrizations.weight_norm(model.append(manualbp.nn.Linear(2, 2))[4])
    manualbp.convert(model)
    report = manualbp.restore(model, built=True)
    assert {row.path: (row.converted, row.remark) for row in report.rows} == {
        "0": (True, "restored"),
        "1": (True, "-> torch.nn.ReLU"),
        "2": (False, "left: its own kind of Linear"),
        "4": (False, "left: its own kind of Linear"),
    }


@pytest.mark.parametrize("network", ["lecture004", "mlp"])
def test_a_network_is_torchs_then(network: str) -> None:
    torch.manual_seed(0)
    model, x = NETWORKS[network](manualbp.nn, (1, 8, 8), 10).double(), torch.randn(3, 1, 8, 8).double()
    before, layout = outputs(model, x), list(model.state_dict())
    assert not manualbp.restore(model, built=True).left
    assert all(type(layer).__module__.startswith("torch.nn.") for layer in model.modules())
    assert list(model.state_dict()) == layout
    assert distance(before[0], outputs(model, x)[0]) <= EXACT
    assert not manualbp.coverage(model(x)).by_hand
