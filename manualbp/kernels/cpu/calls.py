"""How the C kernels are called: for which tensors, and with what."""

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from manualbp.kernels.cpu.build import library, threads
from manualbp.kernels.transforms import in_a_dispatch_mode, recorded, transformed

# What vector.h calls the dtypes that are stored.
KIND = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
PLAIN = (Tensor, nn.Parameter)
# Fewer numbers are for one thread, as in PyTorch: to wake others takes as long.
FEW = 2**15

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")


@torch.compiler.assume_constant_result
def built() -> bool:
    """Whether there is a library here; it is built when this is asked for the first time."""
    return library() is not None


def serves(*tensors: Tensor | None) -> bool:
    """Whether the compiled kernels may be given these: plain tensors of one dtype on a CPU, which nothing derives.

    torch.compile and modes that see each operation are given the kernels as operators (`seen`); what batches tensors
    (torch.func.vmap) or records operations (torch.export) is given PyTorch's own operations.
    """
    some = [t for t in tensors if t is not None]
    dtype = some[0].dtype
    if dtype not in KIND or torch.is_grad_enabled() or transformed() or recorded():
        return False
    for t in some:
        if type(t) not in PLAIN or t.dtype is not dtype or not t.is_cpu:
            return False
    if torch.compiler.is_compiling():
        return built()
    # Else its numbers are not what its memory holds.
    return not any(t.is_neg() or t._is_zerotensor() for t in some) and built()


def seen() -> bool:
    """Whether somebody looks at each operation, so that a kernel must be an operator of PyTorch's."""
    return torch.compiler.is_compiling() or in_a_dispatch_mode()


def operator(
    name: str, like: Callable[..., Any], changed: tuple[str, ...] = ()
) -> Callable[[Callable[Arguments, Made]], Callable[Arguments, Made]]:
    """What decorates a kernel's function: where each operation is looked at it is PyTorch's operator manualbp::name.

    like: makes room for the results, of the same arguments. changed: the arguments that the function changes. Other
    calls go past PyTorch's dispatcher, which takes longer than some kernels.
    """

    def decorated(f: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
        op = torch.library.custom_op(f"manualbp::{name}", f, mutates_args=changed)
        op.register_fake(like)

        @wraps(f)
        def chosen(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
            return (op if seen() else f)(*args, **kwargs)

        return chosen

    return decorated


def call(name: str, *args: Tensor | int | float | None) -> int:
    """Call a function of the library: tensors by address, None as no address, ints as long, floats as float."""
    f = getattr(library(), name)
    if f.argtypes is None:
        f.argtypes = [ctypes.c_float if isinstance(a, float) else ctypes.c_ssize_t for a in args]
        f.restype = ctypes.c_ssize_t
    return f(*[a.data_ptr() if isinstance(a, Tensor) else 0 if a is None else a for a in args])


def threads_for(x: Tensor) -> int:
    """How many threads a pass over so many numbers takes."""
    return 1 if x.numel() < FEW else threads()


def images_last(like: Tensor, *size: int) -> Tensor:
    """Room for such images in channels_last."""
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
