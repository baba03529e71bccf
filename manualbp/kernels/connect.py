"""Kernels of a connection table to their places in a dense kernel, and back.

Shapes: weight [K, P, Q], o and c [K] int64, w [O, C, P, Q].
"""

from torch import Tensor


def scatter(
    weight: Tensor, o: Tensor, c: Tensor, O: int, C: int, distinct: bool, channels_last: bool = False
) -> Tensor:
    """w[o[k], c[k]] += weight[k], zeros elsewhere; where the places are distinct there is nothing to add up."""
    P, Q = weight.shape[1:]
    # In the layout of the image, else the convolution would make a copy that is in it.
    w = weight.new_zeros(O, P, Q, C).permute(0, 3, 1, 2) if channels_last else weight.new_zeros(O, C, P, Q)
    return w.index_put_((o, c), weight, accumulate=not distinct)


def gather(w: Tensor, o: Tensor, c: Tensor) -> Tensor:
    """weight[k] = w[o[k], c[k]]."""
    return w[o, c]
