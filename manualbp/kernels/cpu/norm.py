"""Batch norm and an activation behind it, by norm.c, which has the formulas.

x and what has its shape [N, C, ...] lie in memory without a gap, in either order: maps one behind the other, or the
maps of a pixel (channels_last), and the results lie as x does. float32 and, as numbers that are stored, bfloat16 and
float16; what belongs to maps, C numbers, is float32.
"""

from functools import cache
from math import prod

import torch
from torch import Tensor

from manualbp.kernels.cpu import calls
from manualbp.kernels.cpu.build import scratch
from manualbp.kernels.cpu.calls import KIND, call, operator, threads_for
from manualbp.kernels.layout import CHANNELS_LAST

# What activation.h calls the activations that it has.
PHI = {name: k for k, name in enumerate(["", "relu", "sigmoid", "tanh", "silu", "gelu_tanh", "gelu"])}


def serves(x: Tensor, *of_maps: Tensor | None, delta: Tensor | None = None) -> bool:
    """Whether the functions below may be given these."""
    if not calls.serves(x, delta) or x.ndim < 2 or x.numel() == 0:
        return False
    some = [t for t in of_maps if t is not None]
    if some and (some[0].dtype != torch.float32 or not calls.serves(*some)):
        return False
    return x.is_contiguous() or (x.ndim in CHANNELS_LAST and x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim]))


@operator("norm_affine", lambda x, s, t, phi="": torch.empty_like(x))
def affine(x: Tensor, s: Tensor, t: Tensor | None, phi: str = "") -> Tensor:
    """phi(s x + t), map by map."""
    line, y = _together(s, t), torch.empty_like(x)
    call("norm_affine", KIND[x.dtype], PHI[phi], x, *_sizes(x), *line, y, *_memory(x))
    return y


@operator("norm_forward", lambda x, *others: _forward_like(x), changed=("mean", "var"))
def forward(
    x: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    momentum: float,
    eps: float,
    phi: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mu, r) with y = phi((x - mu) r w + b); mean and var: running, updated in place."""
    of_maps, (y, mu, r) = (*_together(w, b), mean, var), _forward_like(x)
    how = float(eps), float(momentum)
    call("norm_forward", KIND[x.dtype], PHI[phi], x, *_sizes(x), *how, *of_maps, y, mu, r, *_memory(x))
    return y, mu, r


@operator("norm_backward", lambda delta, x, w, b, mu, r, by_mu, by_r, x_needed, phi="": _backward_like(x, x_needed))
def backward(
    delta: Tensor,
    x: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    mu: Tensor,
    r: Tensor,
    by_mu: Tensor | None,
    by_r: Tensor | None,
    x_needed: bool,
    phi: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dw, db), by dL/dmu and dL/dr as well; dx is empty where it is not needed."""
    of_maps = _together(w, b, mu, r, by_mu, by_r)
    delta = delta.contiguous() if x.is_contiguous() else delta.contiguous(memory_format=CHANNELS_LAST[x.ndim])
    dx, dw, db = _backward_like(x, x_needed)
    into = dx if x_needed else None
    call("norm_backward", KIND[x.dtype], PHI[phi], x, delta, *_sizes(x), *of_maps, into, dw, db, *_memory(x))
    return dx, dw, db


def _forward_like(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _a_map_each(x), _a_map_each(x)


def _backward_like(x: Tensor, x_needed: bool) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x) if x_needed else x.new_empty(0), _a_map_each(x), _a_map_each(x)


def _a_map_each(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


def _together(*of_maps: Tensor | None) -> list[Tensor | None]:
    """Without gaps in memory."""
    return [None if t is None else t.contiguous() for t in of_maps]


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """K, C, P: P numbers of each of C maps lie side by side, K times."""
    N, C, P = x.shape[0], x.shape[1], prod(x.shape[2:])
    return (N, C, P) if x.is_contiguous() else (N * P, C, 1)


def _memory(x: Tensor) -> tuple[int, int]:
    """Scratch memory, and for how many threads."""
    _, C, P = _sizes(x)
    count = threads_for(x)
    return scratch(_bytes(C, P, count)), count


@cache
def _bytes(C: int, P: int, count: int) -> int:
    return call("norm_memory", C, P, count)
