"""In which precision sums are taken."""

from math import isfinite

import torch
from torch import Tensor

from manualbp.kernels.transforms import followed, in_a_dispatch_mode


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to add and to subtract in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def certainly_finite(*either: Tensor) -> bool:
    """Whether the tensors, each of which tells, hold no NaN and no infinity, as far as one may look.

    A product with a matrix that holds zeros, or of sums and differences, spreads them to what does not see them.
    Elsewhere than here a look would cost a wait, and code that is followed must not depend on it.
    """
    if followed() or in_a_dispatch_mode() or not all(type(y) is Tensor and y.is_cpu for y in either):
        return True
    y = min(either, key=Tensor.numel)
    return isfinite(y.sum(dtype=wide(y.dtype)).item())
