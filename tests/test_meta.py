"""Where there are shapes and no numbers: the meta device and fake tensors. Every rule, every layer, every way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import manualbp
from tests.cases import CASES, Case
from tests.checks import first, wanted
from tests.nn.test_modules import LOSSES, MODULES
from tests.nn.test_modules import make as layer

Description = list[tuple[torch.Size, torch.dtype, tuple[int, ...]]]


def described(results: Any) -> Description:
    """Shape, dtype and the strides that mean something."""
    return [
        (a.shape, a.dtype, tuple(s for s, n in zip(a.stride(), a.shape, strict=True) if n > 1))
        for a in results
        if isinstance(a, Tensor)
    ]


def results(f: Callable[..., Any], case: Case, device: str) -> Description:
    """Outputs and gradients, of first and second order."""
    inputs = case.inputs(device, torch.float32)
    y = f(*inputs, **case.settings(device, torch.float32))
    delta = torch.ones_like(first(y)).requires_grad_()
    gradients = torch.autograd.grad(first(y), wanted(inputs), delta, create_graph=True)
    second = torch.autograd.grad(gradients, [delta, *wanted(inputs)], gradients, allow_unused=True)
    found = [*(y if isinstance(y, tuple) else (y,)), *gradients, *second]
    assert all(a is None or a.device.type == device for a in found)
    return described(found)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules(case: Case) -> None:
    assert results(case.ours, case, "meta") == results(case.ours, case, "cpu")


def layer_results(module: nn.Module, *inputs: Tensor) -> Description:
    y = module(*(x * 1 if x.is_floating_point() else x for x in inputs))
    y = y if isinstance(y, tuple) else (y,)
    y[0].sum().backward()
    return described([*y, *(a.grad for a in (*inputs, *module.parameters()))])


def layers_on(device: str, namespace: Any) -> dict[str, Description]:
    """The layers made and run there."""
    found = {}
    with torch.device(device):
        for i, (name, args, kwargs, shape) in enumerate(MODULES):
            if "momentum" in kwargs:
                continue  # momentum=None asks for the number of batches, which is none there, in torch.nn as well
            x = torch.ones(shape, requires_grad=True)
            found[f"{name} {i}"] = layer_results(layer(namespace, name, *args, **kwargs), x)
        for i, (name, kwargs) in enumerate(LOSSES):
            weights = {key: torch.ones(4) for key, a in kwargs.items() if isinstance(a, Tensor)}
            loss, z = layer(namespace, name, **kwargs | weights), torch.ones(6, 4, requires_grad=True)
            t = torch.arange(6) % 4 if name in ("CrossEntropyLoss", "NLLLoss") else torch.ones(6, 4)
            found[f"{name} {i}"] = layer_results(loss, z, t)
    return found


def test_layers() -> None:
    on_meta, on_cpu = layers_on("meta", manualbp.nn), layers_on("cpu", manualbp.nn)
    assert {name: r for name, r in on_meta.items() if r != on_cpu[name]} == {}


def connected_on(device: str) -> Description:
    with torch.device(device):
        table = manualbp.nn.ConnectedConv2d(4, 3, 2, [[0, 1], [2], [1, 3]])
        return layer_results(table, torch.ones(2, 4, 5, 5, requires_grad=True))


def test_connected_conv2d() -> None:
    """Its table is read when it is made, so it cannot be made of fake tensors."""
    assert connected_on("meta") == connected_on("cpu")


def test_layers_on_fake_tensors() -> None:
    with FakeTensorMode():
        fake = layers_on("cpu", manualbp.nn)
    on_cpu = layers_on("cpu", manualbp.nn)
    assert {name: r for name, r in fake.items() if r != on_cpu[name]} == {}


def network() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.SiLU(), nn.Flatten(), nn.Linear(54, 5))


def as_it_is(model: nn.Module) -> None:
    pass


def both(model: nn.Module) -> None:
    manualbp.convert(model)
    manualbp.fuse(model)


WAYS = [as_it_is, manualbp.convert, manualbp.fuse, both]
every_way = pytest.mark.parametrize("way", WAYS, ids=["by_hand", "convert", "fuse", "convert and fuse"])


def trained(model: nn.Module, x: Tensor) -> Description:
    with manualbp.by_hand():
        loss = T.cross_entropy(model(x), x.new_zeros(len(x), dtype=torch.int64))
    loss.backward()
    return described([loss, *(p.grad for p in model.parameters())])


@every_way
def test_models(way: Callable[[nn.Module], Any]) -> None:
    """Made on the meta device, trained there, then given numbers."""
    with torch.device("meta"):
        model = network()
        way(model)
        x = torch.ones(4, 3, 8, 8)
    expected = network()
    x_there = torch.ones(4, 3, 8, 8)
    assert trained(model, x) == trained(expected, x_there)
    model = model.to_empty(device="cpu")
    model.load_state_dict(expected.state_dict())
    torch.testing.assert_close(model(x_there), expected(x_there))


@pytest.mark.parametrize("way", WAYS[:2], ids=["by_hand", "convert"])
def test_models_on_fake_tensors(way: Callable[[nn.Module], Any]) -> None:
    with FakeTensorMode():
        model = network()
        way(model)
        ours = trained(model, torch.ones(4, 3, 8, 8))
    assert ours == trained(network(), torch.ones(4, 3, 8, 8))
