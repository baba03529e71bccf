"""torch.jit.trace, torch.export, ONNX, torch.fx: the right numbers and gradients, or a refusal that names `restore`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from tests.cases import CASES, ONE_OF_EACH, Case
from tests.checks import EXACT, distance, first, random_like, wanted

pytestmark = pytest.mark.filterwarnings("ignore")


def values(f: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    """The output and its gradients."""
    y = first(f(*inputs))
    return [y.detach(), *torch.autograd.grad(y, wanted(inputs), random_like(y))]


def tensors(inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return tuple(a for a in inputs if isinstance(a, Tensor))


def alike(case: Case, ours: list[Tensor], theirs: list[Tensor]) -> None:
    limit = 1e-7 if case.op == "hardsigmoid" else EXACT  # PyTorch's slope there is 1/6 in float32, also in float64
    assert all(distance(a, b) <= limit for a, b in zip(ours, theirs, strict=True))


class Call(nn.Module):
    """The case's function of its tensors."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.given, self.settings = case, case.inputs(), case.settings()

    def forward(self, *given: Tensor) -> Any:
        rest = iter(given)
        return self.case.ours(*(next(rest) if isinstance(a, Tensor) else a for a in self.given), **self.settings)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_traced_rules(case: Case) -> None:
    inputs = case.inputs()
    traced = torch.jit.trace(Call(case), tensors(inputs), check_trace=False)
    ours, theirs = values(traced, tensors(inputs)), values(lambda *_: case.torchs(*inputs, **case.settings()), inputs)
    alike(case, ours, theirs)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_exported_rules(case: Case) -> None:
    inputs = case.inputs()
    exported = torch.export.export(Call(case), tensors(inputs)).module()
    ours, theirs = values(exported, tensors(inputs)), values(lambda *_: case.torchs(*inputs, **case.settings()), inputs)
    alike(case, ours, theirs)


class Network(nn.Module):
    """Layers and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.gelu = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.GELU()
        self.again, self.linear = nn.Conv2d(6, 6, 1), nn.Linear(54, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.gelu(self.norm(self.conv(x))))
        return self.linear(T.avg_pool2d(T.relu(x), 2).flatten(1))


def layers() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Upsample(scale_factor=2), nn.MaxPool2d(4)),
        *(nn.GroupNorm(2, 6), nn.SiLU(), nn.Flatten(), nn.Linear(54, 5), nn.LayerNorm(5), nn.LogSoftmax(1)),
    )


def both_ways(model: nn.Module) -> None:
    manualbp.convert(model)
    manualbp.fuse(model)


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(2))
every_model = pytest.mark.parametrize("make", [Network, layers])
every_way = pytest.mark.parametrize("way", [manualbp.convert, manualbp.fuse, both_ways])
Way = Callable[[nn.Module], Any]


def pair(make: Callable[[], nn.Module], way: Way, training: bool = False) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = make().train(training)
    ours = copy.deepcopy(theirs)
    way(ours)
    return ours, theirs


def of_parameters(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the parameters' gradients, by name."""
    y = model(x)
    parameters = dict(sorted(model.named_parameters()))
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(parameters.values()))]


def trace(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, X)


def export(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False).module()


def export_strictly(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=True).module()


@every_model
@pytest.mark.parametrize(
    ("record", "way"), [(trace, manualbp.convert), (trace, both_ways), (export, manualbp.convert), (export, both_ways)]
)
@pytest.mark.parametrize("training", [True, False])
def test_models(record: Callable[[nn.Module], nn.Module], make: Any, way: Way, training: bool) -> None:
    """The gradients of what was recorded, also for a batch of another size."""
    ours, theirs = pair(make, way, training)
    recorded = record(ours)
    for x in (X, OTHER):
        for a, b in zip(of_parameters(recorded, x), of_parameters(theirs, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("record", [trace, export, export_strictly])
def test_models_in_by_hand(record: Callable[[nn.Module], nn.Module]) -> None:
    ours, theirs = pair(Network, lambda _: None)
    with manualbp.by_hand():
        recorded = record(ours)
    for a, b in zip(of_parameters(recorded, OTHER), of_parameters(theirs, OTHER), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "way"), [(Network, both_ways), (layers, manualbp.convert)])
def test_onnx(make: Any, way: Way, tmp_path: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    ours, theirs = pair(make, way)
    torch.onnx.export(ours, (X,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    run = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))
    (y,) = run.run(None, {run.input_names[0]: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), theirs(X), rtol=1e-4, atol=1e-5)


@every_model
@every_way
def test_what_cannot_be_recorded_names_restore(make: Any, way: Way, tmp_path: Path) -> None:
    ours, _ = pair(make, way)
    for record in (torch.jit.script, torch.fx.symbolic_trace):
        with pytest.raises(TypeError, match=r"manualbp\.restore\(model\) first"):
            record(ours)
    pytest.importorskip("onnx")
    with pytest.raises(TypeError, match=r"manualbp\.restore\(model\) first .*dynamo=True"):
        torch.onnx.export(ours, (X,), tmp_path / "model.onnx", dynamo=False)
