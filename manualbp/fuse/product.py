"""An image times a gate: what squeeze and excitation does, and every attention to maps or to pixels.

    y = a g        g has extents of 1 where a gate is one for many numbers

y is linear in a and in g, number by number. g stands in y once for each number of a that it is the factor of, so with
delta = dL/dy

    dL/da = delta g        dL/dg = sum delta a        the sum over the axes on which g has an extent of 1

Shapes: a, y, delta [N, C, ...]; g broadcasts to them. Source: Hu et al. 2018, sec. 3.
"""

from typing import Any

from torch import Tensor

from manualbp.functional.rule import BilinearRule, run


class Product(BilinearRule):
    """y = a g + c; c may be None. dL/da = delta g, dL/dg = sum delta a, dL/dc = delta.

    Kept: g if dL/da is asked for, a if dL/dg is.
    """

    @staticmethod
    def forward(a: Tensor, g: Tensor, c: Tensor | None) -> Tensor:
        return a * g if c is None else a * g + c

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        BilinearRule.setup_context(ctx, inputs, output)
        ctx.shape = inputs[1].shape

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        a, g = ctx.saved_tensors
        a_needed, g_needed, c_needed = ctx.needs_input_grad
        da = run(Product, delta, g, None) if a_needed else None
        dg = (delta * a).sum_to_size(*ctx.shape) if g_needed else None
        return da, dg, delta if c_needed else None
