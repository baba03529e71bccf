"""fuse and unfuse: the same numbers, the same objects, less memory."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

import manualbp
from benchmarks.memory import kept_bytes
from manualbp.kernels import pieces
from tests.checks import distance, random_like
from tests.copies import COPIES, through_pickle
from tests.fusing import X, every_model, fused, make, results, same


@every_model
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("convert", [True, False])
def test_same_numbers(name: str, training: bool, convert: bool) -> None:
    expected = make(name, convert=False).train(training)
    model = fused(make(name, convert)).train(training)
    assert not convert or manualbp.coverage(copy.deepcopy(model)(X)).layers == {}
    assert same(results(model), results(expected))
    assert same(results(model.train()), results(expected.train()))  # and changed over
    assert same(results(model.eval()), results(expected.eval()))


@every_model
def test_some_samples_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results(make(name, convert=False))
    monkeypatch.setattr(pieces, "PIECE", 100)
    assert same(results(fused(make(name))), expected)


def test_the_report_names_every_place() -> None:
    model = make("residual")[0]
    report = manualbp.fuse(model)
    assert [(row.path, row.kind, row.converted, row.remark) for row in report.rows] == [
        ("bn1, relu", "BatchNorm2d, ReLU", True, "keep their input alone"),
        ("conv2", "Conv2d", True, "keeps what its input is made of"),
        ("bn2", "BatchNorm2d", False, "left: nothing behind it computes its output again"),
        ("down.1", "BatchNorm2d", False, "left: nothing behind it computes its output again"),
        ("relu", "ReLU", True, "keeps a bit a number"),
    ]
    assert str(report).splitlines()[0] == "fused: 3 of 5 places"
    model = make("residual")
    rows = {row.path: row.remark for row in manualbp.fuse(model).converted}  # the next block takes the sum
    assert rows["0.bn2"] == rows["0.down.1"] == "keeps its input alone"


@pytest.mark.parametrize(
    ("behind", "why"),
    [
        (nn.Flatten(), "nothing behind it keeps its output"),
        (nn.PReLU(), "PReLU, whose slope is trained, keeps its output"),
        (nn.MaxPool2d(2), "MaxPool2d keeps its output"),
        (nn.Conv2d(4, 4, 2, padding=1, padding_mode="circular"), "Conv2d keeps its output"),
    ],
)
def test_the_report_says_why_a_norm_is_left(behind: nn.Module, why: str) -> None:
    alone = nn.Sequential(nn.BatchNorm2d(4), behind)
    assert [row.remark for row in manualbp.fuse(alone).rows] == [f"left: {why}"]
    assert "forward" not in alone.__dict__


def test_what_is_fused_is_a_rule_of_its_own() -> None:
    by_hand = manualbp.coverage(fused(make("residual"))(X)).by_hand
    assert by_hand.keys() >= {"FactorAgain", "NormaliseActivate", "ReLUBits"}
    assert "Correlate" in manualbp.coverage(make("residual")(X)).by_hand


def contents(model: nn.Module) -> list[tuple[str, type, dict[str, Any]]]:
    """All that the modules hold."""
    return [(path, type(module), dict(vars(module))) for path, module in model.named_modules()]


@every_model
def test_unfuse_gives_back_exactly_what_was(name: str) -> None:
    model = make(name)
    before, objects = contents(model), [*model.parameters(), *model.buffers(), *model.modules()]
    layout, printed = list(model.state_dict()), repr(model)
    fused(model)
    assert all(a is b for a, b in zip(objects, [*model.parameters(), *model.buffers(), *model.modules()], strict=True))
    assert (list(model.state_dict()), repr(model)) == (layout, printed)
    report = manualbp.unfuse(model)
    assert [row.remark for row in report.rows] == ["unfused"]
    assert [(path, kind, list(held.items())) for path, kind, held in contents(model)] == [
        (path, kind, list(held.items())) for path, kind, held in before
    ]
    assert manualbp.unfuse(model).rows == ()
    manualbp.restore(model)
    assert same(results(model), results(make(name, convert=False)))


@pytest.mark.parametrize("op", [manualbp.fuse, manualbp.convert, manualbp.restore])
def test_what_is_fused_must_be_unfused_first(op: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(fused(make("residual")))
    with pytest.raises(ValueError, match=f"{op.__name__}: the model is fused already; unfuse it first"):
        op(model)


@pytest.mark.parametrize("op", [manualbp.fuse, manualbp.unfuse])
def test_what_is_no_module_is_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=f"{op.__name__}: model is a list"):
        op([nn.Linear(2, 2)])


@pytest.mark.parametrize("through", COPIES)
def test_a_copy_is_fused_and_can_be_unfused(through: Callable[[nn.Module], nn.Module]) -> None:
    model = fused(make("residual"))
    other = through(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    expected = make("residual", convert=False)
    with torch.no_grad():
        for p in expected.parameters():
            p.mul_(1.5)
    assert "FactorAgain" in manualbp.coverage(copy.deepcopy(other)(X)).by_hand
    assert same(results(other), results(expected))
    assert same(results(model), results(make("residual", convert=False)))
    manualbp.unfuse(other)
    assert "FactorAgain" not in manualbp.coverage(other(X)).by_hand
    assert "FactorAgain" in manualbp.coverage(model(X)).by_hand


def test_frozen_parameters_and_frozen_statistics() -> None:
    """bn.eval() inside of a network that trains; a kernel and a norm that do not."""
    model, expected = fused(make("residual")), make("residual", convert=False)
    for one in (model, expected):
        one[0].bn1.eval()
        one[1].conv2.weight.requires_grad_(False)
        one[1].bn1.requires_grad_(False)
        one[2].bn2.eval().requires_grad_(False)
    assert same(results(model), results(expected))


@every_model
def test_compile(name: str) -> None:
    torch._dynamo.reset()
    model, expected = fused(make(name)), make(name, convert=False)
    for one in (model, copy.deepcopy(model)):
        compiled = torch.compile(one, fullgraph=True, backend="aot_eager")
        assert same(results(one, compiled), results(copy.deepcopy(expected)))
    assert same(results(model.eval(), compiled_again(model)), results(eval_after_step(expected)))


def compiled_again(model: nn.Module) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def eval_after_step(model: nn.Module) -> nn.Module:
    """In evaluation, with the statistics that one step in training leaves."""
    model(X)
    return model.eval()


def test_compile_of_an_unpickled_copy() -> None:
    """As it is, until it was called once: nothing can be traced inside torch.compile."""
    model, expected = fused(make("residual")), make("residual", convert=False)
    other = through_pickle(model)
    assert same(results(other, compiled_again(other)), results(expected))
    other(X)
    expected(X)
    assert same(results(other, compiled_again(other)), results(expected))


@every_model
def test_the_gradients_of_each_image(name: str) -> None:
    """torch.func, with the statistics of training."""

    def of_each(model: nn.Module) -> dict[str, Tensor]:
        parameters = {name: p.detach() for name, p in model.named_parameters()}

        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(model, parameters, (x[None],)).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(parameters, X)

    mine, theirs = of_each(fused(make(name)).eval()), of_each(make(name, convert=False).eval())
    for key, g in mine.items():
        assert distance(g, theirs[key]) <= 1e-9


@every_model
def test_checkpointing(name: str) -> None:
    model, expected = fused(make(name)).eval(), make(name, convert=False).eval()
    assert same(results(model, lambda x: checkpoint(model, x, use_reentrant=False)), results(expected))


@every_model
def test_autocast(name: str) -> None:
    """As near to float64 as PyTorch's own, in its dtypes."""
    truth = results(make(name, convert=False))
    model, expected = fused(make(name)).float(), make(name, convert=False).float()

    def run(one: nn.Module) -> list[Tensor]:
        def f(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return one(x)

        return results(one, f)

    mine, theirs = run(model), run(expected)
    assert mine[0].dtype == theirs[0].dtype
    far = sum(distance(a, b) for a, b in zip(theirs[:2], truth[:2], strict=True))
    assert sum(distance(a, b) for a, b in zip(mine[:2], truth[:2], strict=True)) <= 2 * far


def test_second_derivatives() -> None:
    model = fused(
        nn.Sequential(nn.BatchNorm2d(2), nn.GELU(), nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2), nn.Sigmoid()).double()
    )
    x = random_like(torch.empty(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert "FactorAgain" in manualbp.coverage(model(x)).by_hand
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # finite differences are of a function that stays the same
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def f(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    assert gradcheck(f, (x, *weights), rtol=1e-6, atol=1e-7)
    assert gradgradcheck(f, (x, *weights), rtol=1e-6, atol=1e-7)


def test_a_residual_network_keeps_much_less() -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None)
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = nn.Identity()
    mine = copy.deepcopy(theirs)
    manualbp.convert(mine)
    fused(mine)
    x = torch.randn(2, 3, 32, 32)
    kept = [kept_bytes(partial(one, x), [*one.parameters(), *one.buffers()]) for one in (mine, theirs)]
    assert kept[0] <= 0.6 * kept[1]
