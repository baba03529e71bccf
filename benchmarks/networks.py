"""The networks that are measured, of torch.nn's layers: two of the lectures', and two that are known from elsewhere.

`resnet18` is torchvision's with a 3 x 3 stem (He et al. 2016, sec. 4.2).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

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
    """Its whitening kernel is the pixels of a patch: of the noise that is measured on, any orthonormal basis is one."""
    return networks.airbench94(torch_layers, (3, side, side), 10)


NETWORKS = {
    "lecture004": Network(lecture004, 3, 32, 10, batch=128, sides=(16, 32, 48, 64, 96)),
    "caltech": Network(caltech, 1, 83, 101, batch=32),
    "resnet18": Network(resnet18, 3, 32, 10, batch=128, sides=(16, 32, 48, 64)),
    "airbench94": Network(airbench94, 3, 32, 10, batch=128),
}
