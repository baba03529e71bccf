"""Kernels of a connection table to their places in a dense kernel, and back.

Shapes: weight [K, P, Q], o and c [K] int64, w [O, C, P, Q].
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Table:
    """Output maps O and input maps C (of one group). distinct: no two kernels have the same place.

    A frozen value, not a tuple: torch.func takes a tuple among a Function's arguments apart.
    """

    O: int
    C: int
    distinct: bool


def scatter(weight: Tensor, o: Tensor, c: Tensor, table: Table, channels_last: bool = False) -> Tensor:
    """w[o[k], c[k]] += weight[k], zeros elsewhere; where the places are distinct there is nothing to add up."""
    (P, Q), O, C = weight.shape[1:], table.O, table.C
    # In the layout of the image, else the convolution would make a copy that is in it.
    w = weight.new_zeros(O, P, Q, C).permute(0, 3, 1, 2) if channels_last else weight.new_zeros(O, C, P, Q)
    return w.index_put_((o, c), weight, accumulate=not table.distinct)


def gather(w: Tensor, o: Tensor, c: Tensor) -> Tensor:
    """weight[k] = w[o[k], c[k]]."""
    return w[o, c]
