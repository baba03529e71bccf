"""The networks that are measured, of torch.nn's layers: two of the lectures', and two that are known from elsewhere.

`airbench94` is written from its description (Keller Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU",
sec. 3), `resnet18` is torchvision's with a 3 x 3 stem (He et al. 2016, sec. 4.2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from manualbp.training import networks, torch_layers


@dataclass(frozen=True)
class Network:
    """`build(side)` makes it for images of `channels` x side x side.

    side, batch: what is measured where nothing else is asked for; sides: those of the scaling, none if it has one only.
    """

    build: Callable[[int], nn.Module]
    channels: int
    side: int
    classes: int
    batch: int
    sides: tuple[int, ...] = ()


def lecture004(side: int) -> nn.Module:
    return networks.lecture004(nn, (3, side, side), 10)


def caltech(side: int) -> nn.Module:
    return networks.caltech(torch_layers, (1, side, side), 101)


def resnet18(side: int) -> nn.Module:
    from torchvision import models

    from manualbp.training.vision import small_stem

    network = models.resnet18(weights=None, num_classes=10)
    small_stem(network)
    return network


def airbench94(side: int = 32) -> nn.Module:
    """A whitening convolution, three groups of 64, 256 and 256 maps, a linear layer: 1,972,792 numbers.

    The whitening kernel is frozen: the 12 principal directions of patches of 3 x 2 x 2 and their opposites. Of the
    noise that is measured on here, any orthonormal basis is one; it is the pixels themselves.
    """
    whitening = nn.Conv2d(3, 24, 2)
    directions = torch.eye(12).view(12, 3, 2, 2)
    with torch.no_grad():
        whitening.weight.copy_(torch.cat([directions, -directions]))
    whitening.weight.requires_grad_(False)
    widths = (24, 64, 256, 256)
    groups = [_group(C, O) for C, O in pairwise(widths)]
    ends = nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False), Scale(1 / 9)
    return nn.Sequential(whitening, nn.GELU(), *groups, *ends)


def _group(C: int, O: int) -> nn.Module:
    first = _conv(C, O), nn.MaxPool2d(2), _norm(O), nn.GELU()
    return nn.Sequential(*first, _conv(O, O), _norm(O), nn.GELU())


def _conv(C: int, O: int) -> nn.Module:
    """Its first C maps begin as those of the input."""
    conv = nn.Conv2d(C, O, 3, padding="same", bias=False)
    nn.init.dirac_(conv.weight[:C])
    return conv


def _norm(O: int) -> nn.Module:
    norm = nn.BatchNorm2d(O, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


NETWORKS = {
    "lecture004": Network(lecture004, 3, 32, 10, batch=128, sides=(16, 32, 48, 64, 96)),
    "caltech": Network(caltech, 1, 83, 101, batch=32),
    "resnet18": Network(resnet18, 3, 32, 10, batch=128, sides=(16, 32, 48, 64)),
    "airbench94": Network(airbench94, 3, 32, 10, batch=128),
}
