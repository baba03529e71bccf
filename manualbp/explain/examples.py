"""The numbers of the examples: small ones, so that a sum can be done in the head; and the gallery, a page a subject."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import log, prod
from typing import Any

import torch
from torch import Tensor, nn

from manualbp.explain.network import page_of
from manualbp.nn import TrueConv2d

CONV = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "channels": (1, 1)}
POOL = {"stride": None, "padding": (0, 0), "channels": (1,), "batch": 1}
# What each kind takes, and what it is where it is not given.
OPTIONS: dict[str, dict[str, Any]] = {
    "conv2d": {"image": (3, 3), **CONV, "batch": 1},
    "true_conv2d": {"image": (3, 3), **CONV, "batch": 1},
    "max_pool2d": {"image": (4, 4), "kernel": (2, 2), **POOL, "dilation": (1, 1)},
    "avg_pool2d": {"image": (3, 3), "kernel": (3, 3), **POOL},
    "sigmoid": {"image": (3, 3), "channels": (1,), "batch": 1},
    "relu": {"image": (3, 3), "channels": (1,), "batch": 1},
    "linear": {"channels": (3, 2), "batch": 1},
    "cross_entropy": {"channels": (5,), "batch": 1},
    "batch_norm": {"image": (2, 2), "channels": (1,), "batch": 2},
    "block": {"image": (5, 5), **CONV, "batch": 1},
    "network": {"image": (4, 4), "kernel": (3, 3), "channels": (1, 3), "batch": 1},
}
SEVERAL = ("true_conv2d", "conv2d", "linear", "block", "network")  # have as many outputs as they are asked for

NUMBERS: dict[str, Sequence[float]] = {
    "x": (1, 2, 0, 3, 1, 4, 2),
    "w": (1, -1, 2, 0.5),
    "b": (1, -1, 0.5),
    "delta": (1, 2, -1, 0.5),
    "x of max_pool2d": (1, 3, 3, 0, 2, 1, 1, 2, 0),  # 3 x 3 under 2 x 2: ties, and windows that share their maximum
    "x of sigmoid": (-2, -1, -0.5, 0, 0.5, 1, 2, 3, -3),
    "x of relu": (-2, -1, -0.5, 0, 0.5, 1, 2, 3, -3),
    "x of cross_entropy": [log(yhat) for yhat in (0.5, 0.1, 0.1, 0.2, 0.1)],
    "x of batch_norm": (2, 6, 6, 2),  # mean 4, variance 4
    **dict.fromkeys(["w of block", "w of network"], (0.5, -0.25, -0.25, 0.25, -0.25)),  # no sigmoid is flat
    **dict.fromkeys(["b of block", "b of network"], (0.25, -0.25, 0)),
    "b of batch_norm": (0.5, 1, -1),
    "delta of avg_pool2d": (0.5, 1, -1, 2),
}


def small(kind: str) -> Callable[[str, Sequence[int]], Tensor]:
    """Draws the numbers above in turn."""

    def draw(role: str, shape: Sequence[int]) -> Tensor:
        numbers = NUMBERS.get(f"{role} of {kind}", NUMBERS[role])
        return torch.tensor([numbers[k % len(numbers)] for k in range(prod(shape))], dtype=torch.float64).view(*shape)

    return draw


def random(seed: int) -> Callable[[str, Sequence[int]], Tensor]:
    """Draws normal numbers, rounded to tenths."""
    numbers = torch.Generator().manual_seed(seed)
    return lambda _, shape: torch.randn(*shape, generator=numbers, dtype=torch.float64).mul(10).round().div(10)


def example(
    kind: str,
    draw: Callable[[str, Sequence[int]], Tensor] | None = None,
    picture: Callable[[Sequence[int]], Tensor] | None = None,
    symbols: bool = False,
    *,
    id: str = "",
    title: str = "",
    note: str = "",
    **options: Any,
) -> dict[str, Any]:
    """The page of a kind with these options; `picture` makes its input, where it is given, and `draw` all else."""
    o, draw = OPTIONS[kind] | options, draw or small(kind)
    with torch.random.fork_rng():
        model = _model(kind, o).double()
    N, C = o["batch"], o["channels"][0]
    shape = (N, C, *o["image"]) if "image" in o else (N, C)
    x = picture(shape) if picture else draw("x", shape)
    for name, p in model.named_parameters():
        p.data = draw("w" if name.endswith("weight") else "b", p.shape)
    target = torch.arange(N) % o["channels"][-1] if kind in ("cross_entropy", "network") else None
    head = {"id": id or kind, "kind": kind, "title": title or _title(kind, o), "note": note}
    return page_of(model, x, lambda shape: draw("delta", shape), target, symbols, None, **head)


def _model(kind: str, o: dict[str, Any]) -> nn.Module:
    C, O = o["channels"][0], o["channels"][-1]
    if kind in ("conv2d", "true_conv2d", "block"):
        bias = kind != "true_conv2d"  # eq. 2.2 has none
        conv = TrueConv2d if kind == "true_conv2d" else nn.Conv2d
        layer = conv(C, O, o["kernel"], o["stride"], o["padding"], o["dilation"], o["groups"], bias)
        return (
            nn.Sequential(OrderedDict(conv=layer, f=nn.Sigmoid(), pool=nn.MaxPool2d(2))) if kind == "block" else layer
        )
    if kind == "max_pool2d":
        return nn.MaxPool2d(o["kernel"], o["stride"], o["padding"], o["dilation"])
    if kind == "avg_pool2d":
        return nn.AvgPool2d(o["kernel"], o["stride"], o["padding"], o.get("ceil_mode", False))
    if kind == "network":
        return _network(C, O, o["image"], o["kernel"])
    return {
        "sigmoid": nn.Sigmoid,
        "relu": nn.ReLU,
        "linear": lambda: nn.Linear(C, O),
        "cross_entropy": nn.CrossEntropyLoss,
        "batch_norm": lambda: nn.BatchNorm2d(C),
    }[kind]()


def _network(C: int, classes: int, image: Sequence[int], kernel: tuple[int, int]) -> nn.Module:
    """Lecture 004, eq. 4.1, as training.networks.lecture004 makes it, with two maps and two hidden units."""
    margin = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    pixels = image
    for _ in range(2):
        pixels = [(n + 2 * pad - k + 1) // 2 for n, pad, k in zip(pixels, margin, kernel, strict=True)]
    if min(pixels) < 1:
        raise ValueError(f"network: two poolings leave nothing of an image of {[*image]} under kernels of {[*kernel]}")
    layers: dict[str, nn.Module] = {
        **{"g1": nn.Conv2d(C, 2, kernel, padding=margin), "f1": nn.Sigmoid(), "pool1": nn.MaxPool2d(2)},
        **{"g2": nn.Conv2d(2, 2, kernel, padding=margin), "f2": nn.Sigmoid(), "pool2": nn.MaxPool2d(2)},
        **{"flatten": nn.Flatten(), "W1": nn.Linear(2 * prod(pixels), 2), "f3": nn.Sigmoid()},
        **{"W2": nn.Linear(2, classes), "loss": nn.CrossEntropyLoss()},
    }
    return nn.Sequential(OrderedDict(layers))


def _title(kind: str, o: dict[str, Any]) -> str:
    parts = [f"{' x '.join(map(str, o[name]))} {name}" for name in ("image", "kernel") if name in o]
    parts += [f"{name} {' x '.join(map(str, o[name]))}" for name in ("channels",) if max(o[name]) > 1]
    return ", ".join([f"{kind}: {parts[0]}", *parts[1:]])


ERRATUM_002 = (
    "Lecture 002, eq. 2.2 and its table of dE/dx, in symbols. Erratum: the slide prints the cell of x23 as "
    "d12 w21 + d12 w22; step to it (row 2, column 3 of dx) and it is d12 w11 + d22 w21."
)
ERRATUM_004 = (
    "Lecture 004, eq. 4.3: yhat = [.5 0 .1 .2 .1], class 1, dL/dz = [-.5 0 .1 .2 .1]. Erratum: that yhat sums to 0.9, "
    "and no softmax holds a 0; here the missing tenth stands in the place of the 0."
)
EXAMPLES: dict[str, dict[str, Any]] = {
    "true_conv2d": {"title": "true_conv2d: the table of lecture 002", "symbols": True, "note": ERRATUM_002},
    "conv2d": {"title": "conv2d: 3 x 3 image, 2 x 2 kernel"},
    "conv2d-stride": {
        "title": "conv2d: stride 2, padding 1",
        **{"image": (5, 5), "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)},
    },
    "conv2d-channels": {"title": "conv2d: two channels to two", "channels": (2, 2)},
    "conv2d-same": {
        "title": 'conv2d: padding "same", an even kernel',
        "padding": "same",
        "note": "An even kernel needs an odd number of zeros: the odd one is added below and on the right.",
    },
    "max_pool2d": {
        "title": "max_pool2d: ties, and windows that overlap",
        **{"image": (3, 3), "stride": (1, 1)},
    },
    "avg_pool2d": {
        "title": "avg_pool2d: 0.5 over 3 x 3",
        "note": "Lecture 001, eq. 1.7: the gradient 0.5 over 3 x 3 is 0.5/9 for each pixel.",
    },
    "avg_pool2d-overhang": {
        "title": "avg_pool2d: windows that overhang",
        **{"image": (3, 3), "kernel": (2, 2), "stride": (2, 2), "ceil_mode": True},
        "note": "ceil_mode=True: the last windows leave the image, and are divided by the pixels that they have.",
    },
    "sigmoid": {},
    "relu": {},
    "linear": {"title": "linear: 3 inputs, 2 outputs"},
    "cross_entropy": {"title": "softmax and cross-entropy: five classes", "note": ERRATUM_004},
    "cross_entropy-batch": {"title": "cross-entropy: the mean of two samples", "channels": (3,), "batch": 2},
    "batch_norm": {"title": "batch_norm: three ways back"},
    "block": {"title": "block: convolution, sigmoid, pooling"},
    "network": {"title": "network: lecture 004's, eq. 4.1, small"},
}


def gallery_page(id: str) -> dict[str, Any]:
    kind, settings = id.partition("-")[0], EXAMPLES[id]
    return example(kind, id=id, **settings)
