"""Which order of memory a tensor has: maps one behind the other, or the maps of a pixel (channels_last)."""

import torch
from torch import Tensor


def maps_last(x: Tensor) -> bool:
    """Whether x is to be read with its maps last, which is the order of memory in channels_last."""
    return x.ndim > 2 and x.stride(1) == 1 and x.shape[1] > 1


def laid_out(delta: Tensor, last: bool) -> Tensor:
    """A delta in channels_last where what it meets is so: behind a flattening or a mean over maps it is not.

    Each product of two layouts takes several times as long, and hands its own on to the next.
    """
    return delta.contiguous(memory_format=torch.channels_last) if last and delta.ndim == 4 else delta
