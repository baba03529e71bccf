"""Pooling by pool.c, which has the formulas.

The maps of a pixel lie side by side (channels_last); an image whose maps lie one behind the other is as many images of
one map. Results lie as PyTorch's do: y as x, dx as the x that it is the gradient of. For torch.compile and modes that
see each operation the functions are operators of PyTorch's, and a geometry is the numbers that pool.c asks for.
"""

import ctypes

import torch
from torch import Tensor

from manualbp.kernels.cpu.build import scratch
from manualbp.kernels.cpu.calls import KIND, call, operator, threads_for
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.layout import maps_last

# What pool.c calls what it makes; the activations; and what m^2 counts: taps over the padded image, or over the image.
MAXIMUM, TAKE, MEAN, PUT, SPREAD = range(5)
PHI = {"none": 0, "relu": 1, "sigmoid": 2, "tanh": 3}
OF_TAPS, OF_PIXELS, GIVEN = range(3)


def max_pool(x: Tensor, g: Geometry, phi: str = "none") -> tuple[Tensor, Tensor]:
    """phi of the largest value of each window, of 256 pixels at most, and its byte."""
    return _max_pool(x, PHI[phi], _numbers(g), maps_last(x))


def take(x: Tensor, byte: Tensor, g: Geometry) -> Tensor:
    """y[n,c,i,j] = x[n,c] at the pixel that byte[n,c,i,j] tells."""
    return _take(x, byte, _numbers(g), maps_last(byte))


def put(delta: Tensor, byte: Tensor, g: Geometry, y: Tensor | None = None, phi: str = "none") -> Tensor:
    """delta phi'(z) added at the pixels that the bytes tell, phi' told by y."""
    return _put(delta, byte, y, PHI[phi], _numbers(g), maps_last(byte))


def window_mean(x: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """The sum over each window divided by m^2, by the pixels that count, or by the override."""
    return _mean(x, *_divisor(count_include_pad, override), _numbers(g), maps_last(x))


def window_spread(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """Each delta, divided as in `window_mean`, added to every pixel of its window."""
    return _spread(delta, *_divisor(count_include_pad, override), _numbers(g), g.last)


@operator("max_pool", lambda x, phi, g, last: _max_pool_like(x, g, last))
def _max_pool(x: Tensor, phi: int, g: list[int], last: bool) -> tuple[Tensor, Tensor]:
    y, byte = _max_pool_like(x, g, last)
    _of_windows(MAXIMUM, g, last, x, y, byte, phi)
    return y, byte


@operator("take", lambda x, byte, g, last: _windows(x, g, last))
def _take(x: Tensor, byte: Tensor, g: list[int], last: bool) -> Tensor:
    y = _windows(x, g, last)
    _of_windows(TAKE, g, last, x, y, byte.contiguous(memory_format=_order(last)))
    return y


@operator("put", lambda delta, byte, y, phi, g, last: _image(delta, g, last))
def _put(delta: Tensor, byte: Tensor, y: Tensor | None, phi: int, g: list[int], last: bool) -> Tensor:
    dx = _image(delta, g, last)
    _of_pixels(PUT, g, last, dx, delta, byte, y, phi)
    return dx


@operator("window_mean", lambda x, how, m, g, last: _windows(x, g, last))
def _mean(x: Tensor, how: int, m: int, g: list[int], last: bool) -> Tensor:
    y = _windows(x, g, last)
    _of_windows(MEAN, g, last, x, y, None, 0, how, m)
    return y


@operator("window_spread", lambda delta, how, m, g, last: _image(delta, g, last))
def _spread(delta: Tensor, how: int, m: int, g: list[int], last: bool) -> Tensor:
    dx = _image(delta, g, last)
    _of_pixels(SPREAD, g, last, dx, delta, None, None, 0, how, m)
    return dx


def _of_windows(
    what: int, g: list[int], last: bool, x: Tensor, y: Tensor, byte: Tensor | None, phi: int = 0, *divisor: int
) -> None:
    x, geometry = x.contiguous(memory_format=_order(last)), _geometry(x, g, last)
    at = ctypes.addressof(geometry)
    call("pool_windows", KIND[x.dtype], what, at, x, y, byte, phi, *(divisor or (GIVEN, 1)), threads_for(x))


def _of_pixels(
    what: int,
    g: list[int],
    last: bool,
    dx: Tensor,
    delta: Tensor,
    byte: Tensor | None,
    y: Tensor | None,
    phi: int,
    how: int = GIVEN,
    m: int = 1,
) -> None:
    together = [t if t is None else t.contiguous(memory_format=_order(last)) for t in (delta, byte, y)]
    geometry = _geometry(dx, g, last)
    at = ctypes.addressof(geometry)
    room = scratch(call("pool_memory", at))
    call("pool_pixels", KIND[dx.dtype], what, at, dx, *together, phi, how, m, room, threads_for(dx))


def _geometry(x: Tensor, numbers: list[int], last: bool) -> ctypes.Array[ctypes.c_ssize_t]:
    """What pool.c calls so: the images, their maps, and the numbers."""
    N, C = x.shape[:2]
    return (ctypes.c_ssize_t * 14)(*((N, C) if last else (N * C, 1)), *numbers)


def _numbers(g: Geometry) -> list[int]:
    """Of the rows, then of the columns: pixels, windows, taps of a window, stride, padding, dilation."""
    parts = g.x_size, g.y_size, g.w_size, g.stride, g.padding, g.dilation
    return [part[axis] for axis in (0, 1) for part in parts]


def _divisor(count_include_pad: bool, override: int | None) -> tuple[int, int]:
    """What m^2 counts, and what it is if that is given."""
    return (OF_TAPS if count_include_pad else OF_PIXELS, 1) if override is None else (GIVEN, override)


def _order(last: bool) -> torch.memory_format:
    return torch.channels_last if last else torch.contiguous_format


def _room(like: Tensor, extents: list[int], last: bool, dtype: torch.dtype) -> Tensor:
    size = like.shape[0], like.shape[1], *extents
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=_order(last))


def _image(delta: Tensor, g: list[int], last: bool) -> Tensor:
    return _room(delta, g[::6], last, delta.dtype)


def _windows(x: Tensor, g: list[int], last: bool) -> Tensor:
    return _room(x, g[1::6], last, x.dtype)


def _max_pool_like(x: Tensor, g: list[int], last: bool) -> tuple[Tensor, Tensor]:
    return _windows(x, g, last), _room(x, g[1::6], last, torch.uint8)
