"""The check of the gradients before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import manualbp
import manualbp.nn
from manualbp.fuse.written import FusedForward
from manualbp.training.check import GradientCheck
from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.data import ImageData
from manualbp.training.networks import lecture004
from manualbp.training.sources import digits


class WrongSlope(torch.autograd.Function):
    """A sigmoid whose backward says f (1 - f) wrongly, by one part in a thousand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return deltas[0] * y * (1 - y) * 1.001


class WrongBorder(torch.autograd.Function):
    """The identity, whose backward forgets one element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> Tensor:
        wrong = deltas[0].clone()
        wrong.view(-1)[-1] = 0
        return wrong


class Sigmoid(torch.nn.Sigmoid):
    def forward(self, input: Tensor) -> Tensor:
        result = WrongSlope.apply(input)
        assert isinstance(result, Tensor)
        return result


class Linear(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        weight = WrongBorder.apply(self.weight)
        assert isinstance(weight, Tensor)
        return torch.nn.functional.linear(input, weight, self.bias)


class MaxPool2d(torch.nn.MaxPool2d):
    def forward(self, input: Tensor) -> Tensor:
        result = WrongBorder.apply(super().forward(input))
        assert isinstance(result, Tensor)
        return result


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        scores = WrongBorder.apply(input)
        assert isinstance(scores, Tensor)
        return super().forward(scores, target)


WHERE = {
    Sigmoid: "input: ",
    Linear: "weight: ",
    MaxPool2d: "input: ",
    CrossEntropyLoss: "most at [1, 9]",
}


@pytest.mark.parametrize("wrong", WHERE)
def test_a_wrong_backward_is_not_trained_with(
    wrong: type[torch.nn.Module], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manualbp.nn, wrong.__name__, wrong)
    assert main(["--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"audit: the backward of {wrong.__name__} is wrong (float64, input " in error
    assert " along a direction, the true slope is " in error
    assert WHERE[wrong] in error
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("fuse", [False, True])
def test_the_check_disturbs_nothing(fuse: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ImageData(digits(tmp_path), 32, seed=0)
    network = lecture004(manualbp.nn, data.shape, 10)
    if fuse:
        manualbp.fuse(network)
    model = Classifier(network, manualbp.nn.CrossEntropyLoss(), data, {})
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    trainer: Any = type("Trainer", (), {"is_global_zero": True})
    GradientCheck().on_fit_start(trainer, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert isinstance(network, FusedForward) is fuse
    line = "audit: Conv2d, Sigmoid, MaxPool2d, Flatten, Linear, CrossEntropyLoss"
    assert capsys.readouterr().out.startswith(f"{line}{', the fused network' if fuse else ''} ok")
