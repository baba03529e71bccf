"""Runs that go wrong: the step, the layer that was the first, the checkpoint that is still good."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch import Tensor

import manualbp
import manualbp.nn
from manualbp.training import classifier, run
from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.data import ImageData
from manualbp.training.finite import MOST_SKIPPED, FiniteCheck
from manualbp.training.sources import digits
from manualbp.training.vision import network_of
from tests.training.runs import LAST, load, refused
from tests.training.test_devices import in_two

STEPS = 11  # of an epoch
SECOND = (64, 4, 4)  # what the second sigmoid, f2, is given
armed = False  # so that the check before the first step finds nothing


class Spoil(torch.autograd.Function):
    """The identity, whose backward has one NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> Tensor:
        spoilt = deltas[0].clone()
        if armed:
            spoilt[(-1,) * spoilt.ndim] = torch.nan
        return spoilt


class ForwardSigmoid(manualbp.nn.Sigmoid):
    """The one behind the second convolution."""

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return torch.where(y == y.max(), torch.nan, y) if armed and input.shape[1:] == SECOND else y


class BackwardSigmoid(manualbp.nn.Sigmoid):
    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return Spoil.apply(y) if input.shape[1:] == SECOND else y  # pyright: ignore[reportReturnType]


class BackwardLoss(manualbp.nn.CrossEntropyLoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        scores = Spoil.apply(input)
        assert isinstance(scores, Tensor)
        return super().forward(scores, target)


class BackwardWeight(manualbp.nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = Spoil.apply(self.weight)
        assert isinstance(weight, Tensor)
        return torch.nn.functional.conv2d(input, weight, self.bias, padding=self.padding)  # pyright: ignore


class Update(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if armed:
            self.param_groups[0]["params"][2].data[0, 0, 0, 0] = torch.nan
        return loss


def nothing(model: Classifier) -> None:
    pass


def overflow(model: Classifier) -> None:
    """Of the second convolution, whose weights are finite."""
    model.network.get_parameter("g2.weight").data.fill_(3e38)


def infinite(model: Classifier) -> None:
    model.network.get_parameter("W1.bias").data[0] = torch.inf


def arm(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[Classifier], None] = nothing) -> None:
    """From that step on, counted from 1, the planted layers are wrong."""
    monkeypatch.setattr(sys.modules[__name__], "armed", False)
    before = Classifier.on_train_batch_start

    def start(model: Classifier, batch: Any, batch_idx: int) -> None:
        global armed
        before(model, batch, batch_idx)
        if model.trainer.global_step + 1 == step and not armed:
            armed = True
            act(model)

    monkeypatch.setattr(Classifier, "on_train_batch_start", start)


def plant(monkeypatch: pytest.MonkeyPatch, wrong: type | None) -> None:
    if wrong is Update:
        monkeypatch.setitem(classifier.OPTIMIZERS, "sgd", Update)
    elif wrong is not None:
        monkeypatch.setattr(manualbp.nn, wrong.__mro__[1].__name__, wrong)


LOWER = "try --lr 0.01 in place of 0.1"
GRADIENT = "the first gradient that is not finite comes out of the backward of"


@pytest.mark.parametrize(
    ("wrong", "act", "step", "arguments", "words"),
    [
        (ForwardSigmoid, nothing, 13, [], ["step 13: the loss is", "comes out of f2 (ForwardSigmoid)", LOWER]),
        (ForwardSigmoid, nothing, 1, [], ["step 1: the loss is", "before any update", "no epoch was finished"]),
        (None, overflow, 13, ["--activation", "relu", "--lr", "0.02"], ["out of g2 (Conv2d)", "--lr 0.002"]),
        (None, overflow, 13, ["--activation", "relu", "--fuse"], ["out of g2 (Conv2d)"]),
        (None, infinite, 13, ["--activation", "relu"], ["step 13", "W1.bias is not finite after step 12", LOWER]),
        (BackwardSigmoid, nothing, 14, [], ["step 14: the gradient of g1.weight", f"{GRADIENT} f2 (BackwardSigmoid)"]),
        (BackwardSigmoid, nothing, 22, ["--fuse"], ["step 22", f"{GRADIENT} f2 (BackwardSigmoid)"]),
        (BackwardWeight, nothing, 12, [], ["step 12", "gradient of g1.weight", f"{GRADIENT} g2 (BackwardWeight)"]),
        (BackwardLoss, nothing, 12, ["--precision", "bf16-mixed"], [f"{GRADIENT} the loss (BackwardLoss)"]),
        (Update, nothing, 15, [], ["step 16: the loss is nan, as g2.weight is not finite after step 15", "an update"]),
        (Update, nothing, 22, [], ["g2.weight is not finite after step 22", LOWER]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_finite(
    wrong: type | None,
    act: Callable[[Classifier], None],
    step: int,
    arguments: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch, wrong)
    arm(monkeypatch, step, act)
    assert main(["--epochs", "6", *arguments]) == 3
    error = refused(capfd, words)
    if step > STEPS:
        assert f"; the last good checkpoint is {LAST}" in error
        kept = load(LAST)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in kept.values())
    else:
        assert not LAST.exists()


@pytest.mark.parametrize(("wrong", "step"), [(ForwardSigmoid, 13), (BackwardSigmoid, 12 + MOST_SKIPPED - 1)])
def test_16_bit(wrong: type, step: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the scale of the loss is sought, single gradients may overflow."""
    build = run.build_trainer

    def build_trainer(*arguments: Any) -> Any:
        trainer = build(*arguments)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return trainer

    monkeypatch.setattr(run, "build_trainer", build_trainer)
    plant(monkeypatch, wrong)
    arm(monkeypatch, 13 if wrong is ForwardSigmoid else 12)
    assert main(["--epochs", "6"]) == 3
    error = capfd.readouterr().err
    assert f"step {step}: " in error
    assert f"out of {'the backward of ' * (wrong is BackwardSigmoid)}f2 ({wrong.__name__}); {LOWER}, or " in error
    assert "--precision bf16-mixed or 32-true in place of 16-mixed; the last good checkpoint is " in error


def spoil_forward(layer: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * torch.nan


def largest(layer: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output + 3e38  # of two the sum is infinite


def spoil_backward(layer: torch.nn.Module, inputs: Any, output: Tensor) -> Any:
    return Spoil.apply(output)


BOTH = ["layer2.0.bn2", "layer2.0.downsample.1"]


@pytest.mark.parametrize(
    ("hook", "layers", "words"),
    [
        (spoil_forward, ["layer2.0.relu"], "value that is not finite comes out of layer2.0.relu (ReLU)"),
        (spoil_forward, ["layer3.1.bn1"], "comes out of layer3.1.bn1 (BatchNorm2d)"),
        (spoil_forward, ["layer3.1"], "comes out of layer3.1 (BasicBlock)"),
        (spoil_forward, [""], "comes out of the network"),
        (largest, BOTH, "comes into layer2.0.relu (ReLU)"),
        (spoil_backward, ["layer2.0.conv2"], "gradient that is not finite comes out of the backward of layer2.0.conv2"),
        (spoil_backward, ["layer2.1"], "comes into the backward of layer2.1.relu (ReLU)"),
        (spoil_backward, ["fc"], "comes out of the backward of fc (Linear)"),
        (None, [], "taken again, the step is finite"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_layers_that_work_in_place_and_sums(
    hook: Callable[..., Any] | None, layers: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong between two layers goes into the next one."""
    monkeypatch.setattr(sys.modules[__name__], "armed", True)
    data = ImageData(digits(tmp_path), 4, seed=0)
    torch.manual_seed(0)
    network = network_of("resnet18", data.shape, 10, "3x3")
    manualbp.convert(network)
    for name in layers:
        network.get_submodule(name).register_forward_hook(hook)  # pyright: ignore[reportArgumentType]
    model = Classifier(network, manualbp.nn.CrossEntropyLoss(), data, {"seed": 0})
    trainer: Any = SimpleNamespace(precision_plugin=Precision(), world_size=1, global_step=0, global_rank=0)
    model.trainer = trainer
    check = FiniteCheck()
    check.on_train_batch_start(trainer, model, data.train.__getitems__([0, 1, 2, 3])[:2], 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert words in check.search(trainer, model, backward=hook is spoil_backward)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_resumed_run_names_the_checkpoint_before(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, ForwardSigmoid)
    arm(monkeypatch, 13)
    assert main(["--resume", str(finished / "last.ckpt"), "--epochs", "2", "--output-dir", "runs"]) == 3
    assert f"the last good checkpoint is {finished / 'last.ckpt'}" in capfd.readouterr().err


@pytest.mark.parametrize("wrong", [ForwardSigmoid, BackwardSigmoid])
def test_two_processes_end_and_one_says_so(wrong: type, tmp_path: Path) -> None:
    """The second one alone has it."""
    planted = (
        "import os\n"
        "import manualbp.nn\n"
        "from manualbp.__main__ import leave\n"
        "from tests.training import test_finite\n"
        f"manualbp.nn.Sigmoid = test_finite.{wrong.__name__}\n"
        "import pytest\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    test_finite.arm(pytest.MonkeyPatch(), 8)\n"
    )
    result = in_two(tmp_path, 3, planted, "leave(main())")
    assert result.returncode == 3, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert f"out of {'the backward of ' * (wrong is BackwardSigmoid)}f2 ({wrong.__name__})" in result.stderr
    assert "the last good checkpoint is runs/digits-lecture004/version_0/last.ckpt" in result.stderr
