"""Losses number by number, and their slopes."""

import torch
from torch import Tensor

from manualbp.kernels.precision import wide


def smooth_absolute(x: Tensor, t: Tensor, beta: float) -> Tensor:
    """d^2 / (2 beta) for |d| < beta, else |d| - beta / 2, both as (v / beta) (|d| - v / 2) with v = min(|d|, beta)."""
    u = (x.to(wide(x.dtype)) - t).abs()
    v = u.clamp(max=beta)
    return (v / beta * (u - v / 2)).to(x.dtype)


def smooth_slope(delta: Tensor, x: Tensor, t: Tensor, beta: float) -> Tensor:
    """delta d / beta for |d| < beta, else delta sign(d). Cut off before it is divided, so that it cannot overflow."""
    d = x.to(wide(x.dtype)) - t
    return (delta * (d.clamp(-beta, beta) / beta)).to(x.dtype)


def two_classes(x: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """p t log(1 + exp(-x)) + (1 - t) log(1 + exp(x)).

    With log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)): no exponential overflows and no two large numbers cancel.
    b comes first: a sum has the layout of its first term, and PyTorch's loss that of t.
    """
    a, b = p * t, 1 - t
    return (b + a) * (-x.abs()).exp().log1p() + a * torch.relu(-x) + b * torch.relu(x)
