"""Under activation checkpointing nothing outlives its step: no rule's node is in a cycle with what it keeps."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import manualbp
import manualbp.functional as F

RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "activation_max_pool2d": lambda x: F.activation_max_pool2d(x, "relu", 2),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_norm_activation": lambda x: F.batch_norm_activation(x, None, None, training=True, activation="sigmoid"),
}


def left(f: Callable[[Tensor], Tensor]) -> int:
    """The tensors that three steps leave for the cyclic collector, which is off."""
    x = torch.randn(2, 3, 4, 4, requires_grad=True)

    def step() -> None:
        checkpoint(f, x, use_reentrant=False).sum().backward()
        x.grad = None

    step()
    gc.collect()
    gc.disable()
    gc.freeze()  # what is there already is not among the collector's objects any more
    try:
        for _ in range(3):
            step()
        return sum(type(a) is Tensor for a in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("f", RULES.values(), ids=RULES)
def test_no_rule_leaves_an_activation(f: Callable[[Tensor], Tensor]) -> None:
    assert left(f) == 0


@pytest.mark.parametrize("fuse", [False, True])
def test_no_block_leaves_an_activation(fuse: bool) -> None:
    layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    model = torch.nn.Sequential(*layers)
    manualbp.convert(model)
    if fuse:
        manualbp.fuse(model)
    assert left(model) == 0


class Both(torch.autograd.Function):
    """A sigmoid that keeps its output for forward mode, too."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sigmoid()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return delta * y * (1 - y)


def test_the_count_finds_what_is_left() -> None:
    """One output a step, by a Function that does what `functional.rule.keep` is careful not to do."""
    assert left(Both.apply) >= 3


class Checkpointed(nn.Module):
    """A model that computes its layers again, functions among them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))

    def block(self, x: Tensor) -> Tensor:
        return torch.nn.functional.relu6(self.layers(x))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False)  # pyright: ignore[reportReturnType]


def test_a_model_that_computes_again() -> None:
    """Inside by_hand() and converted its functions are by hand both times, or PyTorch would find other tensors."""
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    model = Checkpointed().double()
    converted = copy.deepcopy(model)
    manualbp.convert(converted)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for m in (model, converted):
        with manualbp.by_hand() if m is model else torch.enable_grad():
            y = m(x)
        for a, b in zip(torch.autograd.grad(y.square().sum(), list(m.parameters())), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
