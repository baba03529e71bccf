"""Pooling and its adjoints: by the compiled kernels where they serve (kernels/cpu, kernels/cuda), else by PyTorch.

Shapes: x [N, C, H, W]; y, delta, place, index and byte [N, C, I, J]. A place is told in one of two ways: an index is a
position h W + k in its own map (int64), a byte is the number p Q + q of the tap in its own window (uint8).
"""

from math import prod
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.activation import relu_slope, sigmoid_slope, tanh_slope
from manualbp.kernels.bits import compared
from manualbp.kernels.cpu import pool as compiled
from manualbp.kernels.cpu.calls import serves
from manualbp.kernels.cuda import calls as on_a_card
from manualbp.kernels.geometry import Geometry, Places
from manualbp.kernels.layout import laid_out, maps_last
from manualbp.kernels.precision import wide
from manualbp.kernels.transforms import recorded

# Up to this factor f PyTorch's "nearest" repeats each pixel f times in float32: there f (1 / f), rounded, is 1.
NEAREST_IS_EXACT = 40

# Pixels of a window up to which the compiled mean, window by window, is as fast as PyTorch's, pixel by pixel.
SMALL = 16

# Windows whose positions are made at a time: 8 bytes each, what a CPU's cache holds.
PIECE = 2**17

# Windows whose positions may be there at a time: 16 MiB of them.
MOST = 2**21

# Activations that are taken together with pooling: phi, and delta phi' told by y.
PHI = {
    "none": (lambda z: z, lambda delta, y: delta),
    "relu": (torch.relu, relu_slope),
    "sigmoid": (torch.sigmoid, sigmoid_slope),
    "tanh": (torch.tanh, tanh_slope),
}


def compiled_for(*tensors: Tensor | None) -> Any:
    """The module whose `max_pool` and `put` may be given these: in C on a CPU, in Triton on a card; or None."""
    if serves(*tensors):
        return compiled
    if on_a_card.serves(*tensors):
        from manualbp.kernels.cuda import pool as in_triton  # Triton takes a second to load

        return in_triton
    return None


def max_pool(x: Tensor, g: Geometry) -> tuple[Tensor, Tensor]:
    """The largest value of each window and its position, the first one of equals."""
    return T.max_pool2d(x, g.w_size, g.stride, g.padding, g.dilation, g.ceil_mode, return_indices=True)


def max_pool_by_bytes(x: Tensor, g: Geometry, phi: str = "none") -> tuple[Tensor, Tensor]:
    """phi of the largest value of each window, and its byte."""
    kernels = compiled_for(x)
    if kernels is not None:
        return kernels.max_pool(x, g, phi)
    z, byte = _with_bytes(x, g)
    return PHI[phi][0](z), byte


def _with_bytes(x: Tensor, g: Geometry) -> tuple[Tensor, Tensor]:
    """The largest value of each window and its byte. Of many windows the positions are made a few images at a time:

    they are twice as large as the values, and would be the peak of a training step.
    """

    def pooled(n: int, end: int) -> tuple[Tensor, Tensor]:
        y, index = max_pool(x[n:end], g)
        return y, in_window(index, g)

    N, images = x.shape[0], MOST // (x.shape[1] * prod(g.y_size) or 1) or 1
    if torch.compiler.is_compiling() or recorded() or images >= N:  # what is recorded is for any number of images
        return pooled(0, N)
    first = pooled(0, images)
    whole = tuple(_room(t, N) for t in first)
    for t, part in zip(whole, first, strict=True):
        t[:images] = part
    for n in range(images, N, images):
        for t, part in zip(whole, pooled(n, n + images), strict=True):
            t[n : n + images] = part
    y, byte = whole
    return y, byte


def _room(like: Tensor, N: int) -> Tensor:
    """For N such images, in the same layout."""
    _, C, I, J = like.shape
    last = like.stride(1) == 1 and C > 1
    return like.new_empty(N, I, J, C).permute(0, 3, 1, 2) if last else like.new_empty(N, C, I, J)


def in_window(index: Tensor, g: Geometry) -> Tensor:
    """The bytes of positions.

    The window's first pixel has the position start, and index - start = d p W + e q. Where that is a byte, and a row of
    the window shorter than one of the image, it is reckoned in bytes, which a CPU does ten times as fast.
    """
    (P, Q), (d, e), W = g.w_size, g.dilation, g.x_size[1]
    if e == 1 and d * W >= Q and d * (P - 1) * W + Q <= 256:
        step = index.to(torch.uint8).sub_(_starts(index, g, W, 1, torch.uint8))  # modulo 256, in the index's own layout
        return step.sub_(_rows(step, d * W, P) * ((d * W - Q) % 256))
    if index.device.type != "cpu" or torch.compiler.is_compiling():
        return _number_in_window(index, g)
    return torch.cat([_number_in_window(piece, g) for piece in index.split(_images(index))])


def _rows(numbers: Tensor, row: int, P: int) -> Tensor:
    """The row p of each number from p row to (p + 1) row: comparisons of bytes, which are faster than a division."""
    p = torch.zeros_like(numbers)
    for r in range(1, P):
        p = p + compared(torch.ge, numbers, r * row)
    return p


def _number_in_window(index: Tensor, g: Geometry) -> Tensor:
    """p Q + q = (k - k0) / d + Q (h - h0) / d from the position h W + k, (h0, k0) being the window's first pixel.

    Half a pixel more keeps the quotient off the whole numbers, where it might round up; so does a quarter the result,
    where it would be rounded down.
    """
    (H, W), Q, (d, e) = g.x_size, g.w_size[1], g.dilation
    k = index.to(torch.float32 if H * W < 2**22 else torch.float64)
    h = (k + 0.5).div_(W).floor_()
    number = k.div_(e).add_(h, alpha=Q / d - W / e)
    return number.sub_(_starts(index, g, Q / d, 1 / e, k.dtype) - 0.25).to(torch.uint8)


def _images(like: Tensor) -> int:
    """How many images have the windows of one piece."""
    _, C, I, J = like.shape
    return PIECE // (C * I * J) or 1


def in_image(byte: Tensor, g: Geometry, start: Tensor | None = None) -> Tensor:
    """The positions that the bytes of `in_window` stand for; start: `_least_starts`, where they are known."""
    W, Q, (d, e) = g.x_size[1], g.w_size[1], g.dilation
    start = _least_starts(byte, g) if start is None else start
    row = _rows(byte, Q, g.w_size[0]).to(start.dtype)
    return (byte.to(start.dtype) * e + row * (d * W - e * Q) + start).to(torch.int64)


def _least_starts(like: Tensor, g: Geometry) -> Tensor:
    """`_starts` as positions, in the least integers that hold one."""
    H, W = g.x_size
    least = torch.int16 if H * W < 2**15 else torch.int32 if H * W < 2**31 else torch.int64
    return _starts(like, g, W, 1, least)


def _starts(like: Tensor, g: Geometry, row: float, column: float, dtype: torch.dtype) -> Tensor:
    """For each window row h + column k, (h, k) its first pixel, to be added to `like` [N, C, I, J] in its layout."""
    (s, t), (top, left), (C, I, J) = g.stride, g.padding, like.shape[1:]
    exact = dtype if dtype.is_floating_point else torch.int64
    i, j = (torch.arange(extent, dtype=exact, device=like.device) for extent in (I, J))
    start = (((i * s - top) * row)[:, None] + (j * t - left) * column).to(dtype)
    if like.stride(1) != 1:
        return start
    return start[:, :, None].expand(I, J, C).contiguous().permute(2, 0, 1)


def _positions(place: Tensor, places: Places) -> Tensor:
    """Places as positions in the image, whatever they are."""
    return place if places.windows is None or place.dtype == torch.int64 else in_image(place, places.windows)


def take(x: Tensor, place: Tensor, places: Places) -> Tensor:
    """y[n, c, i, j] = x[n, c] at place[n, c, i, j]."""
    if places.windows is not None and place.dtype == torch.uint8 and serves(x):
        return compiled.take(x, place, places.windows)
    index = _positions(place, places)
    return x.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


def put(delta: Tensor, place: Tensor, places: Places, y: Tensor | None = None, phi: str = "none") -> Tensor:
    """delta[n, c, i, j] added at place[n, c, i, j]; zero elsewhere: [N, C, H, W], in the layout of place, that of x.

    With phi, delta phi' told by y instead of delta.
    """
    kernels = compiled_for(delta, y) if places.windows is not None and place.dtype == torch.uint8 else None
    if kernels is not None:
        return kernels.put(delta, place, places.windows, y, phi)
    delta = PHI[phi][1](delta, y)
    (N, C), (H, W) = delta.shape[:2], places.x_size
    delta = laid_out(delta, maps_last(place))
    if places.apart and N > 0 and not torch.are_deterministic_algorithms_enabled():
        # No pixel is in two windows, so nothing adds up. (PyTorch calls this primitive non-deterministic.)
        layouts = [f for f in (torch.contiguous_format, torch.channels_last) if delta.is_contiguous(memory_format=f)]
        plain = place.dtype == torch.int64 or delta.device.type != "cpu" or torch.compiler.is_compiling()
        if plain or len(layouts) != 1:
            return unpool(delta, _positions(place, places), places.x_size)
        last = layouts == [torch.channels_last]
        return _put_in_pieces(laid_out(delta, last), place, places.windows, layouts[0])  # pyright: ignore[reportArgumentType]
    index = _positions(place, places)
    dtype = wide(delta.dtype)
    channels_last = C > 1 and delta.stride(1) == 1
    dx = delta.new_zeros(N, H * W, C, dtype=dtype).mT if channels_last else delta.new_zeros(N, C, H * W, dtype=dtype)
    dx.scatter_add_(2, index.flatten(2), delta.flatten(2).to(dtype))
    return dx.to(delta.dtype).reshape(N, C, H, W)


def _put_in_pieces(delta: Tensor, byte: Tensor, g: Geometry, layout: torch.memory_format) -> Tensor:
    """`put` where windows lie apart, a few images at a time: their positions are used while in the cache.

    PyTorch gives each piece of the result the layout that it sees in delta's strides, whatever the piece had: there
    must be no doubt which. One image or one column of windows leaves a stride that could say anything: see laid_out.
    """
    N, C, *_ = delta.shape
    dx = torch.empty((N, C, *g.x_size), dtype=delta.dtype, memory_format=layout)
    start = _least_starts(byte, g)
    images = _images(delta)
    for n in range(0, N, images):
        piece = slice(n, n + images)
        torch.ops.aten.max_unpool2d.out(delta[piece], in_image(byte[piece], g, start), g.x_size, out=dx[piece])
    return dx


def unpool(x: Tensor, index: Tensor, y_size: tuple[int, ...]) -> Tensor:
    """x[n, c, i, j] written at index[n, c, i, j] of an image of extents y_size; of equal positions one value stays."""
    if x.shape[0] == 0:
        return x.new_zeros(*x.shape[:2], *y_size)
    return torch.ops.aten.max_unpool2d(x, index, y_size)


def window_mean(x: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """The sum over each window divided by m^2, by the pixels that count, or by the override."""
    if prod(g.w_size) <= SMALL and maps_last(x) and serves(x):
        return compiled.window_mean(x, g, count_include_pad, override)
    return T.avg_pool2d(x, g.w_size, g.stride, g.padding, g.ceil_mode, count_include_pad, override)


def window_spread(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """Each delta, divided as in `window_mean`, added to every pixel of its window: [N, C, H, W]."""
    if serves(delta):
        return compiled.window_spread(delta, g, count_include_pad, override)
    (H, W), (P, Q), (s, t), (top, left) = g.x_size, g.w_size, g.stride, g.padding
    C = delta.shape[1]
    share = laid_out(delta, g.last) / _divisor(delta, g, count_include_pad, override)
    if (P % s, Q % t) == (0, 0) and delta.shape[0] > 0:
        # Windows overlap by whole blocks of s x t pixels: add up by blocks, r x q of them a window, and upsample.
        r, q = P // s, Q // t
        if (r, q) != (1, 1):
            share = T.avg_pool2d(T.pad(share, (q - 1, q - 1, r - 1, r - 1)), (r, q), 1, divisor_override=1)
        # For t = 41, 47, 55 ... "nearest" takes the pixel before; "nearest-exact" is slow under vmap.
        mode = "nearest" if max(s, t) <= NEAREST_IS_EXACT else "nearest-exact"
        dx = T.interpolate(share, (share.shape[2] * s, share.shape[3] * t), mode=mode)
    else:  # full convolution with a box, which is its own rotation
        dx = T.conv_transpose2d(share, delta.new_ones(C, 1, P, Q), None, g.stride, groups=C)
    dx = T.pad(dx, (-left, W + left - dx.shape[3], -top, H + top - dx.shape[2]))
    return laid_out(dx, g.last and 1 in delta.shape)  # one number a map shows no layout


def _divisor(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor | int:
    """m^2 as a number where all windows count alike, else a table [I, J]."""
    if override is not None:
        return override
    (H, W), (P, Q), (s, t), (top, left) = g.x_size, g.w_size, g.stride, g.padding
    I, J = g.y_size
    inside = (I - 1) * s + P <= H + 2 * top and (J - 1) * t + Q <= W + 2 * left
    if inside and (count_include_pad or (top, left) == (0, 0)):
        return P * Q

    def counted(extent: int, size: int, window: int, stride: int, pad: int) -> Tensor:
        start = torch.arange(extent, device=delta.device) * stride - pad
        end = (start + window).clamp(max=size + pad)
        return end - start if count_include_pad else end.clamp(max=size) - start.clamp(min=0)

    return torch.outer(counted(I, H, P, s, top), counted(J, W, Q, t, left)).to(delta.dtype)
