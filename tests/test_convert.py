"""convert and restore: classes exchanged in place, everything else as it was, and a report."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from tests.checks import EXACT, distance, random_like
from tests.copies import COPIES


class Block(nn.Module):
    """A module with a forward of its own, which calls a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return T.relu(self.norm(self.conv(x)) + x)


class ScaledConv2d(nn.Conv2d):
    """A torch.nn layer with its own forward."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input)


class NamedLinear(nn.Linear):
    """A torch.nn layer's subclass that computes as it does."""

    name = "named"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        Block(),
        ScaledConv2d(4, 4, 1),
        nn.RReLU(0.3, 0.3),
        nn.Flatten(),
        NamedLinear(36, 5),
        manualbp.nn.Sigmoid(),
    ).double()


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def results(model: nn.Module) -> list[Tensor]:
    y = model(X)
    return [y, *torch.autograd.grad(y, list(model.parameters()), random_like(y))]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(distance(mine, theirs) <= EXACT for mine, theirs in zip(a, b, strict=True))


def test_the_report_names_every_module_that_computes() -> None:
    report = manualbp.convert(network())
    assert [(row.path, row.kind, row.converted, row.remark) for row in report.rows] == [
        ("0", "torch.nn.Conv2d", True, "-> manualbp.nn.Conv2d"),
        ("1.0", "torch.nn.ReLU", True, "-> manualbp.nn.ReLU"),
        ("1.1", "torch.nn.MaxPool2d", True, "-> manualbp.nn.MaxPool2d"),
        ("2", "Block", True, "its forward runs inside by_hand()"),
        ("2.conv", "torch.nn.Conv2d", True, "-> manualbp.nn.Conv2d"),
        ("2.norm", "torch.nn.BatchNorm2d", True, "-> manualbp.nn.BatchNorm2d"),
        ("3", "ScaledConv2d", False, "left: its own kind of Conv2d, with its own forward"),
        ("4", "torch.nn.RReLU", False, "left: manualbp has no RReLU"),
        ("6", "NamedLinear", True, "its forward runs inside by_hand()"),
        ("7", "manualbp.nn.Sigmoid", True, "is by hand already"),
    ]
    lines = str(report).splitlines()
    assert lines[0] == "converted: 8 of 10 modules"
    assert lines[6].split() == ["2.norm", "torch.nn.BatchNorm2d", "->", "manualbp.nn.BatchNorm2d"]
    assert len(report.converted) == 8
    assert [row.path for row in report.left] == ["3", "4"]


def test_same_numbers_by_hand() -> None:
    model = network()
    expected = results(copy.deepcopy(model))
    manualbp.convert(model)
    assert same(results(model), expected)
    assert set(manualbp.coverage(model(X)).layers) == {"Convolution", "RreluWithNoise"}  # those that were left


def test_everything_else_stays() -> None:
    """Parameters, buffers, hooks, mode, optimizer references: the same objects."""
    model = network().eval()
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[2].register_full_backward_hook(lambda *_: calls.append("backward"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tensors, modules = [*model.parameters(), *model.buffers()], list(model.modules())
    layout, printed = list(model.state_dict()), repr(model)
    manualbp.convert(model)
    assert all(a is b for a, b in zip(tensors, [*model.parameters(), *model.buffers()], strict=True))
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert list(model.state_dict()) == layout
    assert repr(model) == printed
    assert not any(module.training for module in model.modules())
    assert isinstance(model[0], nn.Conv2d)
    before = model[0].weight.detach().clone()
    model(X).sum().backward()
    optimizer.step()
    assert calls == ["forward", "backward"]
    assert not torch.equal(before, model[0].weight)


def contents(model: nn.Module) -> dict[str, Any]:
    """All that a module holds, by path: class and __dict__, without the modules and tensors inside."""
    return {
        path: (type(module), {k: v for k, v in vars(module).items() if not k.startswith("_")}, list(vars(module)))
        for path, module in model.named_modules()
    }


def test_restore_gives_back_exactly_what_was() -> None:
    model = network()
    model[0].register_forward_hook(print)
    hooks = dict(model[0]._forward_hooks)
    before, state = contents(model), {k: v.clone() for k, v in model.state_dict().items()}
    pickled = pickle.dumps(model.cpu())
    manualbp.convert(model)
    report = manualbp.restore(model)
    assert contents(model) == before
    assert dict(model[0]._forward_hooks) == hooks
    assert all(torch.equal(a, state[k]) for k, a in model.state_dict().items())
    assert pickle.dumps(model) == pickled
    assert len(report.rows) == 7
    assert type(model[7]) is manualbp.nn.Sigmoid
    assert manualbp.restore(model).rows == ()


def test_twice_is_once() -> None:
    model = network()
    before = contents(model)
    manualbp.convert(model)
    again = manualbp.convert(model)
    assert {row.remark for row in again.converted} == {"is by hand already"}
    manualbp.restore(model)
    assert contents(model) == before


@pytest.mark.parametrize("through", COPIES)
def test_a_copy_of_a_converted_model_is_converted_and_can_be_restored(through: Any) -> None:
    model = network()
    before = contents(model)
    manualbp.convert(model)
    other = through(model)
    assert contents(other).keys() == before.keys()
    assert same(results(other), results(model))
    assert "Relu" not in manualbp.coverage(other(X)).layers
    manualbp.restore(other)
    assert contents(other) == before
    assert type(model[0]) is manualbp.nn.Conv2d


def test_a_model_with_its_own_forward() -> None:
    """The outermost module's forward runs by hand; what is inside needs no wrapping."""
    model = nn.Sequential(Block(), Block()).double()
    outer = Block()
    outer.conv, outer.norm = model, ScaledConv2d(4, 4, 1).double()
    report = manualbp.convert(outer)
    rows = {row.path: row for row in report.rows}
    assert rows[""].remark == "its forward runs inside by_hand()"
    assert "conv.0" not in rows
    assert rows["norm"].remark == "left: its own kind of Conv2d; by hand inside the model"
    assert not manualbp.coverage(outer(torch.randn(2, 4, 5, 5).double())).layers
    assert str(report).splitlines()[1].startswith("(the model)")


def test_a_shared_module_is_converted_once() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    assert len(manualbp.convert(model).rows) == 1
    manualbp.restore(model)
    assert type(layer) is nn.Linear


def test_a_single_layer() -> None:
    layer = nn.Linear(3, 3)
    manualbp.convert(layer)
    assert type(layer) is manualbp.nn.Linear


def test_a_forward_that_was_replaced_is_left() -> None:
    block = Block()
    block.forward = lambda x: x
    model = nn.Sequential(block)
    assert manualbp.convert(model).rows[0].remark == "left: its forward was replaced"


@pytest.mark.parametrize("op", [manualbp.convert, manualbp.restore])
def test_what_is_no_module_is_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=f"{op.__name__}: model is a list"):
        op([nn.Linear(2, 2)])


def test_a_converted_model_compiles() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), Block()).double()
    expected = results(copy.deepcopy(model))
    manualbp.convert(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    y = compiled(X)
    assert same([y, *torch.autograd.grad(y, list(model.parameters()), random_like(y))], expected)
