"""Padding and its adjoint by PyTorch's forward primitives."""

from dataclasses import dataclass

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.layout import laid_out
from manualbp.kernels.precision import wide


@dataclass(frozen=True)
class Margins:
    """Margins of an image: `sides` (before, after) from the last axis backwards, as torch.nn.functional.pad has them.

    x_size: the extents of the padded axes, last axis first. mode: constant, reflect, replicate or circular.
    last: the image is in channels_last, so what is folded back to it is.
    """

    sides: tuple[int, ...]
    x_size: tuple[int, ...]
    mode: str
    last: bool = False

    def inward(self) -> "Margins":
        """The margins that take these away again."""
        before, after = self.sides[::2], self.sides[1::2]
        grown = tuple(W + b + a for W, b, a in zip(self.x_size, before, after, strict=True))
        return Margins(tuple(-side for side in self.sides), grown, self.mode)


def pad(x: Tensor, margins: Margins, value: float) -> Tensor:
    """x within its margins."""
    return T.pad(x, margins.sides, margins.mode, value if margins.mode == "constant" else None)


def fold(delta: Tensor, margins: Margins) -> Tensor:
    """Each delta of a margin added to the pixel that the margin repeats.

    Which pixels these are is found by padding their numbers. Half precision is summed in float32.
    """
    dx = laid_out(delta, margins.last).to(wide(delta.dtype))
    for axis, W in enumerate(margins.x_size, start=1):
        numbers = torch.arange(W, dtype=torch.float64, device=delta.device)
        source = T.pad(numbers[None], margins.sides[2 * axis - 2 : 2 * axis], margins.mode)[0].long()
        dx = torch.zeros_like(dx.narrow(-axis, 0, W)).index_add_(-axis, source, dx)
    return dx.to(delta.dtype)
