"""In which precision sums are taken."""

import torch


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to add and to subtract in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
