"""The two layers that torch.nn lacks, against dense layers of torch.nn on PyTorch's own gradients."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from manualbp.nn import LENET5_C3, ConnectedConv2d, Conv2d, TrueConv2d, random_connections
from manualbp.training import torch_layers
from tests.checks import EXACT, Recorder, distance, random_like

SETTINGS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": (1, 2), "bias": False},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": "same", "padding_mode": "circular"},
    {"groups": 2, "stride": (1, 2)},
]
X = random_like(torch.empty(2, 4, 7, 6, dtype=torch.float64))
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def table(groups: int = 1) -> Tensor:
    """[6, 4], some of it connected, within the groups."""
    seen = random_connections(4 // groups, 6, fan_in=4 // groups - 1, generator=torch.Generator().manual_seed(0))
    return torch.block_diag(*(part.int() for part in seen.chunk(groups))).bool()


def connected(settings: dict[str, Any], device: str = "cpu") -> ConnectedConv2d:
    torch.manual_seed(0)
    kwargs = {"device": device, "dtype": torch.float64}
    return ConnectedConv2d(4, 6, (3, 2), table(settings.get("groups", 1)), **settings, **kwargs)


def dense(layer: ConnectedConv2d) -> tuple[Any, Tensor]:
    """The layer's kernels in a torch.nn.Conv2d, and which of its kernels these are [O, C / groups]."""
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    settings = {name: getattr(layer, name) for name in names}
    other = torch.nn.Conv2d(4, 6, (3, 2), bias=layer.bias is not None, **settings).to(layer.weight)
    of_group = torch.arange(layer.groups).repeat_interleave(6 // layer.groups)
    own = layer.connections.view(6, layer.groups, -1)[torch.arange(6), of_group]
    state = {"weight": torch.zeros_like(other.weight)}
    state["weight"][own] = layer.weight.detach()
    other.load_state_dict(layer.state_dict() | state, strict=False)
    return other, own


@every_setting
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_connected_is_a_dense_layer_with_zeros(
    settings: dict[str, Any], layout: torch.memory_format, device: str
) -> None:
    layer = connected(settings, device)
    other, own = dense(layer)
    x = X.clone(memory_format=layout).to(device).requires_grad_()
    y, expected = layer(x), other(x)
    assert y.is_contiguous(memory_format=layout) or layer.padding_mode != "zeros"
    delta = random_like(y)
    names = [name for name, _ in layer.named_parameters()]
    ours = torch.autograd.grad(y, [x, *(layer.get_parameter(n) for n in names)], delta)
    theirs = list(torch.autograd.grad(expected, [x, *(other.get_parameter(n) for n in names)], delta))
    theirs[1 + names.index("weight")] = theirs[1 + names.index("weight")][own]
    for a, b in zip((y, *ours), (expected, *theirs), strict=True):
        assert distance(a, b) <= EXACT


@every_setting
def test_connected_passes_gradcheck_and_is_by_hand(settings: dict[str, Any], device: str) -> None:
    layer = connected(settings, device)
    x = X[:1].clone().to(device).requires_grad_()

    def f(x: Tensor, weight: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight}, x)

    assert gradcheck(f, (x, layer.weight), rtol=1e-6, atol=1e-7, check_forward_ad=True)
    y = layer(x)
    with Recorder() as recorder:
        y.backward(random_like(y))
    assert [name for name in recorder.names if "_backward" in name] == []


@every_setting
def test_by_autograd_the_numbers_are_the_same(settings: dict[str, Any]) -> None:
    """The pair that `train.py --backward` chooses from: one initialisation, one forward pass, one gradient."""
    results = []
    for layers in (torch_layers.ConnectedConv2d, ConnectedConv2d):
        torch.manual_seed(0)
        layer = layers(4, 6, (3, 2), table(settings.get("groups", 1)), **settings).double()
        y = layer(X)
        results.append([y, *torch.autograd.grad(y, layer.weight, random_like(y))])
    for layers in (torch_layers.TrueConv2d, TrueConv2d):
        torch.manual_seed(0)
        layer = layers(4, 6, (3, 2), **settings).double()
        y = layer(X)
        results.append([y, *torch.autograd.grad(y, layer.weight, random_like(y))])
    for one, other in (results[:2], results[2:]):
        assert all(distance(a, b) <= EXACT for a, b in zip(one, other, strict=True))


@every_setting
def test_true_convolution_is_conv2d_with_rotated_weights(settings: dict[str, Any], device: str) -> None:
    layer = TrueConv2d(4, 6, (3, 2), **settings).to(device, torch.float64)
    rotated = Conv2d(4, 6, (3, 2), **settings).to(device, torch.float64)
    rotated.load_state_dict(layer.state_dict() | {"weight": layer.weight.detach().flip(-2, -1)})
    y, expected = layer(X.to(device)), rotated(X.to(device))
    assert torch.equal(y, expected)
    delta = random_like(y)
    (ours,), (theirs,) = (
        torch.autograd.grad(y, layer.weight, delta),
        torch.autograd.grad(expected, rotated.weight, delta),
    )
    assert distance(ours, theirs.flip(-2, -1)) <= EXACT


def test_only_connected_kernels_are_parameters() -> None:
    lenet = ConnectedConv2d(6, 16, 5, LENET5_C3)
    assert sum(p.numel() for p in lenet.parameters()) == 60 * 25 + 16 == 1516  # LeCun et al. 1998
    assert lenet.connections.nonzero().tolist() == [[o, c] for o, row in enumerate(LENET5_C3) for c in row]
    layer = ConnectedConv2d(64, 256, 9, random_connections(64, 256, 16), bias=False)
    assert [tuple(p.shape) for p in layer.parameters()] == [(256 * 16, 9, 9)]


def test_initial_values_lie_within_the_fan_in_of_each_map() -> None:
    torch.manual_seed(0)
    layer = ConnectedConv2d(6, 16, 25, LENET5_C3)
    for o, row in enumerate(LENET5_C3):
        bound = (len(row) * 625) ** -0.5
        own = layer.weight[layer.output_map == o]
        assert 0.9 * bound < own.abs().max() <= bound
        assert layer.bias is not None
        assert abs(layer.bias[o]) <= bound


@pytest.mark.parametrize("fan_in", [1, 3, 5])
def test_random_connections(fan_in: int) -> None:
    seeded = [random_connections(5, 300, fan_in, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*seeded)
    assert seeded[0].dtype == torch.bool
    assert (seeded[0].sum(1) == fan_in).all()
    assert (seeded[0].sum(0) - 60 * fan_in).abs().max() < 45  # each input map about equally often


@pytest.mark.parametrize("groups", [1, 2])
def test_the_table_travels_with_the_weights(groups: int) -> None:
    layer = connected({"groups": groups})
    assert torch.equal(layer.connections, table(groups))
    assert f"connections={len(layer.weight)}" in repr(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(X), layer(X))
    unlike = ConnectedConv2d(4, 6, (3, 2), table(groups).flip(0, 1), groups=groups, dtype=torch.float64)
    unlike.load_state_dict(layer.state_dict())
    assert torch.equal(unlike(X), layer(X))


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[3]], ids=str)
def test_compiles_to_one_graph(settings: dict[str, Any]) -> None:
    for layer in (connected(settings), TrueConv2d(4, 6, (3, 2), **settings).double()):
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        y, expected = compiled(X), layer(X)
        delta = random_like(y)
        ours, theirs = (torch.autograd.grad(t, layer.weight, delta)[0] for t in (y, expected))
        assert distance(y, expected) <= EXACT
        assert distance(ours, theirs) <= EXACT


ROWS = [[0]] * 15
REFUSED: list[tuple[Any, dict[str, Any], list[str]]] = [
    (torch.ones(3, 6, dtype=torch.bool), {}, ["[3, 6]", "[16, 6]"]),
    (torch.ones(16, 6, 1, dtype=torch.bool), {}, ["[16, 6, 1]", "[16, 6]"]),
    (torch.ones(16, 6), {}, ["float32", "bool"]),
    (torch.ones(16, 6, dtype=torch.int64), {}, ["int64", "bool"]),
    (ROWS, {}, ["[15, 6]", "[16, 6]"]),
    ([*ROWS, []], {}, ["[15]", "no input map"]),
    (torch.eye(16, 6, dtype=torch.bool), {}, ["[6, 7, 8", "no input map"]),
    ([*ROWS, [1, 2, 1]], {}, ["connections[15]", "[1, 2, 1]", "twice"]),
    ([*ROWS, [6]], {}, ["connections[15]", "input map 6", "0 to 5"]),
    ([*ROWS, [-1]], {}, ["input map -1", "0 to 5"]),
    ([*ROWS, [1.0]], {}, ["connections[15]", "ints"]),
    ([[True, False, True, False, True, False]] * 16, {}, ["connections[0]", "bool tensor"]),
    (LENET5_C3, {"groups": 2}, ["connections[1]", "[1, 2, 3]", "groups = 2", "group 0"]),
]


@pytest.mark.parametrize(("connections", "settings", "words"), REFUSED, ids=lambda v: str(v)[:40])
def test_bad_tables_are_refused_by_name(connections: Any, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        ConnectedConv2d(6, 16, 3, connections, **settings)
    for word in ("ConnectedConv2d", "connections", *words):
        assert word in str(info.value)


@pytest.mark.parametrize("fan_in", [0, 6, -1])
def test_bad_fan_in_is_refused(fan_in: int) -> None:
    with pytest.raises(ValueError, match=f"fan_in = {fan_in}; .* 1 to the 5 input maps"):
        random_connections(5, 7, fan_in)
