"""What saves reading in the tests of the lectures."""

from typing import Any

import torch

from manualbp.kernels.geometry import Geometry
from tests.checks import EXACT, distance


def close(a: Any, b: Any) -> bool:
    """Tensors or nested lists of one shape, equal to 1e-12."""
    return distance(torch.as_tensor(a).detach(), torch.as_tensor(b).detach()) <= EXACT


def sliding(x_size: tuple[int, int], w_size: tuple[int, int]) -> Geometry:
    """A kernel that moves pixel by pixel and stays inside of the image, as on the slides."""
    return Geometry(x_size, w_size, stride=(1, 1), padding=(0, 0), dilation=(1, 1))
