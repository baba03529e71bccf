"""The triple of the convolution by the compiled kernels, which take images in channels_last.

Contiguous ones are put in that order and back: the copies take less than what is gained.

For torch.compile and modes that see each operation the three are operators of PyTorch's: manualbp::correlate,
manualbp::full_convolve, manualbp::kernel_gradient. A geometry goes there as the numbers that it is made of.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from manualbp.kernels import conv_primitives as primitives
from manualbp.kernels.cpu import calls, choice, direct, triple
from manualbp.kernels.cpu.calls import images_last, seen
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.layout import laid_out

# A choice takes longer than to remember it; torch.compile does not remember.
_remembered = lru_cache(1024)(choice.of_convolution)
CORRELATE, FULL_CONVOLVE, KERNEL_GRADIENT = "correlate", "full_convolve", "kernel_gradient"


def serves(face: str, g: Geometry, N: int, C: int, O: int, *tensors: Tensor | None) -> bool:
    """Whether the function of this name below may be given the tensors: maps in and out, whatever the face."""
    dtype = tensors[0].dtype  # pyright: ignore[reportOptionalMemberAccess]
    return _chosen(face, dtype, g, N, C, O) != choice.TORCH and calls.serves(*tensors)


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y, where it is served, in channels_last if the geometry says so, else contiguous."""
    return _correlate_seen(x, w, b, *_numbers(g)) if seen() else _correlate(x, w, b, g)


def full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """dx, where it is served, in the same order."""
    return _full_convolve_seen(delta, w, b, *_numbers(g)) if seen() else _full_convolve(delta, w, b, g)


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw, where it is served, in the same order."""
    return _kernel_gradient_seen(x, delta, *_numbers(g)) if seen() else _kernel_gradient(x, delta, g)


def _chosen(face: str, dtype: torch.dtype, g: Geometry, N: int, C: int, O: int) -> str:
    return (choice.of_convolution if seen() else _remembered)(face, dtype, g, N, C, O)


def _correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    kernel, x = _chosen(CORRELATE, x.dtype, g, x.shape[0], x.shape[1], w.shape[0]), laid_out(x, True)
    y = triple.correlate(x, w, b, g, choice.TILE[kernel])
    return _ordered(primitives.correlate(x, w, b, g) if y is None else y, g, made=y is not None)


def _full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    O, C, delta = w.shape[0], w.shape[1] * g.groups, laid_out(delta, True)
    kernel = _chosen(FULL_CONVOLVE, delta.dtype, g, delta.shape[0], C, O)
    dx = triple.full_convolve(delta, w, b, g, choice.TILE[kernel])
    return _ordered(primitives.full_convolve(delta, w, b, g) if dx is None else dx, g, made=dx is not None)


def _kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    kernel = _chosen(KERNEL_GRADIENT, x.dtype, g, x.shape[0], x.shape[1], delta.shape[1])
    images = laid_out(x, True), laid_out(delta, True), g
    if kernel == choice.DIRECT:
        dw = direct.kernel_gradient(*images)
    else:
        dw = triple.kernel_gradient(*images, choice.TILE[kernel])
    return _ordered(primitives.kernel_gradient(x, delta, g) if dw is None else dw, g, made=dw is not None)


def _ordered(y: Tensor, g: Geometry, made: bool) -> Tensor:
    """In the order that the geometry says; what the kernels made is in channels_last already.

    It is no view: after a rule that returns one nothing may work in place.
    """
    return y if made and g.last else _room(y, g.last, *y.shape).copy_(y)


def _room(like: Tensor, last: bool, *size: int) -> Tensor:
    return images_last(like, *size) if last else like.new_empty(size)


def _numbers(g: Geometry) -> tuple[list[int], int, bool]:
    """The extents and steps of a geometry in one list, its groups, and whether its images are in channels_last."""
    return [n for both in (g.x_size, g.w_size, g.stride, g.padding, g.dilation) for n in both], g.groups, g.last


def _geometry(numbers: Sequence[int], groups: int, last: bool) -> Geometry:
    axes = len(numbers) // 5
    parts = [tuple(numbers[k * axes : (k + 1) * axes]) for k in range(5)]
    return Geometry(*parts, groups=groups, last=last)  # pyright: ignore[reportArgumentType]


@torch.library.custom_op("manualbp::correlate", mutates_args=())
def _correlate_seen(x: Tensor, w: Tensor, b: Tensor | None, g: list[int], groups: int, last: bool) -> Tensor:
    return _correlate(x, w, b, _geometry(g, groups, last))


@_correlate_seen.register_fake
def _(x: Tensor, w: Tensor, b: Tensor | None, g: list[int], groups: int, last: bool) -> Tensor:
    return _room(x, last, x.shape[0], w.shape[0], *_geometry(g, groups, last).y_size)


@torch.library.custom_op("manualbp::full_convolve", mutates_args=())
def _full_convolve_seen(delta: Tensor, w: Tensor, b: Tensor | None, g: list[int], groups: int, last: bool) -> Tensor:
    return _full_convolve(delta, w, b, _geometry(g, groups, last))


@_full_convolve_seen.register_fake
def _(delta: Tensor, w: Tensor, b: Tensor | None, g: list[int], groups: int, last: bool) -> Tensor:
    return _room(delta, last, delta.shape[0], w.shape[1] * groups, *_geometry(g, groups, last).x_size)


@torch.library.custom_op("manualbp::kernel_gradient", mutates_args=())
def _kernel_gradient_seen(x: Tensor, delta: Tensor, g: list[int], groups: int, last: bool) -> Tensor:
    return _kernel_gradient(x, delta, _geometry(g, groups, last))


@_kernel_gradient_seen.register_fake
def _(x: Tensor, delta: Tensor, g: list[int], groups: int, last: bool) -> Tensor:
    return _room(x, last, delta.shape[1], x.shape[1] // groups, *_geometry(g, groups, last).w_size)
