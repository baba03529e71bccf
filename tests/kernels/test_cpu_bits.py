"""The bits of bits.c, and what they let through, against the same kernels of PyTorch's operations: bit for bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from manualbp.kernels import bits
from manualbp.kernels.cpu import bits as compiled
from manualbp.kernels.cpu.calls import built
from manualbp.kernels.layout import hands_on
from tests.checks import random_like

pytestmark = pytest.mark.skipif(not built(), reason="there are no compiled kernels here")

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TESTS = [
    (bits.nonzero, ()),
    (bits.above, (0.0,)),
    (bits.between, (-3.0, 3.0)),
    (bits.not_clamped, (0.0, 6.0)),
    (bits.not_clamped, (-0.1, 1.1)),
    (bits.outside, (-0.3, 0.3)),
    (bits.outside, (0.5, -0.5)),
    (bits.not_up_to, (0.7,)),
]
SHAPES = [(), (0,), (1,), (7,), (8,), (15, 17), (3, 5, 7), (2, 3, 5, 7), (2, 24, 4, 4), (2, 3, 2, 5, 3), (3, 1, 5, 4)]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": Tensor.contiguous,
    "channels_last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1) if t.ndim > 3 else t,
    "with gaps": lambda t: torch.stack([t, t], -1)[..., 0],
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "at an odd place": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
}


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The ends of all tests, numbers beside them, infinite ones and some that are none."""
    ends = torch.tensor([end for _, ends in TESTS for end in ends] + [-0.0, 2.0], dtype=dtype)
    beside = [torch.nextafter(ends, torch.full_like(ends, side)) for side in (INF, -INF)]
    some = torch.cat([ends, *beside, torch.tensor([INF, -INF, NAN], dtype=dtype)])
    count = torch.Size(shape).numel()
    return some[torch.randint(len(some), (count,), generator=torch.Generator().manual_seed(1))].view(shape)


@contextmanager
def by_torch() -> Iterator[None]:
    """The operations of PyTorch, as with MANUALBP_KERNELS=torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "serves", lambda *_: False)
        yield


def order(t: Tensor) -> list[int]:
    """The strides that tell where a number is."""
    return [step for step, extent in zip(t.stride(), t.shape, strict=True) if extent > 1]


def same_bits(test: Any, ends: tuple[float, ...], t: Tensor) -> None:
    with torch.no_grad():
        packed = bits.bits_of(test, t, *ends)
        with by_torch():
            expected = bits.bits_of(test, t, *ends)
    assert torch.equal(packed, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits(dtype: torch.dtype, layout: str) -> None:
    for test, ends in TESTS:
        for shape in SHAPES:
            same_bits(test, ends, LAYOUTS[layout](numbers(shape, dtype)))


@pytest.mark.parametrize("wrong", [(0, 0.0, NAN), (1, 0.0, 6.0), (2, 0.0, 5.0)])
def test_a_planted_mistake_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bits.COMPARISON, bits.not_clamped, lambda *_: wrong)
    with pytest.raises(AssertionError):
        same_bits(bits.not_clamped, (-0.1, 1.1), numbers((200,), torch.float32))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("off", [0.0, 0.01, -0.5, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked(dtype: torch.dtype, off: float, layout: str) -> None:
    """What is let through, in the order of memory that the operations give it, whoever made the bits."""
    for shape in SHAPES:
        t, delta = (LAYOUTS[layout](numbers(shape, dtype).roll(k)) for k in (0, 1))
        last = hands_on(t)
        for d in (delta, delta[..., :1].expand(shape) if shape else delta):
            with torch.no_grad():
                packed = bits.bits_of(bits.above, t, 0.0)
                dx = bits.masked(d, packed, last, off)
                with by_torch():
                    expected = bits.masked(d, packed, last, off)
            assert order(dx) == order(expected)
            assert torch.equal(dx.nan_to_num(7), expected.nan_to_num(7))


def test_what_is_held_back_is_0_of_any_delta() -> None:
    t = torch.tensor([0.0, -0.0, 1.0, NAN])
    for delta in (INF, NAN):
        packed = compiled.bits_of(t, False, compiled.OUTSIDE, 0.0, 0.0)
        dx = compiled.masked(torch.full((4,), delta), packed, False, 0.0)
        assert torch.equal(dx[:2], torch.zeros(2))
        assert torch.equal(dx.nan_to_num(7)[2:], torch.full((2,), delta).nan_to_num(7))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sloped_is_masked_by_the_bits_of_what_is_there(dtype: torch.dtype) -> None:
    for layout in LAYOUTS.values():
        for shape in SHAPES:
            t, delta = layout(numbers(shape, dtype)), numbers(shape, dtype).roll(1)
            last = hands_on(t)
            for test, ends in TESTS:
                how, low, high = bits.COMPARISON[test](*ends)
                packed = compiled.bits_of(t, last, how, low, high)
                for off in (0.0, 0.3):
                    a = compiled.sloped(delta, t, last, how, low, high, off)
                    b = compiled.masked(delta, packed, last, off)
                    assert order(a) == order(b)
                    assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_bits": F.relu_bits,
    "relu6": F.relu6,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.1),
    "softshrink": partial(F.softshrink, lambd=0.3),
    "threshold": partial(F.threshold, threshold=0.7, value=2.0),
}


def passes(f: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = f(leaf)
    return [y.detach(), *grad(y, leaf, random_like(y))]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    """Values and gradients are those of the operations; torch.compile makes the same with operators in one graph."""
    f = ACTIVATIONS[name]
    for dtype in DTYPES:
        for layout in ("in order", "channels_last"):
            x = LAYOUTS[layout](numbers((2, 5, 7, 3), dtype))
            with by_torch():
                expected = passes(f, x)
            torch._dynamo.reset()
            for made in (passes(f, x), passes(torch.compile(f, fullgraph=True, backend="aot_eager"), x)):
                for a, b in zip(made, expected, strict=True):
                    assert order(a) == order(b)
                    assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def test_as_many_threads_as_pytorch_has() -> None:
    x, before, results = random_like(torch.empty(100_003)), torch.get_num_threads(), []
    try:
        for count in (1, 3, 2, 1):
            torch.set_num_threads(count)
            results.append(passes(lambda x: F.leaky_relu(x, 0.1), x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("last", [True, False])
def test_operators_say_what_they_make(last: bool) -> None:
    x = LAYOUTS["channels_last" if last else "in order"](numbers((2, 5, 3, 3), torch.float32))
    packed = compiled.bits_of(x, last, compiled.BETWEEN, 0.0, NAN)
    for operator, args in [
        (torch.ops.manualbp.bits_of, (x, last, compiled.NOT_CLAMPED, 0.0, 1.0)),
        (torch.ops.manualbp.masked, (x, packed, last, 0.5)),
        (torch.ops.manualbp.sloped, (x, x, last, compiled.OUTSIDE, 0.0, 0.0, 0.0)),
    ]:
        torch.library.opcheck(operator, args, test_utils=["test_schema", "test_faketensor"])
