"""Max pooling with its activation: forward with a byte a window, and backward, each in one pass over memory.

    y[n,c,i,j] = phi(z)    z = x[n,c,h,k] at the pixel that is taken    h = s i + d p - top    k = t j + e q - left
    byte[n,c,i,j] = p Q + q of that pixel: of the largest one, the first of equals; of those that are no number the last

phi is the identity or one that never falls (fuse.pool). Backward every pixel asks the windows that see it, so that
nothing is added by two threads and the sum has one order:

    dx[n,c,h,k] = sum of zeta[n,c,i,j] over the windows whose byte is p Q + q there    zeta = delta phi'(z)
    sigmoid  zeta = delta (y - y^2)        tanh  zeta = delta (1 - y^2)        relu  zeta = delta [y is not 0]

Pixel h is under tap p of window i where h + top = s i + d p. For d = 1 that is i = (h + top) // s - a, a = 0, 1, ...
while s a < P; else p = 0, 1, ... P - 1 are tried.

Shapes: x, dx [N, C, H, W]; y, byte, delta [N, C, I, J]. Letters: kernels.geometry, (s, t) stride, (d, e) dilation.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manualbp.kernels.cuda.calls import far, launch, ordered
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.layout import maps_last

BLOCK = 512


@triton.jit
def _numbers(WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Which numbers of a tensor this program makes, in their order in memory."""
    first = tl.program_id(0)
    if WIDE:
        first = first.to(tl.int64)
    return first * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _place(l, C, H, W, LAST: tl.constexpr):
    """(n, c, h, k) of the l-th number of [N, C, H, W] in memory."""
    if LAST:
        return l // C // W // H, l % C, l // C // W % H, l // C % W
    else:
        return l // W // H // C, l // W // H % C, l // W % H, l % W


@triton.jit
def _window(h, a, s: tl.constexpr, d: tl.constexpr):
    """(i, p) of the a-th window that may see pixel h of the padded image."""
    if d == 1:
        return h // s - a, h - (h // s - a) * s
    else:
        return (h - a * d) // s, a


@triton.jit
def _tanh(z):
    """Near 0, where 1 - 2 / (1 + exp 2z) subtracts equals, Lambert's z / (1 + z^2 / (3 + z^2 / (5 + ...))), 5 steps."""
    u = z * z
    near = z * (945 + u * (105 + u)) / (945 + u * (420 + u * 15))
    beyond = 1 - 2 / (1 + tl.exp(2 * tl.abs(z)))
    return tl.where(u < 0.5, near, tl.where(z < 0, -beyond, beyond))


@triton.jit
def _max_pool(
    x, y, byte, C, H, W, I, J, x_n, x_c, x_h, x_w, count,
    P: tl.constexpr, Q: tl.constexpr, s: tl.constexpr, t: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
    d: tl.constexpr, e: tl.constexpr, PHI: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    l = _numbers(WIDE, BLOCK)
    n, c, i, j = _place(l, C, I, J, LAST)
    image = x + n * x_n + c * x_c
    z = tl.full([BLOCK], float("-inf"), tl.float32)
    taken = tl.full([BLOCK], -1, tl.int32)
    for p in range(P):
        h = i * s - top + p * d
        for q in tl.range(Q, loop_unroll_factor=Q if Q < 8 else 8):  # pyright: ignore[reportGeneralTypeIssues]
            k = j * t - left + q * e
            seen = (l < count) & (h >= 0) & (h < H) & (k >= 0) & (k < W)
            v = tl.load(image + h * x_h + k * x_w, mask=seen, other=0.0).to(tl.float32)
            take = seen & ((v > z) | (v != v) | (taken < 0))
            z = tl.where(take, v, z)
            taken = tl.where(take, p * Q + q, taken)
    if PHI == "sigmoid":
        z = 1 / (1 + tl.exp(-z))
    elif PHI == "tanh":
        z = _tanh(z)
    elif PHI == "relu":
        z = tl.where(z <= 0, 0.0, z)
    tl.store(y + l, z, mask=l < count)
    tl.store(byte + l, taken.to(tl.uint8), mask=l < count)


@triton.jit
def _put(
    delta, y, byte, dx, C, H, W, I, J, count,
    P: tl.constexpr, Q: tl.constexpr, s: tl.constexpr, t: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
    d: tl.constexpr, e: tl.constexpr, PHI: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    A: tl.constexpr = (P + s - 1) // s if d == 1 else P
    B: tl.constexpr = (Q + t - 1) // t if e == 1 else Q
    l = _numbers(WIDE, BLOCK)
    n, c, h, k = _place(l, C, H, W, LAST)
    h += top
    k += left
    total = tl.zeros([BLOCK], tl.float32)
    for a in range(A):
        i, p = _window(h, a, s, d)
        for b in tl.range(B, loop_unroll_factor=B if B < 8 else 8):  # pyright: ignore[reportGeneralTypeIssues]
            j, q = _window(k, b, t, e)
            seen = (l < count) & (i >= 0) & (i < I) & (j >= 0) & (j < J) & (p < P) & (q < Q)
            seen &= (i * s + p * d == h) & (j * t + q * e == k)
            window = ((n * I + i) * J + j) * C + c if LAST else ((n * C + c) * I + i) * J + j
            zeta = tl.load(delta + window, mask=seen, other=0.0).to(tl.float32)
            if PHI != "none":
                told = tl.load(y + window, mask=seen, other=0.0).to(tl.float32)
                if PHI == "sigmoid":
                    zeta *= told - told * told
                elif PHI == "tanh":
                    zeta *= 1 - told * told
                else:
                    zeta = tl.where(told != 0, zeta, 0.0)
            taken = tl.load(byte + window, mask=seen, other=0)
            total += tl.where(seen & (taken == p * Q + q), zeta, 0.0)
    tl.store(dx + l, total, mask=l < count)


def max_pool(x: Tensor, g: Geometry, phi: str = "none") -> tuple[Tensor, Tensor]:
    """y and byte, in the layout of x; phi: "none", "sigmoid", "tanh" or "relu". Windows of 256 pixels at most."""
    last = maps_last(x)
    y = _room(x, g.y_size, last)
    byte = torch.empty_like(y, dtype=torch.uint8)
    _run(_max_pool, y, (x, y, byte), x.stride(), g, phi, last, far(x, y))
    return y, byte


def put(delta: Tensor, byte: Tensor, g: Geometry, y: Tensor | None = None, phi: str = "none") -> Tensor:
    """dx, in the layout of byte; without phi there need not be y."""
    last = maps_last(byte)
    delta, byte = ordered(delta, last), ordered(byte, last)
    y = delta if y is None else ordered(y, last)
    dx = _room(delta, g.x_size, last)
    _run(_put, dx, (delta, y, byte, dx), (), g, phi, last, far(delta, dx))
    return dx


def _room(like: Tensor, extents: tuple[int, ...], last: bool) -> Tensor:
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(*like.shape[:2], *extents, dtype=like.dtype, device=like.device, memory_format=order)


def _run(kernel: Any, made: Tensor, tensors: Any, strides: Any, g: Geometry, phi: str, last: bool, wide: bool) -> None:
    """Run a kernel that makes the numbers of `made`."""
    (P, Q), (s, t), (top, left), (d, e) = g.w_size, g.stride, g.padding, g.dilation
    sizes = made.shape[1], *g.x_size, *g.y_size, *strides, made.numel()
    steps = {"P": P, "Q": Q, "s": s, "t": t, "top": top, "left": left, "d": d, "e": e}
    how = {"PHI": phi, "LAST": last, "WIDE": wide, "BLOCK": BLOCK}
    launch(kernel, (triton.cdiv(made.numel(), BLOCK),), *tensors, *sizes, **steps, **how)
