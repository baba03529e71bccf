"""Tests of the tests: mistakes that people make, planted into the rules. Each must be caught by a named check."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from manualbp.functional.activation import Sigmoid
from manualbp.functional.conv import Correlate
from manualbp.kernels import activation, conv, pool
from manualbp.kernels.geometry import Geometry
from tests import checks
from tests.cases import Case
from tests.cases.activation import ELEMENTWISE
from tests.cases.conv import CONV2D
from tests.cases.pool import AVG_POOL2D

right = {name: getattr(module, name) for module, name in [
    (conv, "full_convolve"),
    (conv, "kernel_gradient"),
    (pool, "window_spread"),
    (activation, "sigmoid_slope"),
]}  # fmt: skip
right_backward = Correlate.backward


def not_rotated(delta: Tensor, w: Tensor, g: Geometry) -> Tensor:
    """Full convolution with the kernel as it stands."""
    return right["full_convolve"](delta, w.flip(2, 3), g)


def not_divided(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """Average pooling's adjoint without 1/m^2."""
    return right["window_spread"](delta, g, count_include_pad, 1)


def no_slope(ctx: Any, delta: Tensor) -> Tensor:
    """phi' forgotten."""
    return delta.clone()


def bias_not_summed(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of the bias of one image only."""
    dx, dw, db, _ = right_backward(ctx, delta)
    return dx, dw, delta[:1].sum((0, 2, 3)) if db is not None else None, None


def in_float32(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """Double precision lost on the way."""
    return right["kernel_gradient"](x.float(), delta.float(), g).to(x.dtype)


def a_little_off(delta: Tensor, y: Tensor) -> Tensor:
    """A relative error of 1e-9."""
    return right["sigmoid_slope"](delta, y) * (1 + 1e-9)


def writes_into_delta(delta: Tensor, y: Tensor) -> Tensor:
    """The right numbers, in the wrong memory."""
    return delta.mul_(y).mul_(1 - y)


def contiguous_only(delta: Tensor, y: Tensor) -> Tensor:
    """Reads delta's memory in order, whatever its strides."""
    storage = delta.as_strided((min(y.numel(), delta.untyped_storage().nbytes() // delta.element_size()),), (1,))
    return right["sigmoid_slope"](storage.repeat(y.numel())[: y.numel()].view(y.shape), y)


def by_pytorch(delta: Tensor, y: Tensor) -> Tensor:
    """PyTorch's own backward: right, and not by hand."""
    return torch.ops.aten.sigmoid_backward(delta, y)


CONV = CONV2D[0]
AVERAGE = AVG_POOL2D[2]
SIGMOID = ELEMENTWISE[0]
PLANTED: list[tuple[Any, str, Callable[..., Any], Case, set[Callable[..., None]]]] = [
    (conv, "full_convolve", not_rotated, CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (pool, "window_spread", not_divided, AVERAGE, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Sigmoid, "backward", staticmethod(no_slope), SIGMOID, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Correlate, "backward", staticmethod(bias_not_summed), CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (conv, "kernel_gradient", in_float32, CONV, {checks.equals_pytorch}),
    (activation, "sigmoid_slope", a_little_off, SIGMOID, {checks.equals_pytorch}),
    (activation, "sigmoid_slope", writes_into_delta, SIGMOID, {checks.takes_any_delta}),
    (activation, "sigmoid_slope", contiguous_only, SIGMOID, {checks.takes_any_delta}),
    (activation, "sigmoid_slope", by_pytorch, SIGMOID, {checks.is_by_hand}),
]
FAILURES = (AssertionError, GradcheckError, RuntimeError)


@pytest.mark.parametrize(("where", "name", "wrong", "case", "catchers"), PLANTED)
def test_caught(
    where: Any,
    name: str,
    wrong: Any,
    case: Case,
    catchers: set[Callable[..., None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for check in catchers:
        check(case)
    monkeypatch.setattr(where, name, wrong)
    for check in catchers:
        with pytest.raises(FAILURES):
            check(case)


def test_the_recorder_sees_backward_operators() -> None:
    """On PyTorch's own conv2d, sigmoid and pooling the recorder does find what is_by_hand forbids."""
    for case in (CONV, AVERAGE, SIGMOID):
        assert any("_backward" in name for name in checks.operators(case.torchs, case))


def test_the_oracle_is_not_ours() -> None:
    """The comparison is with PyTorch's function, not with the rule itself."""
    x, w, b = CONV.inputs()
    assert "Correlate" not in type(CONV.torchs(x, w, b).grad_fn).__name__
    assert "Correlate" in type(CONV.ours(x, w, b).grad_fn).__name__
    assert T.conv2d is not CONV.ours
