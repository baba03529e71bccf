"""Which order of memory a tensor has: maps one behind the other, or the maps of a pixel (channels_last)."""

from itertools import pairwise

import torch
from torch import Tensor

from manualbp.kernels.transforms import transformed

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def maps_last(x: Tensor) -> bool:
    """Whether PyTorch takes images for ones in channels_last: their strides grow from the maps to the images.

    From the maps over the last axis to the first one, each step is at least as long as the axis before it. One map, or
    one pixel a map, is in either order; then the strides that it does not need tell which one is meant. Where they do
    not tell either, it is not channels_last.
    """
    if x.ndim not in CHANNELS_LAST:
        return False
    strides, least = x.stride(), 1
    for axis in (1, *range(x.ndim - 1, 1, -1)):
        if strides[axis] < least or x.shape[axis] == 0:
            return False
        least = strides[axis] * x.shape[axis]
    return strides[0] >= least and least != strides[1] and x.shape[0] > 0


def laid_out(delta: Tensor, last: bool) -> Tensor:
    """A delta in channels_last where what it meets is so: behind a flattening, a sum or a mean over maps it is not.

    Each product of two layouts takes several times as long, and hands its own on to the next. A delta of one map, or of
    one pixel a map, is in either order. Its image may be larger: PyTorch asks the strides in which order that will be.
    A tensor of torch.func.vmap answers nothing about its layout: there, too, it is taken apart and put together.
    """
    if not last or delta.ndim not in CHANNELS_LAST:
        return delta
    if delta.ndim == 4 and not transformed():
        _, C, H, W = delta.shape
        if delta.stride() == (C * H * W, 1, W * C, C):
            return delta
    if 1 not in delta.shape and not transformed():
        return delta.contiguous(memory_format=CHANNELS_LAST[delta.ndim])
    N, C, *extents = delta.shape
    return delta.movedim(1, -1).contiguous().flatten().reshape(N, *extents, C).movedim(-1, 1)


def hands_on(x: Tensor) -> bool:
    """Whether what PyTorch makes of x, number by number, is in channels_last, where x is the first of several tensors.

    Its strides grow from the maps to the images, as in `maps_last`, but here axes of one place do not count.
    """
    if x.ndim not in CHANNELS_LAST or x.shape[1] < 2:
        return False
    order = (1, *range(x.ndim - 1, 1, -1), 0)
    steps = [x.stride(axis) for axis in order if x.shape[axis] > 1]
    return maps_last(x) or (steps[0] > 0 and all(a <= b for a, b in pairwise(steps)))


def alike(delta: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Both in channels_last where either hands that on: PyTorch's product of them is in channels_last, or may be."""
    if hands_on(t):
        return laid_out(delta, True), t
    return delta, laid_out(t, hands_on(delta))
