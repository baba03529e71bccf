"""Interpolation: the image resized by a linear map that acts on rows and columns apart.

    y[n,c,i,j] = sum_{h,k} A[i,h] B[j,k] x[n,c,h,k]               y  = A x B^T for every map

nearest   row i of A is 1 at one pixel, h = floor(i / s)
bilinear  row i of A is 1 - r at h = floor(u) and r at h + 1, with r = u - h and u = (i + 1/2) / s - 1/2, held within
          the image; with align_corners u = i (H - 1) / (I - 1)

s = I / H, or the scale_factor that was given: B[j,k] likewise. A and B do not depend on x, so

    dL/dx[n,c,h,k] = sum_{i,j} A[i,h] B[j,k] delta[n,c,i,j]       dx = A^T delta B

Each delta goes back to the pixels that y was made of, with the same weights: <delta, A x B^T> = <A^T delta B, x>. For
nearest and a whole s this is the sum over the s x s outputs of each pixel. Upsampling by A is the convolution with step
1/s of Long, Shelhamer and Darrell (2015, sec. 3.3) with the kernel held fixed.

Shapes: x [N, C, H, W]; y and delta [N, C, I, J]; A [I, H], B [J, W]; eps = dL/d(dx).
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from manualbp.functional.checks import refuse_complex
from manualbp.functional.rule import LinearRule, run
from manualbp.kernels import resize as kernels
from manualbp.kernels.resize import Resize

MODES = ("nearest", "nearest-exact", "bilinear")


class Interpolate(LinearRule):
    """y = A x B^T. dL/dx = A^T delta B; kept: nothing."""

    @staticmethod
    def forward(x: Tensor, r: Resize) -> Tensor:
        return kernels.interpolate(x, r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.settings = inputs
        ctx.x_size = x.shape[2:]  # from the tensor: torch.compile knows no other extents of any size in here

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        return run(InterpolateAdjoint, delta, *ctx.x_size, *ctx.settings), None


class InterpolateAdjoint(LinearRule):
    """dx = A^T delta B. Its derivative by delta resizes: A eps B^T; kept: nothing."""

    @staticmethod
    def forward(delta: Tensor, H: int, W: int, r: Resize) -> Tensor:
        return kernels.interpolate_adjoint(delta, H, W, r)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None, None, None]:
        *_, r = ctx.settings
        return run(Interpolate, eps, r), None, None, None


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

    input [N, C, H, W] of any floating dtype (or uint8, without a gradient) -> y [N, C, I, J]. mode "nearest",
    "nearest-exact" or "bilinear". size: (I, J), or one number for both; or scale_factor instead, one or two, with
    I = floor(H scale_factor): it also says where the pixels are, unless recompute_scale_factor. align_corners
    ("bilinear" only): the middles of the corner pixels fall together, not the corners of the image. Kept for backward:
    nothing. Raises ValueError for other modes, for antialias, for an input of other than four axes and for settings
    that do not fit, TypeError for complex numbers.
    Source: Long, Shelhamer and Darrell 2015, sec. 3.3; derivation at the head of this file.
    """
    op = "interpolate"
    refuse_complex(op, input=input)
    if mode not in MODES:
        raise ValueError(f"{op}: mode = {mode!r}; it must be 'nearest', 'nearest-exact' or 'bilinear'")
    if antialias:
        raise ValueError(f"{op}: antialias = {antialias}; it must be False")
    if align_corners is not None and mode != "bilinear":
        raise ValueError(f"{op}: align_corners = {align_corners} with mode = {mode!r}; only 'bilinear' has corners")
    if input.ndim != 4 or 0 in input.shape[1:]:
        raise ValueError(f"{op}: input has shape {list(input.shape)}; it must be [N, C, H, W], C, H, W not 0")
    return run(Interpolate, input, _resize(op, input, size, scale_factor, mode, align_corners, recompute_scale_factor))


def _resize(
    op: str, x: Tensor, size: Any, scale_factor: Any, mode: str, align_corners: bool | None, recompute: bool | None
) -> Resize:
    """The extents or the factors, whichever are given, or a refusal naming `op`."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: size = {size!r} and scale_factor = {scale_factor!r}; one of them must be given")
    if recompute and size is not None:
        raise ValueError(f"{op}: recompute_scale_factor = {recompute} with size = {size!r}; there is no factor then")
    name, given = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    values: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(values) != 2:
        raise ValueError(f"{op}: {name} = {given!r}; it must be one number or two, for the two axes of an image")
    (H, W), (a, b) = x.shape[2:], values
    I, J = (a, b) if scale_factor is None else (math.floor(H * a), math.floor(W * b))
    if min(I, J) < 1:
        raise ValueError(
            f"{op}: {name} = {given!r} makes an image of extents {[I, J]} of one of {[H, W]}; they must be at least 1"
        )
    corners = bool(align_corners) if mode == "bilinear" else None
    if scale_factor is None or recompute:
        return Resize((I, J), None, mode, corners)
    return Resize(None, (a, b), mode, corners)
