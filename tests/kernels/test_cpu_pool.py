"""The pooling of pool.c against PyTorch's, and against the same kernels of PyTorch's operations: bit for bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from manualbp.kernels import pool
from manualbp.kernels.cpu import pool as compiled
from manualbp.kernels.cpu.calls import built
from manualbp.kernels.geometry import Geometry, pooling
from manualbp.kernels.layout import maps_last
from tests.checks import random_like

pytestmark = pytest.mark.skipif(not built(), reason="there are no compiled kernels here")

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MAPS = [1, 3, 16, 24, 64, 100]
# Extents of the image; window, stride, padding, dilation and ceil_mode.
WINDOWS = [
    ((6, 9), (2, 2, 0, 1, False)),
    ((7, 10), (2, 2, 0, 1, True)),
    ((11, 8), (3, 2, 1, 1, False)),
    ((5, 7), (3, 1, 1, 1, False)),
    ((9, 7), ((3, 2), (2, 1), (1, 1), 1, False)),
    ((8, 5), ((3, 2), (3, 3), (1, 0), 1, True)),
    ((7, 11), (2, 3, 0, 1, False)),
    ((9, 10), ((3, 2), (2, 1), (1, 0), (2, 3), False)),
    ((12, 9), ((2, 3), (1, 2), (0, 1), (5, 2), True)),
    ((9, 35), ((16, 16), (3, 5), 8, 1, False)),
    ((1, 300), ((1, 3), 1, 0, 1, False)),
    ((4, 3), ((4, 3), None, 0, 1, False)),
    ((3, 2), (1, 1, 0, 1, False)),
]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "maps last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "maps first": lambda t: t.contiguous(),
    "at an odd place": lambda t: moved(t.contiguous(memory_format=torch.channels_last)),
    "with gaps": lambda t: torch.stack([t, t.flip(0)], -1).movedim(1, -2)[..., 0].movedim(-1, 1),
}


def moved(t: Tensor) -> Tensor:
    """The same, one number further in memory."""
    room = torch.empty(t.numel() + 1, dtype=t.dtype)
    return room[1:].as_strided(t.shape, t.stride(), 1).copy_(t)


def image(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Small numbers, many of them equal, of which some are infinite and some none."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-5, 4, shape, generator=g).float() / 2
    odd = torch.rand(shape, generator=g)
    x = x.masked_fill(odd < 0.02, NAN).masked_fill(odd > 0.9, -INF).masked_fill(odd > 0.98, INF)
    return x.to(dtype)


def cases(maps: list[int] = MAPS, dilated: bool = True) -> Iterator[tuple[int, tuple[int, int], Any, Geometry]]:
    for extents, how in WINDOWS:
        g = pooling("test", (2, 1, *extents), *how)
        if dilated or g.dilation == (1, 1):
            yield from ((C, extents, how, g) for C in maps)


def same(a: Tensor, b: Tensor) -> None:
    """Equal numbers, or none in the same places, in the same order of memory."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.stride() == b.stride(), (a.stride(), b.stride(), a.shape)
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num(1.5), b.nan_to_num(1.5))


@contextmanager
def by_torch() -> Iterator[None]:
    """The operations of PyTorch, as with MANUALBP_KERNELS=torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "serves", lambda *_: False)
        yield


def deltas(y: Tensor) -> list[Tensor]:
    """Ones that are infinite in places, expanded, in the other order, with gaps and at an odd place."""
    delta = random_like(y).masked_fill(random_like(y, 5) > 2, INF)
    other = delta.contiguous() if maps_last(y) else delta.contiguous(memory_format=torch.channels_last)
    return [delta, delta[:, :, :1, :1].expand(y.shape), other, LAYOUTS["with gaps"](delta), moved(delta)]


def largest(x: Tensor, how: Any, g: Geometry) -> None:
    """y, the place, put and take are those of PyTorch."""
    with torch.no_grad():
        y, byte = pool.max_pool_by_bytes(x, g)
        z, index = T.max_pool2d(x, *how, return_indices=True)
        same(y, z)
        assert byte.stride() == index.stride()
        assert torch.equal(pool.in_image(byte, g), index)
        for delta in deltas(y):
            dx = pool.put(delta, byte, g.places)
            taken = pool.take(dx, byte, g.places)
            with by_torch():
                expected = pool.put(delta, index, g.places)
                assert torch.equal(pool.take(dx, byte, g.places).nan_to_num(), taken.nan_to_num())
            assert dx.stride() == torch.empty(dx.shape, memory_format=order(y)).stride()
            assert torch.equal(dx.nan_to_num(1.5), expected.nan_to_num(1.5))


def order(t: Tensor) -> torch.memory_format:
    return torch.channels_last if maps_last(t) else torch.contiguous_format


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_maximum(dtype: torch.dtype, layout: str) -> None:
    for C, extents, how, g in cases():
        largest(LAYOUTS[layout](image((2, C, *extents), dtype)), how, g)


def test_of_no_images_and_of_one() -> None:
    for N in (0, 1):
        for layout in ("maps last", "maps first"):
            for C, extents, how, g in cases([1, 5, 16]):
                x = LAYOUTS[layout](image((N, C, *extents), torch.float32))
                largest(x, how, g)
                if g.dilation == (1, 1):
                    means(x, how, g, True, None)


def exchanged(g: Geometry) -> list[int]:
    return right_numbers(replace(g, padding=g.padding[::-1]))


def not_dilated(g: Geometry) -> list[int]:
    return right_numbers(replace(g, dilation=(1, 1)))


right_numbers = compiled._numbers


@pytest.mark.parametrize("wrong", [exchanged, not_dilated])
def test_a_planted_mistake_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_numbers", wrong)
    extents, how = WINDOWS[7]
    with pytest.raises(AssertionError):
        largest(image((2, 16, *extents), torch.float32), how, pooling("test", (2, 1, *extents), *how))


# -- activations -------------------------------------------------------------------------------------------------------

PHI = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
ENDS = [0.0, 1e-40, 1e-20, 1e-4, 0.5, 1, 9, 10, 11, 20, 87, 87.5, 88, 88.4, 88.6, 89, 100, 104, 1e4, 1e30, INF]


def by_itself(x: Tensor, phi: str) -> Tensor:
    """phi of numbers, by windows of one pixel."""
    g = pooling("test", (1, 1, 1, x.numel()), 1, None, 0, 1, False)
    with torch.no_grad():
        return pool.max_pool_by_bytes(x.view(1, 1, 1, -1), g, phi)[0].view(-1)


@pytest.mark.parametrize("phi", PHI)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_activation_is_as_precise_as_pytorchs(dtype: torch.dtype, phi: str) -> None:
    """Its mean error, relative to float64, is at most twice PyTorch's, its largest one three times that of either."""
    sizes = torch.cat([torch.linspace(1e-3, 20, 40_000), torch.logspace(-30, 1.9, 40_000)])
    x = torch.cat([sizes, -sizes]).to(dtype)
    if phi == "sigmoid":
        x = x[x > -80]  # below, y is not normal
    truth = PHI[phi](x.double())
    ours, torchs = (
        (y.double() - truth).abs() / truth.abs().clamp(min=1e-300) for y in (by_itself(x, phi), PHI[phi](x))
    )
    half = torch.finfo(dtype).eps / 2
    assert ours.max() <= 3 * max(torchs.max().item(), half)
    assert ours.square().mean().sqrt() <= 2 * max(torchs.square().mean().sqrt().item(), half / 2)


@pytest.mark.parametrize("phi", PHI)
def test_an_activation_at_its_ends(phi: str) -> None:
    x = torch.tensor([*ENDS, *[-end for end in ENDS], NAN])
    y, expected = by_itself(x, phi), PHI[phi](x)
    torch.testing.assert_close(y, expected, rtol=3e-7, atol=1e-38, equal_nan=True)
    assert torch.equal(
        by_itself(x.new_tensor([INF, -INF, NAN]), phi).nan_to_num(7), PHI[phi](x[[20, -2, -1]]).nan_to_num(7)
    )
    if phi == "tanh":
        assert torch.equal(y.signbit(), expected.signbit())


@pytest.mark.parametrize("layout", ["maps last", "maps first"])
@pytest.mark.parametrize("phi", PHI)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pooling_and_activation(dtype: torch.dtype, phi: str, layout: str) -> None:
    """y = phi(z) and put(delta phi'(z)), beside the two one behind the other."""
    eps = torch.finfo(dtype).eps
    for C, extents, _, g in cases([1, 3, 24, 64]):
        x = LAYOUTS[layout](image((2, C, *extents), dtype))
        with torch.no_grad():
            y, byte = pool.max_pool_by_bytes(x, g, phi)
            z, same_byte = pool.max_pool_by_bytes(x, g)
            assert torch.equal(byte, same_byte)
            torch.testing.assert_close(y, PHI[phi](z), rtol=2 * eps, atol=0, equal_nan=True)
            delta = random_like(y).masked_fill(random_like(y, 5) > 2, INF)
            dx = pool.put(delta, byte, g.places, y, phi)
            with by_torch():
                expected = pool.put(delta.double(), byte, g.places, y.double(), phi)
            torch.testing.assert_close(dx.double(), expected, rtol=4 * eps, atol=4 * eps, equal_nan=True)
            if phi == "relu":
                with by_torch():
                    same(dx, pool.put(delta, byte, g.places, y, phi))


def test_where_relu_is_0_an_infinite_delta_gives_0() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0, NAN]).repeat(2, 16, 3, 1).requires_grad_()
    y = F.activation_max_pool2d(x, "relu", 1)
    (dx,) = grad(y, x, torch.full_like(y, INF))
    assert torch.equal(dx, torch.tensor([0, 0, INF, INF]).expand_as(x))


# -- means -------------------------------------------------------------------------------------------------------------


def means(x: Tensor, how: Any, g: Geometry, count_include_pad: bool, override: int | None) -> None:
    """The mean and the spread, beside PyTorch's own."""
    window, stride, padding, _, ceil = how
    settings = window, stride, padding, ceil, count_include_pad, override
    x = x.requires_grad_()
    expected = T.avg_pool2d(x, *settings)
    with torch.no_grad():
        y = compiled.window_mean(x, g, count_include_pad, override)
        same(y, expected.detach())
        for delta in deltas(y):
            dx = pool.window_spread(delta, g.of(x), count_include_pad, override)
            if x.dtype != torch.float32:  # PyTorch adds up in half precision
                same(dx, pool.window_spread(delta.float(), g.of(x), count_include_pad, override).to(x.dtype))
            elif x.numel():
                same(dx, grad(expected, x, delta, retain_graph=True)[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mean(dtype: torch.dtype, layout: str) -> None:
    for C, extents, how, g in cases(dilated=False):
        for divisor in ((True, None), (False, None), (True, -3)):
            means(LAYOUTS[layout](image((2, C, *extents), dtype)), how, g, *divisor)
