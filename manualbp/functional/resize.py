"""Interpolation: the image resized by a linear map that acts on each of its axes apart.

    y[n,c,i,j] = sum_{h,k} A[i,h] B[j,k] x[n,c,h,k]               y  = A x B^T for every map

nearest   row i of A is 1 at one pixel, h = floor(i / s)
linear    row i of A is 1 - r at h = floor(u) and r at h + 1, with r = u - h and u = (i + 1/2) / s - 1/2, held within
          the image; with align_corners u = i (H - 1) / (I - 1)
bicubic   row i of A holds Keys' cubic weights of r at h - 1 to h + 2; what is beyond the image counts as its edge
area      row i of A is 1 / n at the n pixels from floor(i / s) to ceil((i + 1) / s), without it

s = I / H, or the scale_factor that was given: B[j,k] likewise. A and B do not depend on x, so

    dL/dx[n,c,h,k] = sum_{i,j} A[i,h] B[j,k] delta[n,c,i,j]       dx = A^T delta B

Each delta goes back to the pixels that y was made of, with the same weights: <delta, A x B^T> = <A^T delta B, x>. For
nearest and a whole s this is the sum over the s x s outputs of each pixel. Upsampling by A is the convolution with step
1/s of Long, Shelhamer and Darrell (2015, sec. 3.3) with the kernel held fixed. One axis has A alone, three have a third
matrix: nothing above asks how many there are.

Shapes: x [N, C, H, W]; y and delta [N, C, I, J]; A [I, H], B [J, W]; eps = dL/d(dx); with one axis H and I alone, with
three D and M before them.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import require_floating, require_real
from manualbp.functional.rule import LinearRule, run
from manualbp.kernels import resize as kernels
from manualbp.kernels.layout import laid_out, maps_last
from manualbp.kernels.resize import Resize

# The number of an image's axes that each mode takes.
AXES = {
    **dict.fromkeys(("nearest", "nearest-exact", "area"), (1, 2, 3)),
    **{"linear": (1,), "bilinear": (2,), "trilinear": (3,), "bicubic": (2,)},
}
NO_CORNERS = "nearest", "nearest-exact", "area"


class Interpolate(LinearRule):
    """y = A x B^T. dL/dx = A^T delta B; kept: nothing."""

    @staticmethod
    def forward(x: Tensor, r: Resize) -> Tensor:
        return kernels.interpolate(x, r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.settings = inputs
        ctx.x_size = (
            *[None] * (5 - x.ndim),
            *x.shape[2:],
        )  # from the tensor: torch.compile knows no other extents of any size in here
        (r,) = ctx.settings
        ctx.last = r.mode == "area" and maps_last(x)  # in the other modes PyTorch's dx lies as delta does, here as x

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        return run(InterpolateAdjoint, laid_out(delta, ctx.last), *ctx.settings, *ctx.x_size), None


class InterpolateAdjoint(LinearRule):
    """dx = A^T delta B. Its derivative by delta resizes: A eps B^T; kept: nothing. Of axes that there are not: None."""

    @staticmethod
    def forward(delta: Tensor, r: Resize, D: int | None, H: int | None, W: int) -> Tensor:
        return kernels.interpolate_adjoint(delta, tuple([extent for extent in (D, H, W) if extent is not None]), r)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
        r, *_ = ctx.settings
        ddelta = run(Interpolate, eps, r)
        return ddelta if eps.numel() else torch.zeros_like(ddelta), None, None, None, None  # dx held no numbers


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """torch.nn.functional.interpolate with a backward pass by hand.

    input [N, C, H], [N, C, H, W] or [N, C, D, H, W] of any floating dtype (or uint8, without a gradient) -> y of the
    same axes. mode "nearest", "nearest-exact" or "area" of any of these, "linear" of one axis, "bilinear" or "bicubic"
    of two, "trilinear" of three. size: the extents, or one number for all; or scale_factor instead, likewise, with
    I = floor(H scale_factor): it also says where the pixels are, unless recompute_scale_factor (or mode "area").
    align_corners (the linear modes and "bicubic"): the middles of the corner pixels fall together, not the corners of
    the image. Kept for backward: nothing. Raises ValueError for other modes, for antialias and for
    settings that do not fit, TypeError for complex numbers. "area" has outputs without pixels and a mean of no pixels.
    Source: Long, Shelhamer and Darrell 2015, sec. 3.3; Keys 1981; derivation at the head of this file.
    """
    op = "interpolate"
    require_real(op, input=input)
    require_floating(op, torch.uint8, input=input)
    if mode not in AXES:
        raise ValueError(f"{op}: mode = {mode!r}; it must be one of {', '.join(map(repr, AXES))}")
    if antialias:
        raise ValueError(f"{op}: antialias = {antialias}; it must be False")
    if align_corners is not None and mode in NO_CORNERS:
        raise ValueError(f"{op}: align_corners = {align_corners} with mode = {mode!r}; that has no corners to align")
    if input.ndim - 2 not in AXES[mode] or (0 in input.shape[1:] and mode != "area"):
        axes = " or ".join(map(str, AXES[mode]))
        raise ValueError(
            f"{op}: input has shape {list(input.shape)} with mode = {mode!r}; it must be [N, C] and {axes} axes of "
            "an image, none but N of extent 0"
        )
    how = _resize(op, input, size, scale_factor, mode, align_corners, recompute_scale_factor)
    return run(Interpolate, input, how)


def _resize(
    op: str,
    x: Tensor,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute: bool | None,
) -> Resize:
    """The extents or the factors, whichever are given, or a refusal naming `op`."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: size = {size!r} and scale_factor = {scale_factor!r}; one of them must be given")
    if recompute and size is not None:
        raise ValueError(f"{op}: recompute_scale_factor = {recompute} with size = {size!r}; there is no factor then")
    name, given = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    x_size = x.shape[2:]
    values: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence) else (given,) * len(x_size)
    if len(values) != len(x_size):
        raise ValueError(
            f"{op}: {name} = {given!r}; it must be one number or {len(x_size)}, for the axes of an image {list(x_size)}"
        )
    y_size = values if scale_factor is None else tuple([math.floor(H * s) for H, s in zip(x_size, values, strict=True)])
    least = 0 if mode == "area" else 1
    if min(y_size) < least:
        raise ValueError(
            f"{op}: {name} = {given!r} makes an image of extents {list(y_size)} of one of {list(x_size)}; they must be "
            f"at least {least}"
        )
    if 0 in x_size and any(I != 1 for I in y_size):  # of no pixels PyTorch takes a single mean
        raise ValueError(
            f"{op}: {name} = {given!r} makes an image of extents {list(y_size)} of one of {list(x_size)}; of no pixels "
            "they must be 1"
        )
    corners = None if mode in NO_CORNERS else bool(align_corners)
    if scale_factor is None or recompute or mode == "area":
        return Resize(y_size, None, mode, corners)
    return Resize(None, values, mode, corners)
