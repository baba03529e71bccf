"""The convolutions, the triple, connection tables and the fully connected layer."""

from typing import Any

import torch
import torch.nn.functional as T
from torch.nn.grad import conv2d_input, conv2d_weight

from tests.cases.make import ORACLES, Case, fixed, normal, together

# What torch.nn.functional lacks, by PyTorch's own derivatives (of which none is used in the package).
ORACLES |= {
    "correlate": lambda x, w, *a: T.conv2d(x, w, None, *a),
    "full_convolve": lambda delta, w, size, s=1, p=0, d=1, g=1: conv2d_input(
        (delta.shape[0], w.shape[1] * g, *size), w, delta, s, p, d, g
    ),
    "kernel_gradient": lambda x, delta, size, s=1, p=0, d=1, g=1: conv2d_weight(
        x, (delta.shape[1], x.shape[1] // g, *size), delta, s, p, d, g
    ),
    "rotate": lambda w: w.flip(-2, -1),
    "convolve": lambda x, w, b, **settings: T.conv2d(x, w.flip(-2, -1), b, **settings),
    "scatter_kernels": lambda weight, o, c, maps: (
        weight.new_zeros(maps[0] * maps[1], *weight.shape[1:])
        .index_add(0, o % maps[0] * maps[1] + c % maps[1], weight)
        .unflatten(0, maps)
    ),
    "gather_kernels": lambda w, o, c: torch.stack([w[o, c] for o, c in zip(o.tolist(), c.tolist(), strict=True)]),
}
ORACLES["connected_conv2d"] = lambda x, weight, o, c, maps, b=None, **settings: T.conv2d(
    x, ORACLES["scatter_kernels"](weight, o, c, maps), b, **settings
)


def conv(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **kwargs: Any) -> Case:
    b = normal(w[0]) if bias else fixed(None)
    return Case("conv2d", name, together(normal(*x), normal(*w), b), kwargs)


def of_axes(op: str, name: str, x: tuple[int, ...], w: tuple[int, ...], maps: int, **kwargs: Any) -> Case:
    """A convolution with `maps` biases, none for 0, or its transpose."""
    b = normal(maps) if maps else fixed(None)
    return Case(op, name, together(normal(*x), normal(*w), b), kwargs)


def triple(name: str, x: tuple[int, ...], w: tuple[int, ...], *steps: Any) -> list[Case]:
    """The three faces of one convolution."""
    y = T.conv2d(torch.empty(x), torch.empty(w), None, *steps).shape
    return [
        Case("correlate", name, together(normal(*x), normal(*w), fixed(*steps))),
        Case("full_convolve", name, together(normal(*y), normal(*w), fixed(x[2:], *steps))),
        Case("kernel_gradient", name, together(normal(*x), normal(*y), fixed(w[2:], *steps))),
    ]


CONV2D = [
    conv("plain", (2, 3, 6, 5), (4, 3, 3, 3)),
    conv("no bias", (2, 3, 6, 5), (4, 3, 3, 3), bias=False),
    conv("non-square image and kernel", (2, 2, 7, 4), (3, 2, 2, 3)),
    conv("1x1", (2, 3, 4, 5), (4, 3, 1, 1)),
    conv("1x1, stride 2", (2, 3, 5, 4), (4, 3, 1, 1), stride=2),
    conv("kernel = image", (2, 3, 4, 3), (4, 3, 4, 3)),
    conv("stride > kernel", (2, 2, 9, 8), (3, 2, 2, 2), stride=3),
    conv("stride leaves pixels over", (2, 2, 8, 7), (3, 2, 3, 3), stride=(3, 2)),
    conv("padding", (2, 2, 5, 4), (3, 2, 3, 3), padding=1),
    conv("padding > kernel", (1, 2, 3, 3), (2, 2, 2, 2), padding=(3, 2)),
    conv("padding valid", (2, 2, 5, 4), (3, 2, 3, 3), padding="valid"),
    conv("padding same", (2, 2, 5, 4), (3, 2, 3, 3), padding="same"),
    conv("padding same, even kernel", (2, 2, 5, 6), (3, 2, 2, 4), padding="same"),
    conv("padding same, dilation", (2, 2, 5, 6), (3, 2, 3, 2), padding="same", dilation=(2, 1)),
    conv("dilation", (2, 2, 8, 7), (3, 2, 3, 2), dilation=(2, 3)),
    conv("stride, padding, dilation", (2, 2, 9, 8), (3, 2, 3, 3), stride=(2, 3), padding=(2, 1), dilation=(2, 1)),
    conv("groups", (2, 4, 5, 5), (6, 2, 3, 3), groups=2, padding=1),
    conv("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), groups=3, stride=2),
    conv("depthwise, multiplier 2", (2, 3, 5, 4), (6, 1, 2, 3), groups=3, dilation=(1, 2), padding=1),
    conv("one-element settings", (2, 2, 6, 5), (3, 2, 2, 2), stride=(2,), padding=[1], dilation=(1,)),
    conv("unbatched", (3, 6, 5), (4, 3, 3, 3), stride=2, padding=1),
    conv("unbatched, padding same", (3, 5, 4), (4, 3, 2, 2), padding="same"),
    conv("16 maps", (1, 16, 5, 4), (3, 16, 3, 2), padding=1, dilation=(1, 2)),
]

CONV1D = [
    of_axes("conv1d", "plain", (2, 3, 7), (4, 3, 3), 4),
    of_axes("conv1d", "no bias, everything", (2, 4, 11), (6, 2, 3), 0, stride=2, padding=3, dilation=2, groups=2),
    of_axes("conv1d", "padding same, even kernel", (2, 2, 6), (3, 2, 4), 3, padding="same"),
    of_axes("conv1d", "unbatched, padding valid", (3, 6), (4, 3, 2), 4, stride=3, padding="valid"),
    of_axes("conv1d", "16 maps", (1, 16, 5), (3, 16, 3), 3, padding=1, dilation=2),
]

CONV3D = [
    of_axes("conv3d", "plain", (2, 2, 4, 3, 4), (3, 2, 2, 3, 2), 3),
    of_axes(
        "conv3d",
        "no bias, everything",
        (2, 4, 5, 4, 3),
        (2, 2, 2, 3, 2),
        0,
        stride=(2, 1, 3),
        padding=(1, 2, 0),
        dilation=(1, 2, 1),
        groups=2,
    ),
    of_axes("conv3d", "padding same, uneven", (1, 2, 3, 3, 4), (2, 2, 2, 3, 2), 2, padding="same", dilation=(1, 1, 3)),
    of_axes("conv3d", "unbatched, depthwise", (2, 3, 4, 3), (2, 1, 2, 2, 2), 2, groups=2, padding=1, stride=2),
    of_axes("conv3d", "16 maps", (1, 16, 2, 3, 2), (2, 16, 2, 2, 1), 2),
]

TRANSPOSED = [
    of_axes("conv_transpose1d", "everything", (2, 4, 4), (4, 3, 3), 6, groups=2, stride=3, padding=1, output_padding=2),
    of_axes("conv_transpose1d", "unbatched, no bias", (3, 5), (3, 2, 2), 0, dilation=2),
    of_axes("conv_transpose2d", "plain", (2, 3, 4, 3), (3, 4, 3, 2), 4),
    of_axes("conv_transpose2d", "no bias, padding > kernel", (2, 2, 5, 6), (2, 3, 2, 3), 0, padding=(2, 3)),
    of_axes("conv_transpose2d", "stride > kernel", (2, 2, 3, 2), (2, 3, 2, 2), 3, stride=(3, 4), output_padding=(2, 1)),
    of_axes("conv_transpose2d", "groups, dilation", (2, 4, 3, 4), (4, 3, 2, 3), 6, groups=2, dilation=(3, 2), stride=2),
    of_axes(
        "conv_transpose2d",
        "output padding >= stride",
        (2, 2, 3, 2),
        (2, 3, 2, 2),
        3,
        stride=(2, 1),
        dilation=(4, 2),
        output_padding=(3, 1),
        padding=1,
    ),
    of_axes("conv_transpose2d", "unbatched, depthwise", (3, 3, 4), (3, 2, 3, 3), 6, groups=3, stride=2, padding=1),
    of_axes("conv_transpose2d", "1x1, 16 maps", (1, 2, 4, 3), (2, 16, 1, 1), 16),
    of_axes("conv_transpose3d", "plain", (2, 3, 2, 3, 2), (3, 2, 2, 2, 3), 2),
    of_axes(
        "conv_transpose3d",
        "unbatched, everything",
        (4, 2, 3, 2),
        (4, 1, 2, 2, 3),
        2,
        stride=(2, 1, 2),
        padding=(1, 0, 2),
        dilation=(1, 2, 1),
        output_padding=(1, 1, 0),
        groups=2,
    ),
]

TRIPLE = [
    *triple("plain", (2, 3, 6, 5), (4, 3, 3, 2)),
    *triple("everything", (2, 4, 9, 8), (6, 2, 3, 2), (2, 3), (1, 2), (2, 1), 2),
    *triple("16 maps", (2, 16, 4, 5), (2, 16, 2, 2), 1, 1),
]

CONVOLVE = [
    Case("rotate", "kernel", normal(4, 3, 3, 2)),
    Case("rotate", "matrix", normal(3, 4)),
    *[
        Case("convolve", case.name, case.make, case.kwargs)
        for case in CONV2D
        if case.name
        in ("plain", "no bias", "padding same, even kernel", "unbatched", "groups", "stride, padding, dilation")
    ],
]

PLACES = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 0])
TWICE = torch.tensor([0, 1, 0]), torch.tensor([1, 1, 1])
FROM_END = torch.tensor([-1, 0, -2]), torch.tensor([-3, 2, -1])
CONNECT = [
    Case("scatter_kernels", "three of six", together(normal(3, 2, 3), fixed(*PLACES, (2, 3)))),
    Case("scatter_kernels", "two at one place", together(normal(3, 2, 2), fixed(*TWICE, (2, 3)))),
    Case("scatter_kernels", "all", together(normal(4, 1, 2), fixed(*torch.ones(2, 2).nonzero(as_tuple=True), (2, 2)))),
    Case("scatter_kernels", "from the end", together(normal(3, 2, 1), fixed(*FROM_END, (2, 3)))),
    Case("gather_kernels", "three of six", together(normal(2, 3, 3, 2), fixed(*PLACES))),
    Case("gather_kernels", "one twice", together(normal(2, 3, 2, 2), fixed(*TWICE))),
    *[
        Case("connected_conv2d", name, together(normal(*x), normal(*w), fixed(*places, maps), b), settings)
        for name, x, w, places, maps, b, settings in [
            ("plain", (2, 3, 5, 4), (3, 2, 3), PLACES, (2, 3), normal(2), {}),
            ("two at one place", (2, 3, 5, 4), (3, 2, 3), TWICE, (2, 3), normal(2), {}),
            ("no bias, stride", (2, 3, 6, 5), (3, 3, 2), PLACES, (2, 3), fixed(None), {"stride": (2, 1)}),
            ("groups", (2, 6, 5, 4), (3, 2, 2), PLACES, (2, 3), normal(2), {"groups": 2, "padding": 1}),
            ("padding same", (3, 5, 4), (3, 2, 3), PLACES, (2, 3), normal(2), {"padding": "same", "dilation": (1, 2)}),
        ]
    ],
]

LINEAR = [
    Case("linear", "matrix", together(normal(3, 4), normal(5, 4), normal(5))),
    Case("linear", "no bias", together(normal(3, 4), normal(5, 4))),
    Case("linear", "vector", together(normal(4), normal(5, 4), normal(5))),
    Case("linear", "leading axes", together(normal(2, 3, 4), normal(5, 4), normal(5))),
    Case("linear", "weight vector", together(normal(2, 3, 4), normal(4))),
    Case("linear", "one to one", together(normal(3, 1), normal(1, 1), normal(1))),
]
