"""Linear maps of an image that act on rows and columns apart, and their adjoints: resizing.

Shapes: x [N, C, H, W]; y and delta [N, C, I, J]; weights A [I, H] along the rows, B [J, W] along the columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.pool import NEAREST_IS_EXACT
from manualbp.kernels.precision import wide


@dataclass(frozen=True)
class Resize:
    """How an image is resized: to `size` or, where that is None, by the factors `scale`.

    The factors also place the pixels, so they are not replaced by the extents to which they lead.
    """

    size: tuple[int, int] | None
    scale: tuple[float, float] | None
    mode: str
    align_corners: bool | None


def interpolate(x: Tensor, r: Resize) -> Tensor:
    """The image, resized."""
    return T.interpolate(x, r.size, r.scale, r.mode, r.align_corners)  # pyright: ignore[reportArgumentType]


def interpolate_adjoint(delta: Tensor, H: int, W: int, r: Resize) -> Tensor:
    """Each delta, times its weights, added to the pixels that its output was made of: [N, C, H, W]."""
    I, J = delta.shape[2:]
    f, g = I // H, J // W
    if r.mode == "nearest" and (f * H, g * W) == (I, J) and max(f, g) <= NEAREST_IS_EXACT and _evenly(r, f, g):
        return T.avg_pool2d(delta, (f, g), divisor_override=1)
    return transposed(delta, _weights(delta, H, r, 0), _weights(delta, W, r, 1))


def transposed(delta: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """A^T delta B of every map, the adjoint of A x B^T: [N, C, H, W]; the sums are taken in the dtype of A and B."""
    dx = delta.to(B.dtype)
    if delta.shape[1] > 1 and delta.stride(1) == 1:  # channels_last: the same sums with the maps innermost
        dx = dx.permute(0, 2, 3, 1)
        dx = (A.mT @ dx.flatten(2)).unflatten(2, dx.shape[2:])
        dx = (B.mT @ dx).permute(0, 3, 1, 2)
    else:
        dx = A.mT @ (dx @ B)
    return dx.to(delta.dtype)


def _evenly(r: Resize, f: int, g: int) -> bool:
    """Whether f and g are the factors that place the pixels."""
    return r.scale is None or tuple(r.scale) == (f, g)


def _weights(like: Tensor, H: int, r: Resize, axis: int) -> Tensor:
    """A (axis 0) or B (1): its columns are the resized unit vectors, so it has the very weights of `interpolate`."""
    size = (like.shape[2 + axis], 1) if r.size is not None else None
    scale = (r.scale[axis], 1.0) if r.scale is not None else None
    units = torch.eye(H, dtype=wide(like.dtype), device=like.device).view(1, H, H, 1)  # map h: one pixel, at h
    return interpolate(units, Resize(size, scale, r.mode, r.align_corners))[0, :, :, 0].mT
