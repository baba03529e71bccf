"""Linear maps of an image that act on each of its axes apart, and their adjoints: resizing.

Shapes: x [N, C, H, W]; y and delta [N, C, I, J]; weights A [I, H] along the rows, B [J, W] along the columns; with one
axis H and I alone, with three D and M before them.
"""

from dataclasses import dataclass
from math import inf, nan

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.pool import NEAREST_IS_EXACT
from manualbp.kernels.precision import certainly_finite, wide

# The modes that are one along an axis, and the name of that for an image of two axes.
LINEAR = {"linear": "bilinear", "trilinear": "bilinear"}


@dataclass(frozen=True)
class Resize:
    """How an image is resized: to `size` or, where that is None, by the factors `scale`.

    The factors also place the pixels, so they are not replaced by the extents to which they lead.
    """

    size: tuple[int, ...] | None
    scale: tuple[float, ...] | None
    mode: str
    align_corners: bool | None


def interpolate(x: Tensor, r: Resize) -> Tensor:
    """The image, resized."""
    return T.interpolate(x, r.size, r.scale, r.mode, r.align_corners)  # pyright: ignore[reportArgumentType]


def interpolate_adjoint(delta: Tensor, x_size: tuple[int, ...], r: Resize) -> Tensor:
    """Each delta, times its weights, added to the pixels that its output was made of: [N, C, H, W]."""
    if 0 in (*delta.shape, *x_size):
        return delta.new_zeros(*delta.shape[:2], *x_size)
    factors = tuple([I // H for I, H in zip(delta.shape[2:], x_size, strict=True)])
    if (
        r.mode == "nearest"
        and len(x_size) == 2
        and max(factors) <= NEAREST_IS_EXACT
        and _evenly(delta, x_size, factors, r)
    ):
        return T.avg_pool2d(delta, factors, divisor_override=1)
    return transposed(delta, *(_weights(delta, H, r, axis) for axis, H in enumerate(x_size)))


def transposed(delta: Tensor, *weights: Tensor) -> Tensor:
    """A^T delta B of every map, the adjoint of A x B^T: [N, C, H, W]; summed in the dtype of the weights.

    0 times NaN is NaN: what is not finite is added again, with one in the place of every weight, where it is seen.
    Infinities keep their signs where no weight is negative, so not in the mode bicubic.
    """
    dx = _product(delta, *weights)
    if certainly_finite(delta, dx):  # the weights are finite
        return dx
    sees = [(A != 0).to(A.dtype) for A in weights]
    dx = _product(delta.where(delta.isfinite(), 0), *weights)
    for odd, which in ((inf, delta == inf), (-inf, delta == -inf), (nan, delta.isnan())):
        dx = dx + torch.where(_product(which.to(delta.dtype), *sees) > 0, odd, 0.0).to(dx.dtype)
    return dx


def _product(delta: Tensor, *weights: Tensor) -> Tensor:
    """A^T delta B, with all the zeros of A and B."""
    dx = delta.to(weights[0].dtype)
    last = delta.shape[1] > 1 and delta.stride(1) == 1  # channels_last: the same sums with the maps innermost
    if last:
        dx = dx.movedim(1, -1)
    for axis, A in enumerate(weights) if last else reversed([*enumerate(weights)]):
        behind = dx.shape[axis + 2 if last else axis + 3 :]
        dx = (A.mT @ dx.flatten(-len(behind))).unflatten(-1, behind) if behind else dx @ A
    return (dx.movedim(-1, 1) if last else dx).to(delta.dtype)


def _evenly(delta: Tensor, x_size: tuple[int, ...], factors: tuple[int, ...], r: Resize) -> bool:
    """Whether each pixel is repeated as often as the whole factors say, which also place the pixels."""
    evenly = all(f * H == I for f, H, I in zip(factors, x_size, delta.shape[2:], strict=True))
    return evenly and (r.scale is None or tuple(r.scale) == factors)


def _weights(like: Tensor, H: int, r: Resize, axis: int) -> Tensor:
    """A (axis 0), B (1) ...: its columns are the resized unit vectors, so it has the very weights of `interpolate`."""
    size = (like.shape[2 + axis], 1) if r.size is not None else None
    scale = (r.scale[axis], 1.0) if r.scale is not None else None
    units = torch.eye(H, dtype=wide(like.dtype), device=like.device).view(1, H, H, 1)  # map h: one pixel, at h
    along = Resize(size, scale, LINEAR.get(r.mode, r.mode), r.align_corners)
    return interpolate(units, along)[0, :, :, 0].mT
