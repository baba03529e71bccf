"""Rules that write y into the place of x.

What PyTorch allows there is allowed here: a graph in which x was computed goes on from y, and what was kept of x before
is found to be changed. A rule that keeps y, or a bit a number, keeps nothing that the next layer does not keep, too.

torch.compile and torch.func see no change of an input by a rule, and a view shares its memory with a larger tensor,
whose graph has to be told. There the rule runs apart, and what it makes is copied into x by PyTorch: PyTorch's copy
also sends zeros to x as it was, which are added to its gradient, so it is not taken elsewhere.
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.rule import ElementwiseRule, Rule, run
from manualbp.kernels.transforms import followed


class InPlace(ElementwiseRule):
    """The rule that stands behind it among the bases, with a `forward` that writes into x and returns it.

    That rule keeps nothing of x: y, or what is made of y.
    """

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_dirty(output)
        super().setup_context(ctx, inputs, output)

    @classmethod
    def tangent(cls, ctx: Any, *tangents: Any) -> Any:
        """The same, in the place of the tangent of x."""
        return tangents[0].copy_(super().tangent(ctx, *tangents))


def write(rule: type[InPlace], apart: type[Rule], x: Tensor, *settings: Any) -> Tensor:
    """`rule`, or where that cannot be `apart`, the same rule out of place, on x and the settings; y is written into x.

    Raises PyTorch's error for a leaf that requires a gradient.
    """
    return copied(apart, x, *settings) if _told(x) else _in_place(rule, x, *settings)


def copied(rule: type[Rule], x: Tensor, *settings: Any) -> Tensor:
    """The rule on x as it was, and its y put into the place of x."""
    return put(x, run(rule, x.clone(), *settings))


def put(x: Tensor, y: Tensor) -> Tensor:
    """y, which is made of x as it was, in the place of x."""
    return x.copy_(y) if _told(x) else _in_place(Put, x, y)


class Put(InPlace):
    """y in the place of x. dL/dy = delta; nothing goes back to x as it was, where PyTorch's copy sends zeros."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x.copy_(y)

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.mark_dirty(output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[None, Tensor]:
        return None, delta


def _told(x: Tensor) -> bool:
    """Whether others than x have to be told of the change, which PyTorch's own operations do."""
    return followed() or x._is_view()


def _in_place(rule: type[InPlace], x: Tensor, *others: Any) -> Tensor:
    if x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    return run(rule, x, *others)
