"""What a case is, how its inputs are made, and what PyTorch's own function for it is.

A case makes its inputs in float64 from a seed. Tensors that require a gradient are differentiated in the checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F

Make = Callable[[torch.Generator], tuple[Any, ...]]

# PyTorch's function where it is not torch.nn.functional's of the same name; each file of cases adds its own.
ORACLES: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    make: Make
    kwargs: dict[str, Any] = field(default_factory=dict)

    def inputs(self, device: str = "cpu", dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Any, ...]:
        """Fresh leaves, the same ones every time (up to the dtype's rounding)."""
        made = self.make(torch.Generator().manual_seed(seed))
        return tuple(leaf(a, device, dtype) for a in made)

    def settings(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {name: leaf(a, device, dtype) for name, a in self.kwargs.items()}

    def ours(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(F, self.op)(*args, **kwargs)

    def torchs(self, *args: Any, **kwargs: Any) -> Any:
        return ORACLES[self.op](*args, **kwargs) if self.op in ORACLES else getattr(T, self.op)(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.op}: {self.name}"


def leaf(a: Any, device: str, dtype: torch.dtype) -> Any:
    if not isinstance(a, Tensor):
        return a
    moved = a.detach().to(device, dtype if a.is_floating_point() else None)
    return moved.requires_grad_(a.requires_grad)


def normal(*shape: int) -> Make:
    return lambda g: (torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True),)


def distinct(*shape: int) -> Make:
    """A permutation, far from ties: the maximum is differentiable there."""

    def make(g: torch.Generator) -> tuple[Tensor]:
        n = prod(shape)
        return ((torch.randperm(n, generator=g).reshape(shape).double() / 8 - n / 16).requires_grad_(),)

    return make


def together(*makes: Make) -> Make:
    return lambda g: tuple(a for make in makes for a in make(g))


def fixed(*values: Any) -> Make:
    return lambda g: values
