"""The networks that `train.py` offers.

Each takes the module that its layers come from (`manualbp.nn` or `torch.nn`), the shape of one image
(channels, height, width) and the number of classes, and returns scores before the softmax, which is in the loss.
What has no gradient of its own to derive (Sequential, Flatten) comes from torch.nn in either case.
"""

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType

import torch

from manualbp.training import UserError


def lecture004(layers: ModuleType, shape: tuple[int, int, int], classes: int) -> torch.nn.Sequential:
    """The network of lecture 004, eq. 4.1: 2 convolutional, 2 pooling, 2 fully connected, 3 sigmoid layers.

        a1 = pool(f(g1 * x));  a2 = pool(f(g2 * a1));  a3 = f(W1 a2);  z = W2 a3

    `yhat = softmax(z)` and the loss are one layer, CrossEntropyLoss, whose gradient is `yhat - y` (eq. 4.2).

    Shapes: x (n, channels, height, width) float, z (n, classes). Each pooling halves height and width, rounded down.
    Raises: UserError where an image is smaller than 4 x 4, of which two poolings leave nothing.
    """
    channels, height, width = shape
    if height < 4 or width < 4:
        raise UserError(f"--network lecture004: images of {height} x {width} are too small, it needs 4 x 4 at least")
    network = torch.nn.Sequential(
        OrderedDict(
            g1=layers.Conv2d(channels, 32, kernel_size=5, padding=2),
            f1=layers.Sigmoid(),
            pool1=layers.MaxPool2d(2),
            g2=layers.Conv2d(32, 64, kernel_size=5, padding=2),
            f2=layers.Sigmoid(),
            pool2=layers.MaxPool2d(2),
            flatten=torch.nn.Flatten(),
            W1=layers.Linear(64 * (height // 4) * (width // 4), 256),
            f3=layers.Sigmoid(),
            W2=layers.Linear(256, classes),
        )
    )
    # The slope of a sigmoid is 1/4 at most: a gain of 4 gives the signal back what each one takes. With torch.nn's
    # default all sigmoids start near 1/2, every image looks the same, and the network stays there for epochs.
    for name, gain in (("g1", 4.0), ("g2", 4.0), ("W1", 4.0), ("W2", 1.0)):
        layer = network.get_submodule(name)
        torch.nn.init.xavier_normal_(layer.get_parameter("weight"), gain)
        torch.nn.init.zeros_(layer.get_parameter("bias"))
    return network


NETWORKS: dict[str, Callable[[ModuleType, tuple[int, int, int], int], torch.nn.Sequential]] = {
    "lecture004": lecture004,
}
