"""Kernels of a connection table to their places in a dense kernel, and back.

Shapes: weight [K, P, Q], index [K] of places o C + c, w [O, C, P, Q].
"""

from torch import Tensor


def scatter(weight: Tensor, index: Tensor, O: int, C: int) -> Tensor:
    """Each kernel added at its place, zeros elsewhere."""
    w = weight.new_zeros(O * C, *weight.shape[1:]).index_add_(0, index, weight)
    return w.view(O, C, *weight.shape[1:])


def gather(w: Tensor, index: Tensor) -> Tensor:
    """The kernels at the places."""
    if w.is_contiguous():
        return w.flatten(0, 1).index_select(0, index)
    C = w.shape[1]  # without a copy of the whole
    return w[index // C, index % C]
