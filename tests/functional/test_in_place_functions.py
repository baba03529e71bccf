"""Whatever PyTorch lets one do in place after a function that no layer stands for: as tests/test_in_place.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F
from tests.test_in_place import CLASSES, FOLLOWERS, ROWS, Results, Then, complaint, results, results_by_sample


def seeded(f: Callable[..., Any], *args: Any) -> Any:
    torch.manual_seed(3)
    return f(*args)


PLACE = torch.arange(3)
# Functions that no layer stands for, and what they are in PyTorch.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu_bits": (F.relu_bits, T.relu),
    "leaky_relu, slope 0": (lambda x: F.leaky_relu(x, 0.0), lambda x: T.leaky_relu(x, 0.0)),
    "softmax in float64": (lambda x: F.softmax(x, 1, dtype=torch.float64), lambda x: x.softmax(1)),
    "dropout": (lambda x: seeded(F.dropout, x), lambda x: seeded(T.dropout, x)),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, CLASSES, reduction="none"),
        lambda x: T.cross_entropy(x, CLASSES, reduction="none"),
    ),
    "cross_entropy of shares": (
        lambda x: F.cross_entropy(x, x.detach().softmax(1), reduction="none"),
        lambda x: T.cross_entropy(x, x.detach().softmax(1), reduction="none"),
    ),
    "smooth_l1_loss": (
        lambda x: F.smooth_l1_loss(x, x * 2, reduction="none"),
        lambda x: T.smooth_l1_loss(x, x * 2, reduction="none"),
    ),
    "scatter_kernels": (
        lambda x: F.scatter_kernels(x.view(3, 2, 2), PLACE, PLACE, (3, 3)),
        lambda x: x.new_zeros(3, 3, 2, 2).index_put((PLACE, PLACE), x.view(3, 2, 2)),
    ),
    "gather_kernels": (
        lambda x: F.gather_kernels(x.view(3, 1, 2, 2), PLACE, PLACE * 0),
        lambda x: x.view(3, 1, 2, 2)[PLACE, PLACE * 0],
    ),
    "rotate": (lambda x: F.rotate(x.view(1, 3, 2, 2)), lambda x: x.view(1, 3, 2, 2).flip(2, 3)),
    "max_pool2d": (lambda x: F.max_pool2d(x.view(1, 3, 4), 2), lambda x: T.max_pool2d(x.view(1, 3, 4), 2)),
    "interpolate": (
        lambda x: F.interpolate(x.view(1, 1, 3, 4), scale_factor=2),
        lambda x: T.interpolate(x.view(1, 1, 3, 4), scale_factor=2),
    ),
    "pad by nothing": (lambda x: F.pad(x, (0, 0)), lambda x: T.pad(x, (0, 0))),
}


@pytest.mark.parametrize("run", [results, results_by_sample])
def test_every_function_by_every_follower(run: Callable[..., Results]) -> None:
    complaints = []
    for name, (ours, torchs) in FUNCTIONS.items():
        for follower, follow in FOLLOWERS.items():
            mine, theirs, right = (
                run(Then(f, follow, apart), ROWS, ()) for f, apart in ((ours, False), (torchs, False), (torchs, True))
            )
            if wrong := complaint(mine, theirs, right):
                complaints.append(f"{name}, {follower}: {wrong}")
    assert not complaints, f"{len(complaints)}:\n" + "\n".join(complaints)
