"""What manualbp.kernels.chosen tells is what runs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import manualbp
from manualbp import functional as F
from manualbp.kernels.cpu import build, calls, direct, triple

SHAPES = [  # input, weight, settings
    ((8, 64, 32, 32), (64, 64, 3, 3), {"padding": 1}),
    ((2, 16, 20, 20), (16, 16, 3, 3), {}),
    ((4, 32, 16, 16), (64, 32, 5, 5), {"padding": 2}),
    ((4, 3, 16, 16), (8, 3, 3, 3), {"padding": 1}),
    ((4, 16, 9, 9), (16, 1, 3, 3), {"padding": 1, "groups": 16}),
    ((4, 16, 9, 9), (16, 8, 3, 3), {"padding": 1, "groups": 2}),
    ((2, 8, 9, 9), (8, 8, 1, 1), {"stride": 2}),
]
needed = pytest.mark.skipif(not calls.built(), reason="there are no compiled kernels here")


@needed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("x", "w", "settings"), SHAPES, ids=str)
def test_convolution(x: tuple, w: tuple, settings: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: dict[str, str] = dict.fromkeys(("correlate", "full_convolve", "kernel_gradient"), "torch")
    names = {4: "winograd, 4 x 4", 2: "winograd, 2 x 2"}

    def noting(face: str, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(*args: object) -> Tensor:
            ran[face] = names[args[-1]] if isinstance(args[-1], int) else "direct"
            return f(*args)

        return noted

    for face in ran:
        monkeypatch.setattr(triple, face, noting(face, getattr(triple, face)))
    monkeypatch.setattr(direct, "kernel_gradient", noting("kernel_gradient", direct.kernel_gradient))
    image = torch.randn(x, dtype=dtype, requires_grad=True)
    kernel = torch.randn(w, dtype=dtype, requires_grad=True)
    F.conv2d(image, kernel, **settings).sum().backward()
    told = manualbp.kernels.chosen("conv2d", image, kernel, **settings)
    assert {face: name.split(":")[0] for face, name in told.items()} == ran


@needed
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "batch_norm", "relu"])
def test_others(op: str) -> None:
    assert set(manualbp.kernels.chosen(op, torch.empty(2, 3, 8, 8)).values()) == {"compiled"}


@needed
@pytest.mark.parametrize(
    ("t", "why"),
    [(torch.empty(2, 3, dtype=torch.float64), "exactness"), (torch.empty(2, 3, dtype=torch.int64), "no torch.int64")],
)
def test_why_not(t: Tensor, why: str) -> None:
    assert all(why in name for name in manualbp.kernels.chosen("relu", t).values())


def test_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_found", (None, "no C compiler"))
    assert set(manualbp.kernels.chosen("relu", torch.empty(2, 3)).values()) == {"torch: no C compiler"}


def test_another_op() -> None:
    with pytest.raises(ValueError, match=r"chosen: op = 'conv4d'; it must be one of 'conv1d', "):
        manualbp.kernels.chosen("conv4d", torch.empty(2, 3))
    with pytest.raises(ValueError, match="weight is missing"):
        manualbp.kernels.chosen("conv2d", torch.empty(2, 3, 8, 8))
