"""Samples in pieces: several passes over memory while a piece is in the cache."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from manualbp.kernels.transforms import in_place

# Numbers of a piece.
PIECE = 2**19


def pieces(x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of the tensors, some of their samples at a time, where that is possible and faster; else one piece, all.

    It is faster on a CPU: elsewhere a few large passes are. It is possible for tensors of one shape and dtype, and
    where nothing derives or follows the operations.
    """
    alike = all((t.shape, t.dtype) == (x.shape, x.dtype) for t in others)
    N = x.shape[0] if x.ndim else 1
    step = PIECE * N // (x.numel() or 1) or 1
    if x.device.type != "cpu" or step >= N or not (alike and in_place()):
        return [(x, *others)]
    return list(zip(*(t.split(step) for t in (x, *others)), strict=True))


def by_pieces(f: Callable[..., Tensor], like: Tensor, *tensors: Tensor) -> Tensor:
    """f(*tensors), number by number, some samples at a time; then in the layout of `like`, which has their dtype."""
    if len(parts := pieces(*tensors)) == 1:
        return f(*tensors)
    y = torch.empty_like(like)
    for part, to in zip(parts, y.split(len(parts[0][0])), strict=True):
        to.copy_(f(*part))
    return y


def piecewise(slope: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of delta and a tensor of its shape, number by number, some samples at a time."""

    @wraps(slope)
    def in_pieces(delta: Tensor, t: Tensor, *settings: float) -> Tensor:
        return by_pieces(lambda d, part: slope(d, part, *settings), t, delta, t)

    return in_pieces
