"""What one sample of the bench is, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Inputs = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Sample:
    """A function with a backward pass by hand; `cause` names its one mistake, and None says that it is right.

    `kind` is its number among the 25 that people make most often.
    """

    name: str
    f: Callable[..., Any]
    inputs: Inputs
    cause: str | None = None
    kind: int | None = None


def rule(forward: Callable[..., Any], backward: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """The two as an autograd.Function of tensors only: the settings are closed over, for both."""

    class Rule(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Any:
            return forward(ctx, *inputs, **settings)

        @staticmethod
        def backward(ctx: Any, *deltas: Tensor) -> Any:
            return backward(ctx, *deltas, **settings)

    return Rule.apply


def normal(*shapes: tuple[int, ...], times: float = 1.0, plus: float = 0.0) -> Inputs:
    """Normal numbers, float64, the same at every call."""

    def inputs() -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(0)
        return tuple(
            (torch.randn(shape, generator=g, dtype=torch.float64) * times + plus).requires_grad_() for shape in shapes
        )

    return inputs


def positive(*shapes: tuple[int, ...]) -> Inputs:
    """Numbers from 0.5 on."""
    return lambda: tuple((x.detach().abs() + 0.5).requires_grad_() for x in normal(*shapes)())


def given(*values: Any) -> Inputs:
    """These very numbers: a nested list or a tensor for each input."""

    def inputs() -> tuple[Tensor, ...]:
        return tuple(torch.as_tensor(v, dtype=torch.float64).clone().requires_grad_() for v in values)

    return inputs
