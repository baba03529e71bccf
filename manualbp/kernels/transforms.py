"""Who follows the operations: torch.compile, torch.func, a graph for backward, tangents of forward mode.

Private parts of PyTorch are asked here and nowhere else; tests/kernels/test_transforms.py names the one that went.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp ...) follows the operations."""
    return torch._C._are_functorch_transforms_active()


def followed() -> bool:
    """Whether torch.compile or torch.func follows the operations: they see no change of an input."""
    return torch.compiler.is_compiling() or transformed()


def recorded() -> bool:
    """Whether torch.export or torch.jit.trace records the operations, to run them elsewhere."""
    return torch.compiler.is_exporting() if torch.compiler.is_compiling() else jit_traced()


def jit_traced() -> bool:
    """Whether torch.jit.trace does, alone or for the older one of ONNX's exporters."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def forward_mode() -> bool:
    """Whether tangents are carried along. Never inside torch.compile, which has no forward mode for a rule."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def in_place() -> bool:
    """Whether results may be written into parts of a tensor: nothing follows or derives the operations, either way."""
    return not (followed() or torch.is_grad_enabled() or forward_mode())


def in_a_mode() -> bool:
    """Whether a TorchFunctionMode answers the functions of torch, as `by_hand()` is one."""
    return not torch.compiler.is_compiling() and torch._C._len_torch_function_stack() > 0


def in_a_dispatch_mode() -> bool:
    """Whether a TorchDispatchMode sees each operation, as make_fx and FakeTensorMode do: no number may be looked at."""
    return torch._C._len_torch_dispatch_stack() > 0


def no_mode() -> Any:
    """A context in which none does."""
    return torch._C.DisableTorchFunction()


def checkpoint_frame() -> Any:
    """What the innermost checkpoint that is not reentrant computes again from, its `recompute_fn`; None for none."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    pack = hooks and hooks[0]
    if not getattr(pack, "_checkpoint_internal", False):
        return None
    cells = dict(zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True))
    return cells["frame"].cell_contents if "frame" in cells else None  # it has none while it computes again


def batched_by_the_older_vmap(t: Any) -> bool:
    """Whether t is the batch of deltas that `torch.autograd.grad` makes for is_grads_batched=True."""
    return isinstance(t, Tensor) and torch._C._functorch.is_legacy_batchedtensor(t)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def outside_of_the_older_vmap() -> Iterator[int]:
    """Its innermost level, which is left meanwhile."""
    level = torch._C._vmapmode_decrement_nesting() + 1
    try:
        yield level
    finally:
        torch._C._vmapmode_increment_nesting()


def each_of(t: Tensor, level: int) -> Tensor:
    """The batch that the older vmap holds at this level, as a first axis."""
    return torch._remove_batch_dim(t, level, -1, 0)  # pyright: ignore[reportPrivateImportUsage]


def batch_of(ts: list[Tensor], level: int) -> Tensor:
    """The same again."""
    return torch._add_batch_dim(torch.stack(ts), 0, level)  # pyright: ignore[reportPrivateImportUsage]


def autocasts(device: str) -> bool:
    """Whether autocast is on for this kind of device. PyTorch raises where a kind has none, as meta."""
    has_one = device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)
    return has_one and torch.is_autocast_enabled(device)


def kind_of(t: Tensor) -> tuple[torch.dtype, bool]:
    """(dtype, whether its numbers lie side by side in memory: neither sparse nor nested).

    Inside a TorchFunctionMode, as `by_hand()` is one, each property is a call of it, which costs a microsecond: there
    it is switched off meanwhile. torch.compile lets no backward pass ask for a layout, so there it counts as dense.
    """
    if torch.compiler.is_compiling():
        return t.dtype, not t.is_nested
    if in_a_mode():
        with no_mode():
            return t.dtype, t.layout is torch.strided and not t.is_nested
    return t.dtype, t.layout is torch.strided and not t.is_nested
