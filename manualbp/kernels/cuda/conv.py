"""The kernel gradient as an implicit product: the windows of x are gathered on the way, never built in memory.

    dw[o,c,p,q] = sum_k delta[k,o] window[k,m]    window[k,m] = x[n,c,h,l] at h = s i + d p - top, l = t j + e q - left

with k = (n, i, j) a position, K = N I J, and m = (p, q, c), M = P Q C. A program makes BO x BM numbers of dw, of one
group, over a share of the positions, BK of them at a time, and stores them as its part; PyTorch adds up the parts. So
nothing is added by two threads, and the order of the sums depends on the shapes alone. A tap over the padding takes
delta times 0, which is NaN where delta is infinite or no number, as where the windows are built.

Shapes: x [N, G C, H, W], delta [N, G O, I, J], dw [G O, C, P, Q], C and O being those of one of G groups here; all in
channels_last. Letters: kernels.geometry, (s, t) stride, (d, e) dilation.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from manualbp.kernels.cuda.calls import far, launch, ordered
from manualbp.kernels.geometry import Geometry

# The numbers of dw that a program makes, and the positions that it takes at a time.
BO, BM, BK = 64, 64, 32

# Programs that there should be at least, and positions that are worth one.
PROGRAMS = 512
SHARE = 256


@triton.jit
def _kernel_gradient(
    x, delta, parts, O, C, H, W, I, J, K, share,
    P: tl.constexpr, Q: tl.constexpr, s: tl.constexpr, t: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
    d: tl.constexpr, e: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BO: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    M = P * Q * C
    G = tl.num_programs(2)
    part, group = tl.program_id(1), tl.program_id(2)
    if WIDE:
        part, group = part.to(tl.int64), group.to(tl.int64)
    tiles = tl.cdiv(M, BM)
    o = tl.program_id(0) // tiles * BO + tl.arange(0, BO)
    m = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    p, q = m // C // Q, m // C % Q
    maps = x + group * C + m % C
    total = tl.zeros([BO, BM], tl.float32)
    for k0 in range(0, share, BK):
        k = part * share + k0 + tl.arange(0, BK)
        n, i, j = k // J // I, k // J % I, k % J
        h = (i * s - top)[:, None] + (p * d)[None, :]
        l = (j * t - left)[:, None] + (q * e)[None, :]
        seen = (k < K)[:, None] & (m < M)[None, :] & (h >= 0) & (h < H) & (l >= 0) & (l < W)
        window = tl.load(maps[None, :] + (((n * H)[:, None] + h) * W + l) * (G * C), mask=seen, other=0.0)
        there = (o < O)[:, None] & (k < K)[None, :]
        row = tl.load(delta + (group * O + o)[:, None] + (k * (G * O))[None, :], mask=there, other=0.0)
        total = tl.dot(row, window, total, input_precision=PRECISION)
    to = parts + ((part * G + group) * O + o)[:, None] * M + m[None, :]
    tl.store(to, total, mask=(o < O)[:, None] & (m < M)[None, :])


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw, the maps of a tap side by side; products of float32 in the precision that PyTorch is told for matrices."""
    (P, Q), (s, t), (top, left), (d, e), G = g.w_size, g.stride, g.padding, g.dilation, g.groups
    x, delta = ordered(x, True), ordered(delta, True)
    C, O, (I, J) = x.shape[1] // G, delta.shape[1] // G, g.y_size
    K, tiles = x.shape[0] * I * J, triton.cdiv(O, BO) * triton.cdiv(P * Q * C, BM)
    share = triton.cdiv(max(triton.cdiv(K * tiles * G, PROGRAMS), SHARE), BK) * BK
    parts = torch.empty(triton.cdiv(K, share), G * O, P, Q, C, device=x.device)
    grid, sizes = (tiles, parts.shape[0], G), (O, C, *g.x_size, I, J, K, share)
    steps = {"P": P, "Q": Q, "s": s, "t": t, "top": top, "left": left, "d": d, "e": e}
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    how = {"PRECISION": "tf32" if tf32 else "ieee", "WIDE": far(x, delta, parts), "BO": BO, "BM": BM, "BK": BK}
    launch(_kernel_gradient, grid, x, delta, parts, *sizes, **steps, **how)
    return parts.sum(0).to(x.dtype).movedim(-1, 1)
