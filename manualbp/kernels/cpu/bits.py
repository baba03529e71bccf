"""A bit a number, on which of two straight pieces it is, by bits.c, which has the formulas.

Numbers are taken as they lie in memory, of images in channels_last the maps of a pixel side by side (`last`). For
torch.compile and modes that see each operation the functions are operators of PyTorch's.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.kernels.cpu.calls import KIND, call, operator, threads_for
from manualbp.kernels.layout import CHANNELS_LAST

# What bits.c calls what it makes, and the comparisons; an end that is no number is none.
PACK, MASK, SLOPE = range(3)
BETWEEN, NOT_CLAMPED, OUTSIDE = range(3)


def in_order(t: Tensor, last: bool) -> bool:
    """Whether the numbers of t lie so, without gaps."""
    return t.is_contiguous(memory_format=_order(t, last))


@operator("bits_of", lambda t, last, how, low, high: _bits_like(t))
def bits_of(t: Tensor, last: bool, how: int, low: float, high: float) -> Tensor:
    """The bits of a comparison with the ends."""
    bits = _bits_like(t)
    _straight(PACK, how, low, high, _ordered(t, last), bits, 0.0, None, None)
    return bits


@operator("masked", lambda delta, bits, last, off: _like(delta, last))
def masked(delta: Tensor, bits: Tensor, last: bool, off: float) -> Tensor:
    """delta where the bit is 1, else off delta, which is 0 where off is 0."""
    dx = _like(delta, last)
    _straight(MASK, NOT_CLAMPED, 0.0, 0.0, None, bits, off, _ordered(delta, last), dx)
    return dx


@operator("sloped", lambda delta, t, last, how, low, high, off: torch.empty_like(t))
def sloped(delta: Tensor, t: Tensor, last: bool, how: int, low: float, high: float, off: float) -> Tensor:
    """The same where t itself is there to compare, `in_order`; dx lies as t does."""
    t = _ordered(t, last)
    dx = torch.empty_like(t)
    _straight(SLOPE, how, low, high, t, None, off, _ordered(delta, last), dx)
    return dx


def _straight(what: int, how: int, low: float, high: float, t: Tensor | None, *rest: Any) -> None:
    like = rest[-2] if t is None else t
    call("bits_straight", KIND[like.dtype], what, how, low, high, t, *rest, like.numel(), threads_for(like))


def _order(t: Tensor, last: bool) -> torch.memory_format:
    return CHANNELS_LAST[t.ndim] if last else torch.contiguous_format


def _ordered(t: Tensor, last: bool) -> Tensor:
    return t.contiguous(memory_format=_order(t, last))


def _like(t: Tensor, last: bool) -> Tensor:
    return torch.empty(t.shape, dtype=t.dtype, device=t.device, memory_format=_order(t, last))


def _bits_like(t: Tensor) -> Tensor:
    return t.new_empty((t.numel() + 7) // 8, dtype=torch.uint8)
