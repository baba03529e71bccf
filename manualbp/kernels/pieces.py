"""Samples in pieces: several passes over memory while a piece is in the cache."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from manualbp.kernels.layout import alike
from manualbp.kernels.transforms import in_place

# Numbers of a piece.
PIECE = 2**19


def pieces(x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of the tensors, some of their samples at a time, where that is possible and faster; else one piece, all.

    It is faster on a CPU: elsewhere a few large passes are. It is possible for tensors of one dtype and of the shape of
    x, or with extents of 1 behind its first, and where nothing derives or follows the operations.
    """
    alike = all(t.dtype == x.dtype and (t.shape == x.shape or _spreads(t, x)) for t in others)
    N = x.shape[0] if x.ndim else 1
    step = PIECE * N // (x.numel() or 1) or 1
    if x.device.type != "cpu" or step >= N or not (alike and in_place()):
        return [(x, *others)]
    return list(zip(*(t.split(step) for t in (x, *others)), strict=True))


def _spreads(t: Tensor, x: Tensor) -> bool:
    """Whether each sample of t broadcasts to that of x."""
    if t.ndim != x.ndim or not t.ndim or t.shape[0] != x.shape[0]:
        return False
    return all(n in (1, m) for n, m in zip(t.shape, x.shape, strict=True))


def by_pieces(f: Callable[..., Tensor], like: Tensor, *tensors: Tensor) -> Tensor:
    """f(*tensors), number by number, some samples at a time; then in the layout of `like`, which has their dtype."""
    if len(parts := pieces(*tensors)) == 1:
        return f(*tensors)
    y = torch.empty_like(like)
    for part, to in zip(parts, y.split(len(parts[0][0])), strict=True):
        to.copy_(f(*part))
    return y


def in_one_order(slope: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of delta and a tensor of its shape, number by number, both in one order of memory."""

    @wraps(slope)
    def in_order(delta: Tensor, t: Tensor, *settings: float) -> Tensor:
        return slope(*alike(delta, t), *settings)

    return in_order


def piecewise(slope: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same, some samples at a time."""

    @in_one_order
    @wraps(slope)
    def in_pieces(delta: Tensor, t: Tensor, *settings: float) -> Tensor:
        return by_pieces(lambda d, part: slope(d, part, *settings), t, delta, t)

    return in_pieces
