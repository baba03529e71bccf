"""The bench of backward passes by hand: the right ones are right, and the wrong ones wrong where it can be seen."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.audit import CHECKS, Said, no_chance, said, summary
from benchmarks.mistakes import SAMPLES, Sample
from benchmarks.mistakes.sample import given, normal
from tests.checks import random_like

NAMED = {sample.name: sample for sample in SAMPLES}
RIGHT = [sample for sample in SAMPLES if sample.cause is None]
WRONG = [sample for sample in SAMPLES if sample.cause is not None]

# Right ones on which gradcheck raises an alarm, and why.
NOT_FOR_GRADCHECK = {
    # a kink among the inputs: a central difference is the mean of the slopes on both sides, the backward one of them
    "max_pool2d: ties",
    "relu at its kink",
    "relu at its kink, slope 1",
    "clamp at its ends",
    "maximum: ties, the first",
    "maximum: ties, the last",
    "minimum: ties, the first",
    "maximum: ties, shared",  # the shares of three ties are a third, the central difference is a half
    # float32: the difference is all rounding
    "square in float32 inside",
    "square that takes float32 alone",
    "sum of large numbers in float32",
    "sum of squares in float32",
    # 1e12 + 1e-6 is 1e12
    "squares of 1e12",
    # f draws other numbers at each call
    "dropout from the common generator",
}

# Those on which gradgradcheck alone raises one.
NOT_FOR_GRADGRADCHECK = {
    # the mean of the slopes is the difference, but it jumps
    "relu at its kink, slope a half",
    "abs at 0",
    "norm at 0",
    "square, differentiable once",  # marked so
}


def outputs(y: Any) -> tuple[Tensor, ...]:
    """Those that can be differentiated."""
    return tuple(t for t in (y if isinstance(y, tuple) else (y,)) if t.requires_grad)


def wanted(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [t for t in inputs if t.requires_grad]


def gradients(sample: Sample, inputs: tuple[Tensor, ...], change: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    """For random deltas, changed."""
    ys = outputs(sample.f(*inputs))
    return torch.autograd.grad(ys, wanted(inputs), [change(random_like(y)) for y in ys])


def test_names_are_unique() -> None:
    assert len(NAMED) == len(SAMPLES)
    assert NAMED.keys() >= NOT_FOR_GRADCHECK | NOT_FOR_GRADGRADCHECK | SHOWN.keys()


def test_every_kind_has_a_sample() -> None:
    assert {sample.kind for sample in WRONG} - {None} == set(range(1, 26))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_sample_runs_both_ways(sample: Sample) -> None:
    inputs = sample.inputs()
    ys = outputs(sample.f(*inputs))
    assert ys
    assert all(y.isfinite().all() for y in ys)
    found = torch.autograd.grad(ys, wanted(inputs), [random_like(y) for y in ys])
    assert [g.shape for g in found] == [t.shape for t in wanted(inputs)]
    assert sample.cause or all(g.isfinite().all() for g in found)


@pytest.mark.parametrize("sample", RIGHT, ids=lambda sample: sample.name)
def test_right_ones(sample: Sample) -> None:
    assert said(CHECKS["gradcheck"], sample).alarm == (sample.name in NOT_FOR_GRADCHECK)
    if sample.name not in NOT_FOR_GRADCHECK:
        assert said(CHECKS["gradgradcheck"], sample).alarm == (sample.name in NOT_FOR_GRADGRADCHECK)


def strided(delta: Tensor) -> Tensor:
    """The same numbers in every other place of the memory, the dimensions in reverse order."""
    reverse = tuple(range(delta.dim()))[::-1]
    return torch.stack([delta.permute(reverse)] * 2, -1)[..., 0].permute(reverse)


@pytest.mark.parametrize("sample", RIGHT, ids=lambda sample: sample.name)
def test_right_ones_read_delta_as_it_lies(sample: Sample) -> None:
    """Also from strides of 0, as the gradient of a sum is."""

    def level(delta: Tensor) -> Tensor:
        return torch.ones((), dtype=delta.dtype).expand(delta.shape)

    inputs = sample.inputs()
    for change, plain in ((strided, torch.clone), (level, torch.ones_like), (torch.zeros_like, torch.zeros_like)):
        with no_chance():
            found = gradients(sample, inputs, change)
        with no_chance():
            expected = gradients(sample, inputs, plain)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
            assert change is not torch.zeros_like or not a.any()


def at(*inputs: Tensor) -> Callable[[Sample], bool]:
    """gradcheck sees it there."""
    return lambda sample: not gradcheck(sample.f, inputs, raise_exception=False)


def shapes(*some: tuple[int, ...]) -> Callable[[Sample], bool]:
    return lambda sample: alarm_at(sample, normal(*some)())


def alarm_at(sample: Sample, inputs: tuple[Tensor, ...]) -> bool:
    return said(CHECKS["gradcheck"], Sample(sample.name, sample.f, lambda: inputs)).alarm


def twice_differentiated(sample: Sample) -> bool:
    return not gradgradcheck(sample.f, sample.inputs(), raise_exception=False)


def nan_at_0(sample: Sample) -> bool:
    inputs = given(torch.zeros(2, 3))()
    return bool(gradients(sample, inputs)[0].isnan().any())


def strides(sample: Sample) -> bool:
    inputs = sample.inputs()
    try:
        return not torch.equal(gradients(sample, inputs)[0], gradients(sample, inputs, strided)[0])
    except RuntimeError:  # "view size is not compatible"
        return True


def writes_to_delta(sample: Sample) -> bool:
    (x,) = sample.inputs()
    y = sample.f(x)
    delta = random_like(y)
    before = delta.clone()
    torch.autograd.grad(y, x, delta)
    return not torch.equal(before, delta)


def frozen(i: int, loser: int) -> Callable[[Sample], bool]:
    """Another gradient, or none, of the input `loser` when the input i asks for none."""

    def differs(sample: Sample) -> bool:
        inputs = sample.inputs()
        expected = gradients(sample, inputs)[loser]
        inputs = tuple(t.detach() if n == i else t for n, t in enumerate(inputs))
        y = sample.f(*inputs)
        (found,) = torch.autograd.grad(y, inputs[loser], random_like(y), allow_unused=True)
        return found is None or not torch.allclose(found, expected)

    return differs


def two_calls(sample: Sample) -> bool:
    """The first call's gradient is another one after a second call."""
    (x,), (z,) = sample.inputs(), normal((4, 5), times=-1)()
    y = sample.f(x)
    (alone,) = torch.autograd.grad(y, x, random_like(y), retain_graph=True)
    sample.f(z)
    (after,) = torch.autograd.grad(y, x, random_like(y))
    return not torch.equal(alone, after)


def not_linear(sample: Sample) -> bool:
    """A gradient is linear in delta to the last digits."""
    inputs = sample.inputs()
    y = sample.f(*inputs)
    deltas = [random_like(y), random_like(y).flip(0).exp()]
    a, b, both = (
        torch.autograd.grad(y, inputs, delta, retain_graph=True) for delta in (*deltas, deltas[0] + deltas[1])
    )
    return any(not torch.allclose(i + j, k, rtol=1e-12) for i, j, k in zip(a, b, both, strict=True))


# The wrong ones that gradcheck takes for right, and what shows that they are wrong.
SHOWN: dict[str, Callable[[Sample], bool]] = {
    "conv2d: height for width": shapes((1, 2, 5, 6), (2, 2, 3, 3)),
    "conv2d: rest of the stride in the kernel's gradient, where there is none": shapes((1, 2, 6, 7), (2, 2, 3, 3)),
    "conv2d: bias only with the kernel": frozen(1, 2),
    "max_pool2d: height for width": shapes((1, 2, 4, 6)),
    "max_pool2d: all ties, none among the inputs": at(torch.ones(1, 1, 5, 5).double().requires_grad_()),
    "sums of pairs: rest at the front, even length": shapes((2, 7)),
    "sinc: quotient, no 0 among the inputs": nan_at_0,
    "layer norm: x_hat kept on ctx": twice_differentiated,
    "linear: bias summed in bfloat16": not_linear,
    "linear: weight only with x": frozen(0, 1),
    "matmul: in float32": not_linear,
    "dropout: mask from its output": at(torch.zeros(4, 5).double().requires_grad_()),
    "norm: NaN at 0, no 0 among the inputs": nan_at_0,
    "maximum: all ties, none among the inputs": at(torch.ones(2, 4).double().requires_grad_()),
    "transpose: delta by its address": strides,
    "square: delta in the order of memory": strides,
    "square: delta by view": strides,
    "relu: delta written to": writes_to_delta,
    "square: delta written to": writes_to_delta,
    "square: input in a common place": two_calls,
    "relu: mask in a common place": two_calls,
    "tanh: output kept on ctx": twice_differentiated,
    "square: input detached": twice_differentiated,
}


@pytest.mark.parametrize("sample", WRONG, ids=lambda sample: sample.name)
def test_wrong_ones(sample: Sample) -> None:
    """gradcheck sees all but these, and these are wrong, too."""
    assert said(CHECKS["gradcheck"], sample).alarm == (sample.name not in SHOWN)
    if shown := SHOWN.get(sample.name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert shown(sample)


def test_the_summary_counts() -> None:
    wrong, right = NAMED["cos: sign"], NAMED["relu"]
    all_said = [
        (wrong, Said("wrong", ("sign",), 1.0)),
        (wrong, Said("wrong", ("constant factor",), 1.0)),
        (wrong, Said("RuntimeError")),
        (wrong, Said("cannot tell")),
        (right, Said("right")),
        (right, Said("wrong")),
    ]
    assert summary("a check", all_said) == (
        "a check        caught 3 of 4 (named rightly 1, wrongly 1, not 1), false alarms 1 of 2, cannot tell 1, 2.0 s"
    )
