"""Networks that are fused in tests, and what is compared of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from tests.checks import distance, random_like

EXACT = 1e-12


class Residual(nn.Module):
    """A block of a residual network, with torch.nn's own layers, and the image brought to its size."""

    def __init__(self, maps: int = 4, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.down = (
            nn.Sequential(nn.Conv2d(4, maps, 1, stride, bias=False), nn.BatchNorm2d(maps)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class Functions(nn.Module):
    """Functions and methods instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv, self.pool = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor, shift: Tensor | None = None, twice: bool = False) -> Tensor:
        if shift is not None:
            x = x + shift
        y = self.conv(T.relu(self.bn(x), inplace=True))
        y = self.pool(y.sigmoid())
        y = self.conv2(self.bn2(y).relu())
        y = T.gelu(y, approximate="tanh")
        return y.mean((2, 3)) * (2 if twice else 1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pooling": lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)),
    "norm, relu, convolution": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 2, 3, padding=1, groups=2)
    ),
    "gates": lambda: nn.Sequential(
        *(nn.Conv2d(4, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Hardswish()),
        *(nn.Identity(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, affine=False), nn.GELU("tanh")),
    ),
    "residual": lambda: nn.Sequential(Residual(), Residual(stride=1), Residual(stride=1), nn.AdaptiveAvgPool2d(1)),
    "functions": Functions,
}


def make(name: str, convert: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    if convert:
        manualbp.convert(model)
    return model


X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
every_model = pytest.mark.parametrize("name", MODELS)


def results(model: nn.Module, f: Callable[..., Any] | None = None) -> list[Tensor]:
    """The output, the gradients of the image and of the parameters that require one, and the buffers."""
    x = X.to(next(model.parameters()).dtype).requires_grad_()
    y = (model if f is None else f)(x * 1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(y, [x, *parameters], random_like(y), allow_unused=True, materialize_grads=True)
    return [y.detach(), *gradients, *(b.clone() for b in model.buffers())]


def same(a: list[Tensor], b: list[Tensor], limit: float = 1e-9) -> bool:
    """A gradient that is 0 but for rounding, as that of a bias before batch norm, is measured by the largest of all."""
    floor = max(t.double().norm().item() for t in b)
    return distance(a[0], b[0]) <= min(limit, EXACT) and all(
        (mine.double() - theirs.double()).norm() <= limit * max(theirs.double().norm().item(), 1e-3 * floor)
        for mine, theirs in zip(a, b, strict=True)
    )


def fused(model: nn.Module, places: int | None = None) -> nn.Module:
    report = manualbp.fuse(model)
    assert report.converted
    assert places is None or len(report.converted) == places
    return model
