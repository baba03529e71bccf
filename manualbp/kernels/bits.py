"""Yes or no, eight to a byte: on which of two straight pieces a number is."""

from collections.abc import Callable
from math import nan

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.cpu import bits as compiled
from manualbp.kernels.cpu.calls import serves
from manualbp.kernels.layout import hands_on, laid_out
from manualbp.kernels.pieces import pieces
from manualbp.kernels.precision import wide
from manualbp.kernels.transforms import in_place

# Eight bytes of 0 or 1 are one number of 64 bits. Times this, its upper byte has one bit of each of them.
GATHER = 0x0102040810204080
# A byte in all eight places, of which each keeps another bit.
SPREAD, ONE_EACH = 0x0101010101010101, 0x8040201008040201 - 2**64
# The integer of as many bytes as a number.
INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def nonzero(t: Tensor) -> Tensor:
    """[t != 0], which holds of what is no number."""
    return t.to(torch.bool)


def above(t: Tensor, end: float) -> Tensor:
    """[t > end]."""
    return compared(torch.gt, t, end).to(torch.bool)


def between(t: Tensor, low: float, high: float) -> Tensor:
    """[low < t < high]."""
    return compared(torch.gt, t, low).mul_(compared(torch.lt, t, high)).to(torch.bool)


def not_clamped(t: Tensor, low: float, high: float) -> Tensor:
    """The same, and what is no number."""
    return beyond(t, low, high).to(torch.bool).logical_not_()


def outside(t: Tensor, low: float, high: float) -> Tensor:
    """All but low <= t <= high, so what is no number, too."""
    if low > high:
        return torch.ones_like(t, dtype=torch.bool)
    return t.clamp(low, high).ne_(t).to(torch.bool)


def beyond(t: Tensor, low: float, high: float) -> Tensor:
    """t <= low or t >= high, as a number that is not 0, in the dtype of t."""
    s = _unrounded(t, low, high)
    return compared(torch.le, s, low).add_(compared(torch.ge, s, high)).to(t.dtype)


def not_up_to(t: Tensor, end: float) -> Tensor:
    """All but t <= end, so what is no number, too."""
    return compared(torch.le, _unrounded(t, end), end).to(torch.bool).logical_not_()


def holds(dtype: torch.dtype, *ends: float) -> bool:
    """Whether the ends are compared as they are: half precision rounds some."""
    return dtype == wide(dtype) or all(torch.tensor(end, dtype=dtype).item() == end for end in ends)


def _unrounded(t: Tensor, *ends: float) -> Tensor:
    """t to compare with the ends as they are: in float32, as by PyTorch, where half precision would round them."""
    return t if holds(t.dtype, *ends) else t.to(wide(t.dtype))


def compared(how: Callable[..., Tensor], t: Tensor, end: float) -> Tensor:
    """1 where the comparison holds, else 0, in the dtype of t: on a CPU a fifth of the time of a boolean result."""
    return how(t, end, out=torch.empty_like(t)) if in_place() else how(t, end).to(t.dtype)


# The tests as the compiled kernels have them: which comparison, with which ends.
COMPARISON = {
    nonzero: lambda: (compiled.OUTSIDE, 0.0, 0.0),
    above: lambda end: (compiled.BETWEEN, end, nan),
    between: lambda low, high: (compiled.BETWEEN, low, high),
    not_clamped: lambda low, high: (compiled.NOT_CLAMPED, low, high),
    outside: lambda low, high: (compiled.OUTSIDE, low, high),
    not_up_to: lambda end: (compiled.NOT_CLAMPED, end, nan),
}


def bits_of(test: Callable[..., Tensor], t: Tensor, *ends: float) -> Tensor:
    """The bits of test(t, *ends)."""
    last = hands_on(t)
    if serves(t):
        return compiled.bits_of(t, last, *COMPARISON[test](*map(float, ends)))
    bits = [packed(test(part, *ends), last) for (part,) in _bytewise(t)]
    return bits[0] if len(bits) == 1 else torch.cat(bits)


def masked(delta: Tensor, bits: Tensor, last: bool, off: float = 0.0) -> Tensor:
    """delta where the bit is 1, else off delta. Where off is 0 that is 0, of an infinite delta, too.

    So it is a product of integers, the bit with the number's pattern: 0 times infinity is no number.
    """
    if (last or delta.is_contiguous()) and serves(delta):
        return compiled.masked(delta, bits, last, float(off))
    if not in_place():
        yes = unpacked(bits, delta.shape, last).to(torch.bool)
        return torch.where(yes, delta, delta * off if off else 0)
    delta = laid_out(delta, last)
    dx = torch.empty_like(delta)
    parts, integer = _bytewise(delta, dx), INTEGER[delta.itemsize]
    for (part, to), piece in zip(parts, bits.split(-(-parts[0][0].numel() // 8) or 1), strict=True):
        yes = unpacked(piece, part.shape, last)
        if off:
            torch.mul(torch.threshold_(yes.to(wide(delta.dtype)), 0.5, off), part, out=to)
        else:
            torch.mul(yes.to(integer), part.view(integer), out=to.view(integer))
    return dx


def sloped(test: Callable[..., Tensor], delta: Tensor, t: Tensor, *ends: float, off: float = 0.0) -> Tensor | None:
    """The same by test(t, *ends) itself, in the order of t; None where the compiled kernels do not serve."""
    last = hands_on(t)
    if not (compiled.in_order(t, last) and serves(delta, t)):
        return None
    how, low, high = COMPARISON[test](*map(float, ends))
    return compiled.sloped(delta, t, last, how, low, high, float(off))


def _bytewise(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Some samples at a time, if the bits of a sample fill bytes."""
    x = tensors[0]
    return pieces(*tensors) if x.ndim and x[:1].numel() % 8 == 0 else [tensors]


def packed(mask: Tensor, last: bool) -> Tensor:
    """The numbers of a boolean tensor as bytes, [ceil(n / 8)]."""
    flat = (mask.movedim(1, -1) if last else mask).reshape(-1)
    if rest := -flat.shape[0] % 8:
        flat = T.pad(flat, (0, rest))
    eights = flat.view(-1, 8).view(torch.int64)  # of two axes, as vmap's view of no numbers asks
    return (eights * GATHER >> 56).to(torch.uint8).flatten()


def unpacked(bits: Tensor, shape: torch.Size, last: bool) -> Tensor:
    """The numbers again, as bytes of 0 and 1 (PyTorch makes floats of them in an eighth of what booleans take)."""
    flat = (bits.to(torch.int64).mul_(SPREAD) & ONE_EACH).view(torch.uint8).clamp(max=1)
    if last:
        shape = torch.Size((shape[0], *shape[2:], shape[1]))
    numbers = flat[: shape.numel()].view(shape)
    return numbers.movedim(-1, 1) if last else numbers
