"""What every public function asks of its tensors: dense ones, real numbers, one dtype and device, autocast's precision.

Each public function calls one of these before it looks at a tensor, so that what is none is refused by name.
"""

from typing import Any

import torch
from torch import Tensor, fx

from manualbp.kernels.transforms import autocasts, kind_of

MAY_BE_NONE = frozenset({"weight", "bias", "pos_weight", "running_mean", "running_var", "norm_weight", "norm_bias"})
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
QUANTISED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})


def require_tensors(op: str, **tensors: Any) -> None:
    """Raise TypeError for what is no tensor, and for one that is sparse, nested, quantised or of mkldnn's layout."""
    for name, t in tensors.items():
        if t is not None or name not in MAY_BE_NONE:
            dense_dtype(op, name, t)


def require_real(op: str, **tensors: Any) -> None:
    """`require_tensors`, and TypeError for a complex tensor: the derivations here are for real numbers."""
    for name, t in tensors.items():
        if t is not None or name not in MAY_BE_NONE:
            _real_dtype(op, name, t)


def require_floating(op: str, *also: torch.dtype, **tensors: Tensor) -> None:
    """`require_real`, and TypeError for a tensor of integers, but for those of which PyTorch has the primitive, too."""
    for name, t in tensors.items():
        dtype = _real_dtype(op, name, t)
        if not (dtype.is_floating_point or dtype in also):
            more = f" or of {', '.join(map(str, also))}" if also else ""
            raise TypeError(f"{op}: {name} is {dtype}; it must be of a floating dtype{more}")


def same_kind(op: str, **tensors: Any) -> None:
    """`require_real` of tensors of which `bias` alone may be None; ValueError where dtypes or devices differ."""
    dtype = device = None
    first, *_ = tensors
    for name, t in tensors.items():
        if t is None and name == "bias":
            continue
        own, place = _real_dtype(op, name, t), t.device  # pyright: ignore[reportOptionalMemberAccess]
        if dtype is None:
            dtype, device = own, place
        elif own != dtype:
            raise ValueError(f"{op}: {first} is {dtype} and {name} is {own}; the dtypes must be equal")
        elif place != device:
            raise ValueError(f"{op}: {first} is on {device} and {name} on {place}; the devices must be equal")


def _real_dtype(op: str, name: str, t: Any) -> torch.dtype:
    dtype = dense_dtype(op, name, t)
    if dtype.is_complex:
        raise TypeError(f"{op}: {name} is {dtype}; its backward is derived for real numbers only")
    return dtype


def dense_dtype(op: str, name: str, t: Any) -> torch.dtype:
    """The dtype of a dense tensor."""
    if not isinstance(t, Tensor):
        if isinstance(t, fx.Proxy):
            raise TypeError(
                f"{op}: {name} is a torch.fx.Proxy, which a rule cannot follow; manualbp.restore(model) first (and "
                "before it manualbp.unfuse, if it is fused)"
            )
        what = "None" if t is None else f"a {type(t).__name__}"
        raise TypeError(f"{op}: {name} is {what}; it must be a torch.Tensor")
    dtype, dense = kind_of(t)
    if dense and dtype not in QUANTISED:
        return dtype
    kind = "nested" if t.is_nested else "quantised" if dtype in QUANTISED else f"{t.layout}".removeprefix("torch.")
    raise TypeError(f"{op}: {name} is a {kind} tensor; it must be a dense one, of layout torch.strided")


def low_precision(op: str, **tensors: Any) -> tuple[Any, ...]:
    """The tensors, under autocast in its dtype (matrix products and convolutions); refused as by `same_kind`."""
    given = tuple(tensors.values())
    if isinstance(given[0], Tensor) and autocasts(device := given[0].device.type):
        require_tensors(op, **tensors)
        given = _cast(given, torch.get_autocast_dtype(device))
        tensors = dict(zip(tensors, given, strict=True))
    same_kind(op, **tensors)
    return given


def full_precision(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast, the tensors in float32 (losses, and softmax on CUDA); else unchanged."""
    return _cast(tensors, torch.float32) if autocasts(tensors[0].device.type) else tensors


def _cast(tensors: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """As autocast does: floating tensors only, and float64 stays float64."""
    return tuple(
        t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype) for t in tensors
    )
