"""The cases: one list a rule, and what PyTorch's own function for it is.

A case makes its inputs in float64 from a seed. Tensors that require a gradient are differentiated in the checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

import manualbp.functional as F

Make = Callable[[torch.Generator], tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    make: Make
    kwargs: dict[str, Any] = field(default_factory=dict)

    def inputs(self, device: str = "cpu", dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Any, ...]:
        """Fresh leaves, the same ones every time (up to the dtype's rounding)."""
        made = self.make(torch.Generator().manual_seed(seed))
        return tuple(leaf(a, device, dtype) for a in made)

    def settings(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {name: leaf(a, device, dtype) for name, a in self.kwargs.items()}

    def ours(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(F, self.op)(*args, **kwargs)

    def torchs(self, *args: Any, **kwargs: Any) -> Any:
        return ORACLES[self.op](*args, **kwargs) if self.op in ORACLES else getattr(T, self.op)(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.op}: {self.name}"


def leaf(a: Any, device: str, dtype: torch.dtype) -> Any:
    if not isinstance(a, Tensor):
        return a
    moved = a.detach().to(device, dtype if a.is_floating_point() else None)
    return moved.requires_grad_(a.requires_grad)


# What torch.nn.functional lacks, by PyTorch's own derivatives (of which none is used in the package).
ORACLES: dict[str, Callable[..., Any]] = {
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


def normal(*shape: int) -> Make:
    return lambda g: (torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True),)


def distinct(*shape: int) -> Make:
    """A permutation, far from ties: the maximum is differentiable there."""

    def make(g: torch.Generator) -> tuple[Tensor]:
        n = prod(shape)
        return ((torch.randperm(n, generator=g).reshape(shape).double() / 8 - n / 16).requires_grad_(),)

    return make


def together(*makes: Make) -> Make:
    return lambda g: tuple(a for make in makes for a in make(g))


def fixed(*values: Any) -> Make:
    return lambda g: values


def conv(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **kwargs: Any) -> Case:
    b = normal(w[0]) if bias else fixed(None)
    return Case("conv2d", name, together(normal(*x), normal(*w), b), kwargs)


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

MAX_POOL2D = [
    Case("max_pool2d", name, distinct(*x), kwargs)
    for name, x, kwargs in [
        ("tiles", (2, 2, 6, 4), {"kernel_size": 2}),
        ("tiles, pixels over", (2, 2, 7, 5), {"kernel_size": (2, 3)}),
        ("overlap", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2}),
        ("overlap, stride 1", (1, 2, 5, 4), {"kernel_size": (2, 3), "stride": 1}),
        ("stride > kernel", (2, 2, 8, 7), {"kernel_size": 2, "stride": 3}),
        ("padding", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("dilation", (2, 2, 8, 9), {"kernel_size": (3, 2), "stride": (2, 1), "dilation": (2, 3)}),
        ("ceil_mode", (2, 2, 7, 6), {"kernel_size": 2, "ceil_mode": True}),
        ("ceil_mode, padding", (2, 2, 6, 5), {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
        ("window = image", (2, 2, 4, 3), {"kernel_size": (4, 3)}),
        ("1x1", (2, 2, 3, 4), {"kernel_size": 1}),
        ("return_indices", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}),
        ("unbatched", (2, 7, 6), {"kernel_size": 2, "return_indices": True}),
        ("empty stride", (2, 2, 6, 6), {"kernel_size": 3, "stride": []}),
    ]
]

AVG_POOL2D = [
    Case("avg_pool2d", name, normal(*x), kwargs)
    for name, x, kwargs in [
        ("tiles", (2, 2, 6, 4), {"kernel_size": 2}),
        ("tiles, pixels over", (2, 2, 7, 5), {"kernel_size": (2, 3)}),
        ("overlap", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2}),
        ("stride > kernel", (2, 2, 8, 7), {"kernel_size": 2, "stride": 3}),
        ("padding", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("padding, not counted", (2, 2, 7, 6), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
        ("ceil_mode", (2, 2, 7, 6), {"kernel_size": 2, "ceil_mode": True}),
        ("ceil_mode, padding", (2, 2, 6, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        (
            "ceil_mode, padding not counted",
            (2, 2, 6, 5),
            {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        ),
        ("divisor_override", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5}),
        ("divisor_override < 0", (1, 2, 4, 4), {"kernel_size": 2, "divisor_override": -3}),
        ("window = image", (2, 2, 4, 3), {"kernel_size": (4, 3)}),
        ("unbatched", (2, 7, 6), {"kernel_size": 2}),
    ]
]

PAD = [
    Case("pad", f"{mode} {sides}", together(normal(*x), fixed(sides)), {"mode": mode, **kwargs})
    for mode, x, sides, kwargs in [
        ("constant", (2, 3, 4, 5), (1, 2, 3, 0), {}),
        ("constant", (2, 3, 4, 5), (1, -2, -1, 3), {"value": 2.5}),
        ("constant", (3, 4), (0, 1), {}),
        ("reflect", (2, 3, 4, 5), (4, 3, 2, 0), {}),
        ("reflect", (3, 5), (2, 4), {}),
        ("replicate", (2, 3, 4, 5), (1, 7, 3, 2), {}),
        ("replicate", (2, 3, 4, 5), (1, 1, 0, 2, 2, 1), {}),
        ("circular", (2, 3, 4, 5), (5, 3, 4, 1), {}),
        ("circular", (3, 4, 5), (1, 2, 0, 3), {}),
        ("reflect", (2, 3, 4, 5), (2, -1, 0, -2), {}),
        ("replicate", (2, 3, 4, 5), (-2, 3, 1, 1), {}),
        ("circular", (2, 3, 4, 5), (-1, -1, -1, 3), {}),
    ]
]

ELEMENTWISE = [
    *[Case(op, "matrix", normal(4, 5)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "images", normal(2, 3, 4, 2)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "number", normal()) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, f"dim {dim}", normal(3, 4, 2), {"dim": dim}) for op in ("softmax", "log_softmax") for dim in (0, 1, -1)],
    *[Case(op, "dtype", normal(3, 4), {"dim": 1, "dtype": torch.float64}) for op in ("softmax", "log_softmax")],
    *[Case(op, "number", normal(), {"dim": 0}) for op in ("softmax", "log_softmax")],
]

LINEAR = [
    Case("linear", "matrix", together(normal(3, 4), normal(5, 4), normal(5))),
    Case("linear", "no bias", together(normal(3, 4), normal(5, 4))),
    Case("linear", "vector", together(normal(4), normal(5, 4), normal(5))),
    Case("linear", "leading axes", together(normal(2, 3, 4), normal(5, 4), normal(5))),
    Case("linear", "weight vector", together(normal(2, 3, 4), normal(4))),
    Case("linear", "one to one", together(normal(3, 1), normal(1, 1), normal(1))),
]


def classes(*shape: int, C: int, ignore: int | None = None) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        t = torch.randint(C, shape, generator=g)
        if ignore is not None:
            t.view(-1)[::3] = ignore
        return (t,)

    return make


def probabilities(*shape: int) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        return (torch.rand(shape, generator=g, dtype=torch.float64).softmax(1).requires_grad_(),)

    return make


def log_probabilities(*shape: int) -> Make:
    def make(g: torch.Generator) -> tuple[Tensor]:
        z = torch.randn(shape, generator=g, dtype=torch.float64)
        return (z.log_softmax(1 if z.ndim > 1 else 0).requires_grad_(),)

    return make


WEIGHT = torch.tensor([0.5, 2.0, 0.25, 1.5], dtype=torch.float64)

CROSS_ENTROPY = [
    Case("cross_entropy", f"{target}, {settings}", together(normal(5, 4), make), settings)
    for target, make in [("classes", classes(5, C=4)), ("probabilities", probabilities(5, 4))]
    for settings in [
        {},
        {"reduction": "sum"},
        {"reduction": "none", "label_smoothing": 0.1},
        {"weight": WEIGHT},
        {"weight": WEIGHT, "label_smoothing": 0.3},
        {"weight": WEIGHT, "label_smoothing": 1.0, "reduction": "none"},
    ]
] + [
    Case("cross_entropy", name, together(*makes), settings)
    for name, makes, settings in [
        ("ignore", (normal(6, 4), classes(6, C=4, ignore=-100)), {}),
        ("ignore a class", (normal(6, 4), classes(6, C=4)), {"ignore_index": 2, "weight": WEIGHT}),
        ("ignore, smoothing", (normal(6, 4), classes(6, C=4, ignore=-1)), {"ignore_index": -1, "label_smoothing": 0.2}),
        ("images", (normal(2, 4, 3, 2), classes(2, 3, 2, C=4, ignore=-100)), {"weight": WEIGHT}),
        ("images, smoothing", (normal(2, 4, 3, 2), classes(2, 3, 2, C=4)), {"weight": WEIGHT, "label_smoothing": 0.1}),
        ("images, probabilities", (normal(2, 4, 3), probabilities(2, 4, 3)), {"weight": WEIGHT}),
        ("one sample", (normal(4), classes(C=4)), {"reduction": "none"}),
        ("one sample, probabilities", (normal(4), fixed(WEIGHT / 4.25)), {"label_smoothing": 0.1}),
    ]
]

NLL_LOSS = [
    Case("nll_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (log_probabilities(5, 4), classes(5, C=4)), {}),
        ("sum", (log_probabilities(5, 4), classes(5, C=4)), {"reduction": "sum", "weight": WEIGHT}),
        ("none", (log_probabilities(5, 4), classes(5, C=4, ignore=-100)), {"reduction": "none"}),
        ("weight, ignore", (log_probabilities(6, 4), classes(6, C=4)), {"weight": WEIGHT, "ignore_index": 1}),
        ("images", (log_probabilities(2, 4, 3, 2), classes(2, 3, 2, C=4, ignore=-100)), {"weight": WEIGHT}),
        ("one sample", (log_probabilities(4), classes(C=4)), {}),
    ]
]

MSE_LOSS = [
    Case("mse_loss", name, together(*makes), settings)
    for name, makes, settings in [
        ("mean", (normal(3, 4), normal(3, 4)), {}),
        ("sum", (normal(3, 4), normal(3, 4)), {"reduction": "sum"}),
        ("none", (normal(2, 3, 4), normal(2, 3, 4)), {"reduction": "none"}),
        ("weight", (normal(2, 4), normal(2, 4)), {"weight": WEIGHT.expand(2, 4)}),
    ]
]

CASES = [
    *CONV2D,
    *TRIPLE,
    *CONVOLVE,
    *CONNECT,
    *MAX_POOL2D,
    *AVG_POOL2D,
    *PAD,
    *ELEMENTWISE,
    *LINEAR,
    *CROSS_ENTROPY,
    *NLL_LOSS,
    *MSE_LOSS,
]
