"""The convolution's three faces by fewer products: triple.c, which has the formulas.

x, delta and what is made of them lie in channels_last, [N, H, W, C] in memory; w in any order. At stride 1 a tile has
m x m outputs, 4 x 4 or 2 x 2. Each face is None where a number is too large for sums of sums, or is none: then the sums
themselves must be taken.
"""

from ctypes import Array, addressof, c_ssize_t

from torch import Tensor

from manualbp.kernels.cpu.build import scratch, threads
from manualbp.kernels.cpu.calls import KIND, call, images_last
from manualbp.kernels.geometry import Geometry

# The forms by their numbers in triple.c: m x m outputs of 3 x 3 taps, which other kernels are sums of; 2 x 2 of 5 x 5.
FORM, OF_FIVE = {4: 0, 2: 2}, 1
# Tiles at a time, as many as stay in the cache. For the kernel gradient about the root of how many there are: so the
# sums of a few, and the sum of these sums, round least.
FORWARD, GRADIENT = 24, 96
# Up to so many sums of the kernel gradient each thread has its own.
OWN_SUMS = 2**14 * 36
T_OF_NUMBERS = 11


def fits(g: Geometry) -> bool:
    """Whether there are tiles."""
    return len(g.w_size) == 2 and g.groups == 1 and max(*g.stride, *g.dilation) == 1


def tiles(m: int, N: int, size: tuple[int, ...]) -> int:
    """How many there are in N images of this size."""
    I, J = size
    return N * -(-I // m) * -(-J // m)


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry, m: int) -> Tensor | None:
    """y = C^T [(A x) (B w)] + b."""
    return _slid(x, w.shape[0], w.data_ptr(), w.stride(), b, m, g, g.padding, g.y_size)


def full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry, m: int) -> Tensor | None:
    """dx, at stride 1 the same of delta with the rotated kernel: its taps from the last to the first."""
    (P, Q), (so, sc, sp, sq) = g.w_size, w.stride()
    end = w.data_ptr() + ((P - 1) * sp + (Q - 1) * sq) * w.element_size()
    padding = tuple(reach - 1 - pad for reach, pad in zip(g.reach, g.padding, strict=True))
    return _slid(delta, w.shape[1], end, (sc, so, -sp, -sq), b, m, g, padding, g.x_size)


def _slid(
    x: Tensor,
    O: int,
    w: int,
    strides: tuple[int, ...],
    b: Tensor | None,
    m: int,
    g: Geometry,
    padding: tuple[int, ...],
    y_size: tuple[int, ...],
) -> Tensor | None:
    """The kernels at address w, [O, C, P, Q] of these strides, slid over x."""
    N, t = x.shape[0], threads()
    y = images_last(x, N, O, *y_size)
    count = tiles(m, N, y_size)
    rounds = -(-count // (FORWARD * t))  # each thread has as many
    T = -(-count // (rounds * t)) if rounds < 8 else FORWARD
    of_w, numbers = (c_ssize_t * 4)(*strides), _numbers(x, g, padding, y_size, O, T, m)
    room = scratch(4 * call("triple_room", 0, addressof(numbers), t))
    odd = call("triple_correlate", KIND[x.dtype], x, w, addressof(of_w), b, y, room, addressof(numbers), t)
    return None if odd else y


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry, m: int) -> Tensor | None:
    """dw = B^T [sum over tiles (A x) (C delta)], in channels_last."""
    (N, C), O, t = x.shape[:2], delta.shape[1], threads()
    dw, count = images_last(x, O, C, *g.w_size), tiles(m, N, g.y_size)
    numbers = _numbers(x, g, g.padding, g.y_size, O, 0, m)
    own = call("triple_sums", addressof(numbers)) <= OWN_SUMS
    numbers[T_OF_NUMBERS] = min(GRADIENT, -(-count // t) if own else count)
    of_dw = (c_ssize_t * 4)(*dw.stride())
    room = scratch(4 * call("triple_room", 1, addressof(numbers), t))
    of = KIND[x.dtype], x, delta, dw, addressof(of_dw), room, addressof(numbers), int(own), t
    return None if call("triple_kernel_gradient", *of) else dw


def _numbers(
    x: Tensor, g: Geometry, padding: tuple[int, ...], y_size: tuple[int, ...], O: int, T: int, m: int
) -> Array[c_ssize_t]:
    """What triple.c calls a triple."""
    N, C, H, W = x.shape
    form = OF_FIVE if m == 2 and g.w_size == (5, 5) else FORM[m]
    numbers = N, H, W, C, *g.w_size, *padding, *y_size, O, T, form
    return (c_ssize_t * len(numbers))(*numbers)
