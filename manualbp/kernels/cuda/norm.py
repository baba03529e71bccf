"""Batch norm and ReLU or nothing behind it: after the statistics one pass over memory forward, two backward.

    z = (x - mu) s + b    s = r w    y = phi(z)        r = 1 / sqrt(var + eps)
    g = delta phi'(z)    q = sum g (x - mu)    dw = r q    db = sum g    dx = s g + c (x - mu) + e
    c = -r^3/m (w q + dL/dr)    e = 1/m (dL/dmu - s sum g)        (functional/norm.py)

phi' is told by z, which is made again in the same way, so that nothing is kept for it. Each program adds up a share of
the positions for some maps, and stores that as its part; PyTorch adds up the parts: the order of the sums depends on
the shape alone.

x, y, delta, dx [K, C, L]: L numbers of each of C maps lie side by side, K times. In channels_last that is one number, K
pixels; else K images. A sum is over the m = K L numbers of a map. The others [C], in float32.
"""

from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from manualbp.kernels.cuda.calls import far, launch, ordered
from manualbp.kernels.layout import maps_last

# The numbers of a program, and the programs at most that share the sums.
BLOCK = 1024
SHARES = 512


@triton.jit
def _numbers(C, L, count, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Which numbers this program makes, in their order in memory, whether they are there, and of which maps."""
    first = tl.program_id(0)
    if WIDE:
        first = first.to(tl.int64)
    at = first * BLOCK + tl.arange(0, BLOCK)
    return at, at < count, at // L % C


@triton.jit
def _let_through(delta, x, mu, s, b, RELU: tl.constexpr):
    """g; of a z that is no number delta."""
    return tl.where(tl.fma(x - mu, s, b) <= 0, 0.0, delta) if RELU else delta


@triton.jit
def _affine(x, mu, s, b, y, C, L, count, RELU: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    at, there, c = _numbers(C, L, count, WIDE, BLOCK)
    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    z = tl.fma(v - tl.load(mu + c), tl.load(s + c), tl.load(b + c))
    tl.store(y + at, tl.where(z <= 0, 0.0, z) if RELU else z, mask=there)


@triton.jit
def _combine(x, mu, s, b, c, e, delta, dx, C, L, count, RELU: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    at, there, o = _numbers(C, L, count, WIDE, BLOCK)
    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    d = tl.load(delta + at, mask=there, other=0.0).to(tl.float32)
    mean, scale = tl.load(mu + o), tl.load(s + o)
    g = _let_through(d, v, mean, scale, tl.load(b + o), RELU)
    tl.store(dx + at, tl.fma(scale, g, tl.fma(tl.load(c + o), v - mean, tl.load(e + o))), mask=there)


@triton.jit
def _sum(
    x, mu, s, b, delta, parts, C, L, m, share, RELU: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Over a share of the positions, for BC maps."""
    part = tl.program_id(1)
    if WIDE:
        part = part.to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mean = tl.load(mu + c, mask=c < C, other=0.0)[None, :]
    scale = tl.load(s + c, mask=c < C, other=0.0)[None, :]
    shift = tl.load(b + c, mask=c < C, other=0.0)[None, :]
    sum_g = tl.zeros([BM, BC], tl.float32)
    q = tl.zeros([BM, BC], tl.float32)
    for first in range(0, share, BM):
        at_m = part * share + first + tl.arange(0, BM)
        at = (at_m // L * C * L + at_m % L)[:, None] + (c * L)[None, :]
        there = (at_m < m)[:, None] & (c < C)[None, :]
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        d = tl.load(delta + at, mask=there, other=0.0).to(tl.float32)
        g = _let_through(d, v, mean, scale, shift, RELU)
        sum_g += g
        q += g * (v - mean)
    to = parts + part * 2 * C + c
    tl.store(to, tl.sum(sum_g, 0), mask=c < C)
    tl.store(to + C, tl.sum(q, 0), mask=c < C)


def affine(x: Tensor, s: Tensor, t: Tensor | None, phi: str = "", mu: Tensor | None = None) -> Tensor:
    """phi((x - mu) s + t), map by map, in the layout of x."""
    x = ordered(x, maps_last(x))
    y = torch.empty_like(x)
    of_maps = [torch.zeros_like(s) if a is None else a.contiguous() for a in (mu, s, t)]
    launch(_affine, _grid(x), x, *of_maps, y, *_sizes(x), x.numel(), RELU=phi == "relu", WIDE=far(x), BLOCK=BLOCK)
    return y


def forward(
    x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor | None, var: Tensor | None, momentum: float, eps: float,
    phi: str = "",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, mu, r); mean and var: running, updated in place. Without phi PyTorch's kernel takes one pass, too."""
    if not phi:
        return torch.native_batch_norm(x, w, b, mean, var, True, momentum, eps)
    mu, own = torch.batch_norm_update_stats(x, mean, var, momentum)
    r = (own + eps).rsqrt()
    return affine(x, r if w is None else r * w, b, phi, mu), mu, r


def backward(
    delta: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None, mu: Tensor, r: Tensor, by_mu: Tensor, by_r: Tensor,
    x_needed: bool, phi: str = "",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dx, dw, db), by dL/dmu and dL/dr as well; dx is empty where it is not needed."""
    x, last = ordered(x, maps_last(x)), maps_last(x)
    delta, (C, L), m = ordered(delta, last), _sizes(x), x.numel() // x.shape[1]
    mu, r, by_mu, by_r = (t.flatten() for t in (mu, r, by_mu, by_r))
    s = r if w is None else r * w
    settings = [t.contiguous() for t in (mu, s, torch.zeros_like(s) if b is None else b)]
    how = {"RELU": phi == "relu", "WIDE": far(x)}
    BC = 1 if L > 1 else min(64, triton.next_power_of_2(C))
    BM, maps = 2 * BLOCK // BC, triton.cdiv(C, BC)
    share = triton.cdiv(triton.cdiv(m, max(SHARES // maps, 1)), BM) * BM
    parts = torch.empty(triton.cdiv(m, share), 2, C, device=x.device)
    launch(_sum, (maps, len(parts)), x, *settings, delta, parts, C, L, m, share, **how, BM=BM, BC=BC)
    db, q = parts.sum(0)
    if not x_needed:
        return x.new_empty(0), q * r, db
    c, e = (q * s + by_r * r) * r * r / -m, (by_mu - s * db) / m
    dx = torch.empty_like(x)
    launch(_combine, _grid(x), x, *settings, c, e, delta, dx, C, L, x.numel(), **how, BLOCK=BLOCK)
    return dx, q * r, db


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


def _sizes(x: Tensor) -> tuple[int, int]:
    """C and L."""
    return x.shape[1], 1 if maps_last(x) else prod(x.shape[2:])
