"""What every public function asks of its tensors: real numbers, one dtype and device, and autocast's precision."""

from typing import Any

import torch
from torch import Tensor


def refuse_complex(op: str, **tensors: Tensor | None) -> None:
    """Raise TypeError for a complex tensor: the derivations here are for real numbers."""
    for name, t in tensors.items():
        if t is not None and t.is_complex():
            raise TypeError(f"{op}: {name} is {t.dtype}; its backward is derived for real numbers only")


def same_kind(op: str, **tensors: Tensor | None) -> None:
    """Raise TypeError for complex tensors, ValueError where dtypes or devices differ."""
    refuse_complex(op, **tensors)
    present = [(name, t) for name, t in tensors.items() if t is not None]
    first, x = present[0]
    for name, t in present[1:]:
        if t.dtype != x.dtype:
            raise ValueError(f"{op}: {first} is {x.dtype} and {name} is {t.dtype}; the dtypes must be equal")
        if t.device != x.device:
            raise ValueError(f"{op}: {first} is on {x.device} and {name} on {t.device}; the devices must be equal")


def low_precision(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast, the tensors in autocast's dtype (matrix products and convolutions); else unchanged."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return _cast(tensors, torch.get_autocast_dtype(device))


def full_precision(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast, the tensors in float32 (losses, and softmax on CUDA); else unchanged."""
    return _cast(tensors, torch.float32) if torch.is_autocast_enabled(tensors[0].device.type) else tensors


def _cast(tensors: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """As autocast does: floating tensors only, and float64 stays float64."""
    return tuple(
        t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype) for t in tensors
    )
