"""Batch norm of norm.c against PyTorch's, and both against the same in float64."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.autograd import forward_ad, grad

import manualbp
import manualbp.functional as F
from manualbp.kernels.cpu import norm as compiled
from manualbp.kernels.cpu.calls import built
from tests.cases.fused import PHI
from tests.checks import Recorder, distance, random_like

pytestmark = pytest.mark.skipif(not built(), reason="there are no compiled kernels here")

NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    *[(6, 1), (5, 3), (9, 130), (7, 2, 3), (3, 24, 5), (2, 1, 4, 5), (3, 3, 7, 9), (2, 16, 5, 5), (5, 24, 7, 1)],
    *[(2, 64, 9, 3), (4, 100, 3, 3), (3, 200, 1, 2), (1, 5, 17, 4), (2, 3, 2, 3, 2), (3, 40, 41, 37)],
]
LARGE = (2, 64, 135, 140)  # written past the cache in float32


def last(t: Tensor) -> Tensor:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.contiguous(memory_format=layouts.get(t.ndim, torch.contiguous_format))


def moved(t: Tensor) -> Tensor:
    """The same, one number further in memory."""
    room = torch.empty(t.numel() + 1, dtype=t.dtype)
    return room.as_strided(t.shape, t.stride(), 1).copy_(t)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "maps first": lambda t: t,
    "maps last": last,
    "at an odd place": lambda t: moved(last(t)),
}


@pytest.fixture(autouse=True)
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the functions that are called: those of norm.c, else a test compares nothing."""
    names: list[str] = []
    call = compiled.call

    def noted(name: str, *args: Any) -> int:
        names.append(name)
        return call(name, *args)

    monkeypatch.setattr(compiled, "call", noted)
    threads = torch.get_num_threads()
    yield names
    torch.set_num_threads(threads)
    assert {"norm_forward", "norm_affine", "norm_backward"} & {*names}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """x with means of its maps that are not small, w, b, the running mean and variance, delta."""
    C = shape[1]
    w, b, mean, var = (random_like(torch.empty(C), seed + k) for k in range(1, 5))
    x = random_like(torch.empty(shape), seed) + 3 * mean.view(-1, *[1] * (len(shape) - 2))
    return [x.to(dtype), w, b, mean, var.abs() + 0.1, random_like(torch.empty(shape), seed + 5).to(dtype)]


def all_of(f: Any, some: list[Tensor], training: bool, layout: Any = None) -> list[Tensor]:
    """y, dx, dw, db, and the running mean and variance."""
    x, w, b, mean, var, delta = (t.clone() for t in some)
    x, delta = (x, delta) if layout is None else (layout(x), layout(delta))
    leaves = [t.detach().requires_grad_() for t in (x, w, b)]
    assert leaves[0].stride() == x.stride()
    y = f(leaves[0], mean, var, *leaves[1:], training, 0.3)
    return [y.detach(), *grad(y, leaves, delta), mean, var]


def behind(phi: str) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: PHI[phi](T.batch_norm(*args, **kwargs))


def off(t: Tensor, truth: Tensor, size: Tensor) -> float:
    """How far t is, relative to the size; what is within an error of the kink of ReLU does not count."""
    return (torch.where((t == 0) == (truth == 0), t - truth, 0).norm() / size.norm()).item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("phi", compiled.PHI)
def test_as_exact_as_pytorch(dtype: torch.dtype, layout: str, training: bool, phi: str) -> None:
    """The root of the mean square of the errors of all shapes and some inputs."""
    ours, theirs = F.batch_norm, T.batch_norm
    if phi:
        ours, theirs = partial(F.batch_norm_activation, activation=phi), behind(phi)
    errors: list[list[tuple[float, float]]] = []
    for shape in [*SHAPES, *([LARGE] if dtype == torch.float32 and training else [])]:
        for seed in range(1 if shape == LARGE else 4):
            some = inputs(shape, dtype, 10 * seed)
            truth = all_of(theirs, [t.double() for t in some], training)
            both = [all_of(f, some, training, LAYOUTS[layout]) for f in (ours, theirs)]
            size = some[-1].double().abs().transpose(0, 1).flatten(1).sum(1)  # dw and db are what is left of such sums
            sizes = [truth[0], truth[1], size, size, truth[4], truth[5]]
            errors.append([])
            for a, b, c, d in zip(*both, truth, sizes, strict=True):
                assert (a.dtype, a.stride()) == (b.dtype, b.stride())
                errors[-1].append((off(a, c, d), off(b, c, d)))
    for which, pairs in enumerate(zip(*errors, strict=True)):
        mine, pytorchs = torch.tensor(pairs).square().mean(0).sqrt().tolist()
        limit = max(2 * pytorchs, torch.finfo(torch.float32 if which > 1 else dtype).eps / 2)
        assert mine <= limit, f"number {which} is off by {mine:.1e}, PyTorch's by {pytorchs:.1e}"


@pytest.mark.parametrize("shift", [0, 1e2, 1e4])
@pytest.mark.parametrize("layout", [last, torch.clone])
def test_means_that_are_large(shift: float, layout: Any) -> None:
    """The variance is that of what is left; the first numbers are not like the others."""
    x, *rest = inputs((8, 24, 20, 20), torch.float32)
    x[0, :, :2] -= 50
    some = [x + shift, *rest]
    truth = all_of(T.batch_norm, [t.double() for t in some], True)
    for a, b, c in zip(*(all_of(f, some, True, layout) for f in (F.batch_norm, T.batch_norm)), truth, strict=True):
        assert distance(a, c) <= max(2 * distance(b, c), 2e-7)  # with narrower vectors other sums are rounded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [last, torch.clone])
@pytest.mark.parametrize("odd", [NAN, INF, -INF, 3e38])
@pytest.mark.parametrize("where", ["x", "delta"])
@pytest.mark.parametrize("f", [F.batch_norm, F.batch_norm_activation])
def test_what_is_no_number_stays_in_its_map(dtype: torch.dtype, layout: Any, odd: float, where: str, f: Any) -> None:
    some = inputs((3, 20, 5, 7), dtype)
    before = all_of(f, some, True, layout)
    (some[0] if where == "x" else some[-1])[1, 13, 2, 3] = odd
    after = all_of(f, some, True, layout)
    pytorchs = all_of(T.batch_norm if f is F.batch_norm else behind("relu"), some, True, layout)
    for a, b, c in zip(before, after, pytorchs, strict=True):
        maps = [k for k in range(20) if k != 13]
        assert torch.equal(*(t.movedim(1, 0)[maps] if t.ndim > 1 else t[maps] for t in (a, b)))
        if odd != 3e38:  # whose square PyTorch's sums may hold, or not
            assert torch.equal(b.isnan(), c.isnan())
            assert torch.equal(b.isinf(), c.isinf())


@pytest.mark.parametrize("layout", [last, torch.clone])
def test_threads(layout: Any) -> None:
    """The same numbers each time for as many threads, and for others up to rounding."""
    some, found = inputs((16, 24, 15, 17), torch.float32), {}
    for count in (1, 2, 3, 1, 3, 2):
        torch.set_num_threads(count)
        results = all_of(F.batch_norm_activation, some, True, layout)
        for a, b, c in zip(results, found.setdefault(count, results), found[1], strict=True):
            assert torch.equal(a, b)
            assert distance(a, c) <= 1e-6


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (4, 1, 5, 3), (4, 6, 1, 1), (5, 6)])
@pytest.mark.parametrize("layout", [last, torch.clone])
def test_any_delta(shape: tuple[int, ...], layout: Any) -> None:
    some = inputs(shape, torch.float32)
    x = layout(some[0]).requires_grad_()
    y = F.batch_norm(x, None, None, some[1], some[2], True)
    other = random_like(torch.empty(*shape, 2))[..., 0]
    for delta in (torch.tensor(0.5).expand(shape), other, last(other), other.contiguous(), other.mT.contiguous().mT):
        (dx,) = grad(y, x, delta, retain_graph=True)
        same = grad(y, x, torch.empty_like(x).copy_(delta), retain_graph=True)[0]
        assert torch.equal(dx, same)
        assert dx.stride() == x.stride()


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (2, 3, 0, 4)])
def test_no_numbers(shape: tuple[int, ...], called: list[str]) -> None:
    x, w, b, mean, var, delta = inputs(shape, torch.float32)
    before = mean.clone()
    for f in (F.batch_norm, F.batch_norm_activation):
        leaves = [t.requires_grad_() for t in (x, w, b)]
        y = f(x, mean, var, w, b, True)
        assert [g.abs().sum() for g in grad(y, leaves, delta)] == [0, 0, 0]
        assert torch.equal(mean, before)
    assert called == []
    called.append("norm_forward")


def test_running_statistics_with_gaps_and_in_half_precision(called: list[str]) -> None:
    """Changed where they lie, and the change is counted."""
    x, *_, mean, var, _ = inputs((4, 3, 5, 2), torch.float32)
    for dtype, to in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        stack = torch.stack([mean, var]).T.to(x.dtype if dtype == torch.float32 else dtype).contiguous()
        data = x.to(dtype)
        expected = stack.clone()
        T.batch_norm(data, *expected.unbind(1), training=True)
        m, v = stack.unbind(1)
        version = stack._version
        F.batch_norm(data, m, v, training=True)
        assert distance(stack, expected) <= to
        assert stack._version > version


def test_second_derivatives_and_tangents() -> None:
    """The first is by the operations that can be derived again, what is derived from it by these kernels."""
    some = inputs((4, 6, 5, 3), torch.float32)
    for f in (F.batch_norm, F.batch_norm_activation):
        found = []
        for dtype in (torch.float32, torch.float64):
            x, w, b, _, _, delta = (t.to(dtype) for t in some)
            x = last(x).requires_grad_()
            (dx,) = grad(f(x, None, None, w, b, True), x, delta, create_graph=True)
            (second,) = grad(dx, x, delta)
            with forward_ad.dual_level():
                y = f(forward_ad.make_dual(x.detach(), delta), None, None, w, b, True)
                found.append((dx.detach(), second, forward_ad.unpack_dual(y).tangent))
        for a, b in zip(*found, strict=True):
            assert distance(a, b) <= 1e-5


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 5, 3, bias=False)
    layers = convolutions[0], nn.BatchNorm2d(8), nn.ReLU(), convolutions[1], nn.BatchNorm2d(5)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("change", [manualbp.convert, manualbp.fuse])
def test_compiled_and_seen_by_a_mode(change: Any, called: list[str]) -> None:
    x = last(random_like(torch.empty(4, 3, 9, 8)))

    def step(model: nn.Module, run: Any) -> list[Tensor]:
        model.zero_grad()
        y = run(x)
        y.backward(random_like(y, 7))
        return [y.detach(), *[p.grad for p in model.parameters()], *model.buffers()]  # pyright: ignore[reportReturnType]

    torch._dynamo.reset()
    models = [network() for _ in range(4)]
    for model in models[1:]:
        change(model)
    expected, plain = (step(model, model) for model in models[:2])
    assert called
    in_one = step(models[2], torch.compile(models[2], fullgraph=True, backend="aot_eager"))
    with Recorder() as recorder:
        seen = step(models[3], models[3])
    assert {"manualbp.norm_forward.default", "manualbp.norm_backward.default"} <= {*recorder.names}
    for a, b, c, d in zip(expected, plain, in_one, seen, strict=True):
        assert max(distance(b, a), distance(c, b), distance(d, b)) <= 1e-6
