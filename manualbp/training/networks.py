"""The networks of the lectures, as `train.py` offers them.

Each takes the module that its layers come from (`manualbp.nn`, or `training.torch_layers` for PyTorch's own gradients),
the shape of one image (channels, height, width), the number of classes, and the kind of its activations and poolings
where it is not to be the lecture's. What has no gradient of its own to derive (Sequential, Flatten) comes
from torch.nn.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from math import log, sqrt
from types import ModuleType

import torch
from torch import Tensor

from manualbp.nn import random_connections
from manualbp.training import UserError

ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU"}
POOLINGS = {  # of the first and the second one
    "max": ("MaxPool2d", "MaxPool2d"),
    "avg": ("AvgPool2d", "AvgPool2d"),
    "avg-max": ("AvgPool2d", "MaxPool2d"),
}

# What gives back to the signal what an activation takes from it, about. The slope of a sigmoid is 1/4 at most: with
# torch.nn's default all sigmoids start near 1/2, every image looks the same, and the network stays there for epochs.
GAINS = {"sigmoid": 4.0, "tanh": 5 / 3, "relu": sqrt(2)}

Shape = tuple[int, int, int]


def lecture004(
    layers: ModuleType, shape: Shape, classes: int, activation: str = "sigmoid", pooling: str = "max"
) -> torch.nn.Sequential:
    """The network of lecture 004, eq. 4.1: 2 convolutional, 2 pooling, 2 fully connected, 3 sigmoid layers.

        a1 = pool(f(g1 * x));  a2 = pool(f(g2 * a1));  a3 = f(W1 a2);  z = W2 a3

    `yhat = softmax(z)` and the loss are one layer, CrossEntropyLoss, whose gradient is `yhat - y` (eq. 4.2).

    Shapes: x (n, channels, height, width) float, z (n, classes). Each pooling halves height and width, rounded down.
    Raises: UserError where an image is smaller than 4 x 4, of which two poolings leave nothing.
    """
    channels, height, width = at_least_4x4("lecture004", shape)
    f, (pool1, pool2) = getattr(layers, ACTIVATIONS[activation]), poolings(layers, pooling)
    network = torch.nn.Sequential(
        OrderedDict(
            g1=layers.Conv2d(channels, 32, kernel_size=5, padding=2),
            f1=f(),
            pool1=pool1(2),
            g2=layers.Conv2d(32, 64, kernel_size=5, padding=2),
            f2=f(),
            pool2=pool2(2),
            flatten=torch.nn.Flatten(),
            W1=layers.Linear(64 * (height // 4) * (width // 4), 256),
            f3=f(),
            W2=layers.Linear(256, classes),
        )
    )
    for name in ("g1", "g2", "W1"):
        initialise(network.get_submodule(name), GAINS[activation])
    initialise(network.get_submodule("W2"))
    return network


def block(
    layers: ModuleType, shape: Shape, classes: int, activation: str = "relu", pooling: str = "max"
) -> torch.nn.Sequential:
    """The block of lectures 000 and 002, repeated once: TRUE convolution (eq. 2.1), activation, pooling.

        v1 = w1 * x + b1;  a1 = pool(phi(v1));  v2 = w2 * a1 + b2;  a2 = pool(phi(v2));  z = W a2

    Shapes: as `lecture004`. Raises: UserError where an image is smaller than 4 x 4.
    """
    channels, height, width = at_least_4x4("block", shape)
    phi, (pool1, pool2) = getattr(layers, ACTIVATIONS[activation]), poolings(layers, pooling)
    network = torch.nn.Sequential(
        OrderedDict(
            w1=layers.TrueConv2d(channels, 32, kernel_size=3, padding=1),
            phi1=phi(),
            pool1=pool1(2),
            w2=layers.TrueConv2d(32, 64, kernel_size=3, padding=1),
            phi2=phi(),
            pool2=pool2(2),
            flatten=torch.nn.Flatten(),
            W=layers.Linear(64 * (height // 4) * (width // 4), classes),
        )
    )
    for name in ("w1", "w2"):
        initialise(network.get_submodule(name), GAINS[activation])
    initialise(network.get_submodule("W"))
    return network


def mlp(layers: ModuleType, shape: Shape, classes: int, activation: str = "sigmoid") -> torch.nn.Sequential:
    """The multilayer perceptron of lecture 003, four layers of units: its delta rule is eq. 3.2, 3.3 and 3.4.

        a1 = x;  z2 = W1 a1 + b1;  a2 = f(z2);  z3 = W2 a2 + b2;  a3 = f(z3);  z4 = W3 a3 + b3;  yhat = a4 = f(z4)

    The loss is the squared error of yhat (`SquaredError`, eq. 3.1).

    Shapes: x (n, channels, height, width) float, yhat (n, classes).
    """
    f = getattr(layers, ACTIVATIONS[activation])
    network = torch.nn.Sequential(
        OrderedDict(
            flatten=torch.nn.Flatten(),
            W1=layers.Linear(shape[0] * shape[1] * shape[2], 256),
            f1=f(),
            W2=layers.Linear(256, 64),
            f2=f(),
            W3=layers.Linear(64, classes),
            f3=f(),
        )
    )
    for name in ("W1", "W2"):
        initialise(network.get_submodule(name), GAINS[activation])
    W3 = network.get_submodule("W3")
    initialise(W3)
    if activation == "sigmoid":
        # yhat starts near 1 / classes, its mean: else the first steps go into that, and f ends where it has no slope.
        torch.nn.init.constant_(W3.get_parameter("bias"), -log(classes - 1))
    return network


def caltech(
    layers: ModuleType, shape: Shape, classes: int, activation: str = "sigmoid", pooling: str = "avg"
) -> torch.nn.Sequential:
    """The network of lecture 001, eq. 1.2 (layers as in eq. 1.1), spoken for Caltech-101 and its 101 categories.

        x 1 of 83x83 -> 9x9 convolution, f: 64 of 75x75 -> pooling 10x10, stride 5: 64 of 14x14
          -> 9x9 convolution, each map of a random 16 (eq. 1.3), f: 256 of 6x6 -> pooling 6x6: 256 numbers -> z

    The connection table is drawn from PyTorch's global random generator, as the weights are.

    Shapes: x (n, 1, 83, 83) float, z (n, classes). Raises: UserError for images of another size.
    """
    if shape != (1, 83, 83):
        size = " x ".join(map(str, shape))
        raise UserError(f"--network caltech: images of {size}, it needs 1 x 83 x 83, as --data caltech101 has them")
    f, (pool1, pool2) = getattr(layers, ACTIVATIONS[activation]), poolings(layers, pooling)
    network = torch.nn.Sequential(
        OrderedDict(
            conv1=layers.Conv2d(1, 64, kernel_size=9),
            f1=f(),
            pool1=pool1(10, stride=5),
            conv2=layers.ConnectedConv2d(64, 256, 9, random_connections(64, 256, fan_in=16)),
            f2=f(),
            pool2=pool2(6),
            flatten=torch.nn.Flatten(),
            W=layers.Linear(256, classes),
        )
    )
    normal(network, "W", 256)
    if activation != "sigmoid":
        normal(network, "conv1", 81, GAINS[activation])
        normal(network, "conv2", 16 * 81, GAINS[activation])
    else:
        # About its middle a sigmoid is odd, and the mean over a window loses what rises and falls in it. One that
        # starts far below its middle rectifies, as a ReLU does: biases of -1 and -1/2 standard deviations of v.
        normal(network, "conv1", 81, 6.0, bias=-6.0)
        normal(network, "conv2", 16 * 81, 20.0, bias=-3.0)
        conv2 = network.get_submodule("conv2")
        with torch.no_grad():  # the maps of pool1 are about 0.2 in the mean, and each kernel's share of that goes off
            of_kernel = conv2.get_parameter("weight").sum((1, 2))
            conv2.get_parameter("bias").index_add_(0, conv2.get_buffer("output_map"), of_kernel, alpha=-0.2)
    return network


def airbench94(layers: ModuleType, shape: Shape, classes: int) -> torch.nn.Sequential:
    """A whitening convolution, three groups of 64, 256 and 256 maps, and a linear layer.

        a = gelu(whiten * x + b);  each group: a <- gelu(norm(pool(w1 * a)));  a <- gelu(norm(w2 * a));
        z = W pool(a)

    The whitening kernel is frozen, and so are the factors of the normalisations; `whiten` sets it to the principal
    directions of images. Until then it is the pixels of a patch themselves, and their opposites. Each first kernel of a
    group begins with its input's maps as they are, and W
    with a standard deviation of one by the number of its columns.

    Shapes: as `lecture004`. Raises: UserError where an image is smaller than 25 x 25, of which the poolings leave none.
    Source: K. Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", sec. 3.
    """
    channels, height, width = shape
    if height < 25 or width < 25:
        raise UserError(f"--network airbench94: images of {height} x {width} are too small, it needs 25 x 25 at least")
    directions = torch.eye(4 * channels).view(4 * channels, channels, 2, 2)
    first = layers.Conv2d(channels, 8 * channels, kernel_size=2)
    first.weight = torch.nn.Parameter(torch.cat([directions, -directions]), requires_grad=False)
    parts: list[tuple[str, torch.nn.Module]] = [("whiten", first), ("f0", layers.GELU())]
    widths = (8 * channels, 64, 256, 256)
    for n, (C, O) in enumerate(pairwise(widths), start=1):
        for m in (1, 2):
            conv = layers.Conv2d(C if m == 1 else O, O, kernel_size=3, padding=1, bias=False)
            norm = layers.BatchNorm2d(O, eps=1e-12, momentum=0.4)
            torch.nn.init.dirac_(conv.weight[: conv.in_channels])
            norm.weight.requires_grad_(False)
            pool = [(f"pool{n}", layers.MaxPool2d(2))] if m == 1 else []
            parts += [(f"conv{n}{m}", conv), *pool, (f"norm{n}{m}", norm), (f"f{n}{m}", layers.GELU())]
    left = ((height - 1) // 8 // 3) * ((width - 1) // 8 // 3)
    W = layers.Linear(256 * left, classes, bias=False)
    with torch.no_grad():
        W.weight.div_(W.in_features * W.weight.std())
    parts += [("pool4", layers.MaxPool2d(3)), ("flatten", torch.nn.Flatten()), ("W", W)]
    return torch.nn.Sequential(OrderedDict(parts))


def whiten(conv: torch.nn.Module, x: Tensor, least: float = 5e-4) -> None:
    """Set the convolution's kernel to the principal directions of the patches of x, and to their opposites.

    Of the covariance S = V diag(l) V^T of the patches the kernels are v_i / sqrt(l_i + least), so that the first half
    of the maps of x is uncorrelated, each of variance about 1.
    Shapes: x (n, channels, height, width), normalised images.
    """
    w = conv.get_parameter("weight")
    patches = torch.nn.functional.unfold(x, w.shape[2:]).transpose(1, 2).flatten(0, 1)
    l, V = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (V / (l + least).sqrt()).T.view(-1, *w.shape[1:])
    with torch.no_grad():
        w.copy_(torch.cat([kernels, -kernels]))


def poolings(layers: ModuleType, pooling: str) -> list[type[torch.nn.Module]]:
    return [getattr(layers, name) for name in POOLINGS[pooling]]


def at_least_4x4(network: str, shape: Shape) -> Shape:
    _, height, width = shape
    if height < 4 or width < 4:
        raise UserError(f"--network {network}: images of {height} x {width} are too small, it needs 4 x 4 at least")
    return shape


def initialise(layer: torch.nn.Module, gain: float = 1.0) -> None:
    """Weights by torch.nn.init.xavier_normal_, biases zero."""
    torch.nn.init.xavier_normal_(layer.get_parameter("weight"), gain)
    torch.nn.init.zeros_(layer.get_parameter("bias"))


def normal(network: torch.nn.Module, name: str, fan_in: int, gain: float = 1.0, bias: float = 0.0) -> None:
    """Weights of a layer normal, gain / sqrt(fan_in), biases `bias`."""
    layer = network.get_submodule(name)
    torch.nn.init.normal_(layer.get_parameter("weight"), 0, gain / sqrt(fan_in))
    torch.nn.init.constant_(layer.get_parameter("bias"), bias)


class SquaredError(torch.nn.Module):
    """L = 1/2 sum_i (yhat_i - y_i)^2, y being 1 for the true class and 0 elsewhere; the mean over the images.

    Shapes: yhat (n, classes) float, labels (n,) int64 -> a number. Source: lecture 003, eq. 3.1.
    """

    def __init__(self, layers: ModuleType) -> None:
        super().__init__()
        self.sum = layers.MSELoss(reduction="sum")

    def forward(self, yhat: Tensor, labels: Tensor) -> Tensor:
        y = torch.zeros_like(yhat).scatter_(1, labels.unsqueeze(1), 1)
        return self.sum(yhat, y) / (2 * len(labels))


NETWORKS: dict[str, Callable[..., torch.nn.Sequential]] = {
    "lecture004": lecture004,
    "block": block,
    "mlp": mlp,
    "caltech": caltech,
    "airbench94": airbench94,
}


def loss_of(network: str, layers: ModuleType, label_smoothing: float) -> torch.nn.Module:
    """The squared error of lecture 003 for its perceptron, else the cross-entropy of lectures 001 and 004."""
    return SquaredError(layers) if network == "mlp" else layers.CrossEntropyLoss(label_smoothing=label_smoothing)
