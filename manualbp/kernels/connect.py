"""Kernels of a connection table to their places in a dense kernel, and back.

Shapes: weight [K, P, Q], index [2, K] of output and input maps, w [O, C, P, Q].
"""

from torch import Tensor


def scatter(weight: Tensor, index: Tensor, O: int, C: int, distinct: bool, channels_last: bool = False) -> Tensor:
    """Each kernel added at its place, zeros elsewhere; where the places are distinct there is nothing to add."""
    P, Q = weight.shape[1:]
    # In the layout of the image, else the convolution would make a copy that is in it.
    w = weight.new_zeros(O, P, Q, C).permute(0, 3, 1, 2) if channels_last else weight.new_zeros(O, C, P, Q)
    return w.index_put_(index.unbind(), weight, accumulate=not distinct)


def gather(w: Tensor, index: Tensor) -> Tensor:
    """The kernels at the places."""
    return w[index.unbind()]
