"""What the losses share: how those of the samples become one number."""

import warnings

import torch
from torch import Tensor

from manualbp.kernels.precision import wide


def reduction_of(op: str, reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The name of the reduction; the two older flags still mean what they meant."""
    if size_average is not None or reduce is not None:
        summed = "mean" if size_average in (None, True) else "sum"
        reduction = "none" if reduce is False else summed
        warnings.warn(f"{op}: size_average and reduce are deprecated; use reduction={reduction!r}", stacklevel=3)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{op}: reduction = {reduction!r}; it must be 'none', 'mean' or 'sum'")
    return reduction


def reduced(l: Tensor, reduction: str, count: Tensor | float, dtype: torch.dtype) -> Tensor:
    """The losses of the samples, their sum, or their sum over `count`; in `dtype`."""
    if reduction == "none":
        return l.to(dtype)
    s = l.sum(dtype=wide(l.dtype))
    return (s if reduction == "sum" else s / count).to(dtype)
