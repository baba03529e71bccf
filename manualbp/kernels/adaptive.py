"""Adaptive pooling and its adjoints by PyTorch's forward primitives.

Shapes: x [N, C, H, W]; y, delta and index [N, C, I, J]. Of H pixels window i sees floor(i H / I) to, without it,
ceil((i + 1) H / I).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.geometry import Geometry, Places
from manualbp.kernels.layout import laid_out
from manualbp.kernels.pool import window_spread
from manualbp.kernels.precision import wide
from manualbp.kernels.resize import transposed


@dataclass(frozen=True)
class Windows:
    """As many windows on each axis as asked for. x_size: image (H, W). y_size: windows (I, J).

    last: the image is in channels_last, so its gradient is.
    """

    x_size: tuple[int, int]
    y_size: tuple[int, int]
    last: bool = False

    @property
    def tiles(self) -> Geometry | None:
        """The windows as those of plain pooling where they lie side by side, else None: some overlap."""
        (H, W), (I, J) = self.x_size, self.y_size
        if 0 in (I, J) or H % I or W % J:
            return None
        tile = H // I, W // J
        return Geometry((H, W), tile, tile, (0, 0), (1, 1), last=self.last)

    @property
    def places(self) -> Places:
        """Where the windows' positions point."""
        return Places(self.x_size, self.tiles is not None)


def max_pool(x: Tensor, I: int, J: int) -> tuple[Tensor, Tensor]:
    """The largest value of each window and its position, the first one of equals."""
    y, index = T.adaptive_max_pool2d(x, (I, J), return_indices=True)
    return y, index


def mean(x: Tensor, I: int, J: int) -> Tensor:
    """The mean of each window."""
    return T.adaptive_avg_pool2d(x, (I, J))


def spread(delta: Tensor, windows: Windows) -> Tensor:
    """Each delta, divided by the pixels of its window, added to every one of them: [N, C, H, W]."""
    (H, W), (I, J) = windows.x_size, windows.y_size
    if 0 in (*delta.shape, H, W):
        return delta.new_zeros(*delta.shape[:2], H, W)
    delta = laid_out(delta, windows.last)
    if (I, J) == (1, 1):  # one number for all pixels, in the memory of one
        return (delta / (H * W)).expand(-1, -1, H, W)
    tiles = windows.tiles
    if tiles is not None:
        return window_spread(delta, tiles, True, None)
    return transposed(delta, _shares(delta, H, I), _shares(delta, W, J))


def _shares(like: Tensor, H: int, I: int) -> Tensor:
    """A[i, h] = 1 / (pixels of window i) where window i sees h, else 0."""
    i, h = (torch.arange(n, device=like.device) for n in (I, H))
    start, end = i * H // I, ((i + 1) * H + I - 1) // I
    seen = (start[:, None] <= h) & (h < end[:, None])
    return seen.to(wide(like.dtype)) / (end - start)[:, None]
