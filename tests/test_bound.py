"""convert and fuse refer to no module: every copy of a model computes with its own layers."""

import copy
import pickle
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as T
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import manualbp
from manualbp.fuse.written import WRITTEN
from tests.checks import distance
from tests.fusing import EXACT, Residual

WAYS: dict[str, Callable[[nn.Module], None]] = {
    "convert": lambda m: (manualbp.convert(m), None)[1],
    "fuse": lambda m: (manualbp.fuse(m), None)[1],
    "convert and fuse": lambda m: (manualbp.convert(m), manualbp.fuse(m), None)[2],
}
every_way = pytest.mark.parametrize("way", WAYS)
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.conv2 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(T.relu(self.bn(self.conv(x)))).mean((2, 3)))


def net(way: str) -> Net:
    torch.manual_seed(0)
    model = Net().double().eval()
    WAYS[way](model)
    return model


def modules_in(held: Any, seen: set[int]) -> list[nn.Module]:
    """The modules that an object of the package refers to, however deep."""
    if isinstance(held, nn.Module):
        return [held]
    if id(held) in seen or isinstance(held, type):
        return []
    seen.add(id(held))
    inside = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple | set) else ()
    own = vars(held).values() if type(held).__module__.startswith("manualbp") else ()
    return [m for a in (*inside, *own) for m in modules_in(a, seen)]


@every_way
def test_nothing_that_is_put_into_a_module_refers_to_one(way: str) -> None:
    for module in net(way).modules():
        added = [held for name, held in vars(module).items() if name.startswith("_manualbp")]
        assert modules_in(added, set()) == []
        assert "forward" not in vars(module)


@every_way
def test_a_shallow_copy_computes_with_its_own_layers(way: str) -> None:
    model = net(way)
    other = copy.copy(model)
    other._modules = {**model._modules, "fc": nn.Linear(5, 7).double()}
    assert other(X).shape == (4, 7)
    assert model(X).shape == (4, 4)


@every_way
def test_a_replica_computes_with_its_own_parameters(way: str) -> None:
    """As nn.DataParallel makes it, with parameters that are no nn.Parameter."""
    model = net(way)
    replica = model._replicate_for_data_parallel()
    replica._modules = {name: child._replicate_for_data_parallel() for name, child in model._modules.items()}
    weights = {}
    for name, child in model._modules.items():
        for key, p in child._parameters.items():
            weights[f"{name}.{key}"] = (2 * p.detach()).requires_grad_()
            setattr(replica._modules[name], key, weights[f"{name}.{key}"])
    expected = Net().double().eval()
    expected.load_state_dict({**model.state_dict(), **{k: w.detach() for k, w in weights.items()}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = replica(X)
    assert distance(y, expected(X)) <= EXACT
    y.sum().backward()
    assert all(w.grad is not None for w in weights.values())
    assert all(p.grad is None for p in model.parameters())


@every_way
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_by_every_protocol(way: str, protocol: int) -> None:
    model = net(way)
    other = pickle.loads(pickle.dumps(model, protocol))
    assert type(other) is type(model)
    with torch.no_grad():
        other.fc.bias.add_(1)
    assert distance(other(X) - 1, model(X)) <= EXACT


@every_way
def test_a_parametrisation_that_is_put_on_later(way: str) -> None:
    """It runs; restore and unfuse leave its class, and say so; when it is gone, they give back what was."""
    model, expected = net(way), Net().double().eval()
    expected.load_state_dict(model.state_dict())
    for one in (model, expected):
        torch.manual_seed(0)
        parametrizations.weight_norm(one.conv2)
        with torch.no_grad():
            one.conv2.parametrizations.weight.original0.mul_(1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "fuse again"
        assert distance(model(X), expected(X)) <= EXACT
    manualbp.unfuse(model)
    remarks = {row.path: row.remark for row in manualbp.restore(model).rows}
    assert type(model.conv2).__name__ == "ParametrizedConv2d"
    assert distance(model(X), expected(X)) <= EXACT
    if way != "fuse":
        assert remarks["conv2"] == "left: its class was exchanged after `convert`"
    parametrize.remove_parametrizations(model.conv2, "weight")
    manualbp.restore(model)
    assert type(model) is Net
    assert type(model.conv2) is nn.Conv2d
    assert not any(name.startswith("_manualbp") for m in model.modules() for name in vars(m))


@every_way
def test_a_parametrisation_of_the_model_itself(way: str) -> None:
    model = net(way)
    model.register_parameter("scale", nn.Parameter(torch.ones(1, dtype=torch.float64)))
    parametrize.register_parametrization(model, "scale", nn.Identity())
    kind = type(model)
    report = [*manualbp.unfuse(model).rows, *(manualbp.restore(model).rows if way == "convert" else ())]
    assert type(model) is kind
    assert any(row.path == "" and row.remark.startswith("left: its class was exchanged after") for row in report)


@every_way
def test_fully_sharded(way: str, tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not dist.is_gloo_available():
        pytest.skip("no gloo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        model, expected = net(way), net(way)(X)
        fsdp.fully_shard(model.conv2, mesh=mesh)
        fsdp.fully_shard(model, mesh=mesh)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "fuse again": a layer has hooks now
            y = model(X)
        assert distance(y, expected) <= EXACT
        y.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        dist.destroy_process_group()


@every_way
def test_export(way: str) -> None:
    """The forward operations, as the rules compute them; what is said of the gradient is in the warning."""
    model = net(way)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (X,))
    assert distance(exported.module()(X), model(X)) <= EXACT


def test_traced_when_fuse_is_called_and_never_in_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[bool] = []
    original = torch.fx.Tracer.trace

    def trace(self: Any, root: nn.Module, *args: Any, **kwargs: Any) -> Any:
        traces.append(root.training)
        return original(self, root, *args, **kwargs)

    monkeypatch.setattr(torch.fx.Tracer, "trace", trace)
    torch.manual_seed(0)
    model = nn.Sequential(Residual(), Residual(stride=1)).double()
    manualbp.fuse(model)
    assert sorted(traces) == [False, True]
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    model(x)
    model.eval()(x)
    other = pickle.loads(pickle.dumps(model))
    assert "FactorAgain" in manualbp.coverage(other(x)).by_hand
    model[0].bn1.train()
    model[1].register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="Fuse again"):
        model(x)
    assert len(traces) == 2


CHANGES: dict[str, Callable[[nn.Sequential], Any]] = {
    "a hook of a layer": lambda m: m[1].register_forward_hook(lambda *_: None),
    "a hook of a block": lambda m: m[3].register_forward_pre_hook(lambda *_: None),
    "a backward hook": lambda m: m[2].register_full_backward_hook(lambda *_: None),
    "one norm in evaluation": lambda m: m[1].eval(),
    "another layer": lambda m: m.__setitem__(2, nn.Tanh()),
    "a layer more": lambda m: m.append(nn.Sigmoid()),
    "a layer more inside": lambda m: m[3].append(nn.Sigmoid()),
    "a setting": lambda m: setattr(m[3][0], "padding_mode", "circular"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_runs_as_it_is_and_is_said(change: str) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), inner).double()
    manualbp.fuse(model)
    expected = manualbp.unfuse(other := copy.deepcopy(model)) and other
    CHANGES[change](model), CHANGES[change](expected)
    with pytest.warns(UserWarning, match="Sequential is not as it was when it was fused"):
        y = model(X)
    assert distance(y, expected(X)) <= EXACT


def test_hooks_for_all_modules_fire_for_every_layer() -> None:
    model = net("fuse")
    seen: list[type] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    try:
        with pytest.warns(UserWarning, match="Fuse again"):
            model(X)
    finally:
        handle.remove()
    assert [kind.__name__ for kind in seen] == ["Conv2d", "BatchNorm2d", "Conv2d", "Linear", "Net"]
    seen.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X)


def test_the_source_is_shown_and_has_lines_in_tracebacks() -> None:
    torch.manual_seed(0)
    model = Net().double()
    report = manualbp.fuse(model)
    assert "# (the model), in training" in report.code
    assert "recorrelated" in report.code
    for one in (model, pickle.loads(pickle.dumps(model))):
        assert one.__dict__[WRITTEN][True].source.strip() in report.code
        try:
            one(X[:, :2])
        except RuntimeError as error:
            lines = [f"{frame.filename}: {frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
        assert any(line.startswith("<manualbp.fuse Net in training") and "self.conv(x)" in line for line in lines)


class Detector(nn.Module):
    """Attributes of its own that are named as a layer's settings are."""

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.padding = [8, 16], {"a": [1]}
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.stride[0]


@pytest.mark.parametrize(
    "last",
    [
        *[nn.MaxPool2d([2, 2]), nn.AvgPool2d((2,)), nn.AvgPool2d([2, 2]), nn.MaxPool2d((2,)), nn.AvgPool2d(2, [2])],
        *[nn.AvgPool2d(2, None, [1]), nn.AvgPool2d(2, (1,), 0), Detector()],
    ],
    ids=str,
)
def test_unusual_settings(last: nn.Module) -> None:
    torch.manual_seed(0)
    first = nn.Sequential() if isinstance(last, Detector) else nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model = nn.Sequential(first, *([] if isinstance(last, Detector) else [nn.Conv2d(4, 3, 3)]), last).double()
    expected = copy.deepcopy(model)
    manualbp.convert(model)
    manualbp.fuse(model)
    assert distance(model(X), expected(X)) <= EXACT
    assert manualbp.memory(copy.deepcopy(expected), X).rows
