"""What the losses share: how those of the samples become one number."""

import warnings
from math import nan

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
    """The losses of the samples, their sum, or their sum over `count`; in `dtype`.

    A sum of halves is in float32 by itself: cast before, it would hand back a delta that is laid out anew. The mean of
    no losses is no number, and that is added: divided by 0 its second derivatives would be no numbers either.
    """
    if reduction == "none":
        return l.to(dtype)
    if reduction == "sum":
        return l.sum() if l.dtype == dtype else l.sum().to(dtype)  # of integers it is int64
    s = l.sum(dtype=wide(l.dtype))
    return (s / count if isinstance(count, Tensor) or count else s + nan).to(dtype)
