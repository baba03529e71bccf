"""Who follows the operations: torch.compile, torch.func, a graph for backward, tangents of forward mode.

Private parts of PyTorch are asked here and nowhere else; tests/kernels/test_transforms.py names the one that went.
"""

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp ...) follows the operations."""
    return torch._C._are_functorch_transforms_active()


def followed() -> bool:
    """Whether torch.compile or torch.func follows the operations: they see no change of an input."""
    return torch.compiler.is_compiling() or transformed()


def forward_mode() -> bool:
    """Whether tangents are carried along. Never inside torch.compile, which has no forward mode for a rule."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def in_place() -> bool:
    """Whether results may be written into parts of a tensor: nothing follows or derives the operations, either way."""
    return not (followed() or torch.is_grad_enabled() or forward_mode())
