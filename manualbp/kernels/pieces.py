"""Samples in pieces: several passes over memory while a piece is in the cache."""

import torch
from torch import Tensor

# Numbers of a piece.
PIECE = 2**19


def in_place() -> bool:
    """Whether results may be written into parts of a tensor: nothing compiles, batches or derives the operations."""
    compiling = torch.compiler.is_compiling()
    return not (compiling or torch.is_grad_enabled() or torch._C._are_functorch_transforms_active())


def pieces(x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of the tensors, some of their samples at a time; the tensors as they are, where that pays or goes not.

    It pays on a CPU: elsewhere a few large passes are faster.
    """
    N = x.shape[0] if x.ndim else 1
    step = PIECE * N // (x.numel() or 1) or 1
    if x.device.type != "cpu" or step >= N or not in_place():
        return [(x, *others)]
    return list(zip(*(t.split(step) for t in (x, *others)), strict=True))
