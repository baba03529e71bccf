"""Yes or no, eight to a byte."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Eight bytes of 0 or 1 are one number of 64 bits. Times this, its upper byte has one bit of each of them.
GATHER = 0x0102040810204080
# A byte in all eight places, of which each keeps another bit; then 1 where there is any: 127 + it reaches bit 7.
SPREAD, ONE_EACH, REST, ONES = 0x0101010101010101, 0x8040201008040201 - 2**64, 0x7F7F7F7F7F7F7F7F, 0x0101010101010101


def maps_last(x: Tensor) -> bool:
    """Whether x is to be read with its maps last, which is the order of memory in channels_last."""
    return x.ndim > 2 and x.stride(1) == 1 and x.shape[1] > 1


def by_arithmetic() -> bool:
    """Whether to do without views as another dtype, which torch.func's vmap lacks before PyTorch 2.13."""
    return torch._C._are_functorch_transforms_active()


def powers(t: Tensor) -> Tensor:
    """1, 2, 4 ... 128, where t is."""
    return 1 << torch.arange(8, dtype=torch.uint8, device=t.device)


def packed(mask: Tensor, last: bool) -> Tensor:
    """The numbers of a boolean tensor as bytes, [ceil(n / 8)]."""
    flat = (mask.movedim(1, -1) if last else mask).reshape(-1)
    flat = F.pad(flat, (0, -flat.shape[0] % 8))
    if by_arithmetic():
        return (flat.view(-1, 8) * powers(mask)).sum(1).to(torch.uint8)
    eights = flat.view(torch.int64)
    return (eights * GATHER >> 56).to(torch.uint8)


def unpacked(bits: Tensor, shape: torch.Size, last: bool) -> Tensor:
    """The boolean tensor of that shape again."""
    if by_arithmetic():
        flat = (bits[:, None] & powers(bits)).bool().reshape(-1)
    else:
        eights = bits.to(torch.int64) * SPREAD & ONE_EACH
        flat = (eights + REST >> 7 & ONES).view(torch.bool)
    if last:
        shape = torch.Size((shape[0], *shape[2:], shape[1]))
    mask = flat[: shape.numel()].view(shape)
    return mask.movedim(-1, 1) if last else mask


def masked(delta: Tensor, bits: Tensor, last: bool) -> Tensor:
    """delta where the bit is 1, else 0."""
    mask = unpacked(bits, delta.shape, last).to(delta.dtype)
    return mask * delta if by_arithmetic() or torch.compiler.is_compiling() else mask.mul_(delta)
