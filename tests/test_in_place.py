"""Whatever PyTorch lets one do in place after a layer works by hand, converted, fused and under torch.func.

A table of every layer and function by every follower, compared with PyTorch's own. Where PyTorch refuses, as it keeps
what would be changed, there may be a refusal as well, or the right numbers, but no others.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import manualbp
import manualbp.nn as by_hand
from tests.checks import random_like

IMAGES, IMAGE, ROWS = (2, 4, 6, 6), (4, 6, 6), (3, 4)


@dataclass
class Row:
    """A layer of torch.nn, the shapes of the inputs that it is given, and what it takes besides."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = (ROWS,)
    more: tuple[Any, ...] = ()

    def layer(self) -> nn.Module:
        torch.manual_seed(0)
        return getattr(nn, self.name)(*self.args, **self.kwargs)


ACTIVATIONS = ["Sigmoid", "Tanh", "Softsign", "PReLU", "Softplus", "LogSigmoid", "GELU", "Hardshrink", "Softshrink"]
INPLACE = [
    *[(name, ()) for name in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish")],
    *[("Hardtanh", (-0.5, 1.0)), ("LeakyReLU", (0.1,)), ("ELU", (0.5,)), ("CELU", (2.0,)), ("Threshold", (0.1, -1.0))],
]
BOTH = {"shapes": (IMAGES, IMAGE)}  # batched and unbatched
CLASSES = torch.tensor([0, 3, 1])
INDICES = torch.arange(0, 144, 4).view(6, 6).expand(4, 6, 6)
NONE = {"reduction": "none"}
TABLE = [
    *[Row(name) for name in ACTIVATIONS],
    Row("GELU", ("tanh",)),
    *[Row(name, args, {"inplace": inplace}) for name, args in INPLACE for inplace in (False, True)],
    *[Row("Dropout", (p,), {"inplace": inplace}) for p in (0.0, 0.5) for inplace in (False, True)],
    *[Row("LeakyReLU", (-0.3,)), Row("Threshold", (0.1, 2.0))],
    Row("Softmax", (1,)),
    Row("LogSoftmax", (-1,)),
    Row("Linear", (4, 5), {}, (ROWS, (2, 3, 4), (4,))),
    Row("Conv1d", (4, 3, 3), {"padding": 1}, ((2, 4, 6), (4, 6))),
    Row("Conv2d", (4, 6, 3), {"groups": 2}, **BOTH),
    Row("Conv2d", (4, 6, 2), {"padding": "same", "padding_mode": "circular", "bias": False}, **BOTH),
    Row("Conv3d", (2, 3, 2), {}, ((2, 2, 3, 4, 3), (2, 3, 4, 3))),
    Row("ConvTranspose1d", (4, 3, 3), {"stride": 2}, ((2, 4, 6), (4, 6))),
    Row("ConvTranspose2d", (4, 3, 2), {"stride": 2, "output_padding": 1}, **BOTH),
    Row("ConvTranspose3d", (2, 3, 2), {}, ((2, 2, 3, 2, 3), (2, 3, 2, 3))),
    Row("BatchNorm1d", (4,), {}, (ROWS, (2, 4, 3))),
    Row("BatchNorm2d", (4,), {}, (IMAGES,)),
    Row("BatchNorm2d", (4,), {"affine": False, "track_running_stats": False}, (IMAGES,)),
    Row("BatchNorm3d", (2,), {}, ((2, 2, 3, 4, 3),)),
    *[Row("LayerNorm", (4,)), Row("LayerNorm", ([6, 6],), {}, **BOTH)],
    *[Row("GroupNorm", (groups, 4), {}, (IMAGES, ROWS)) for groups in (1, 2)],
    Row("GroupNorm", (2, 4), {"affine": False}, (IMAGES,)),
    *[Row("MaxPool2d", (2,), kwargs, **BOTH) for kwargs in ({}, {"return_indices": True})],
    Row("AvgPool2d", (3, 2, 1), {}, **BOTH),
    *[Row("AdaptiveAvgPool2d", (size,), {}, **BOTH) for size in (1, (2, 4))],
    Row("AdaptiveMaxPool2d", ((2, 4),), {}, **BOTH),
    Row("MaxUnpool2d", (2,), {}, (IMAGE,), (INDICES,)),
    *[Row("Upsample", (), {"scale_factor": 2, "mode": mode}, (IMAGES,)) for mode in ("nearest", "bilinear")],
    Row("UpsamplingNearest2d", (9,), {}, (IMAGES,)),
    Row("UpsamplingBilinear2d", (), {"scale_factor": 1.5}, (IMAGES,)),
    *[Row(f"{kind}Pad2d", (margin,), {}, **BOTH) for kind in ("Zero", "Reflection") for margin in (1, 0)],
    *[Row(f"{kind}Pad2d", ((1, 0, 2, 1),), {}, **BOTH) for kind in ("Replication", "Circular")],
    Row("ConstantPad2d", ((1, -1, 0, 2), 0.5), {}, **BOTH),
    Row("CrossEntropyLoss", (), {**NONE, "label_smoothing": 0.1}, more=(CLASSES,)),
    Row("NLLLoss", (), NONE, more=(CLASSES,)),
    *[Row(name, (), NONE, more=(torch.full(ROWS, 0.3),)) for name in ("MSELoss", "L1Loss", "SmoothL1Loss")],
    Row("BCEWithLogitsLoss", (), NONE, more=(torch.full(ROWS, 0.3),)),
]
CHAINS = [  # what `fuse` takes together
    lambda: [nn.ReLU(), nn.MaxPool2d(2)],
    lambda: [nn.ReLU6(), nn.MaxPool2d(2)],
    lambda: [nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2)],
    lambda: [nn.BatchNorm2d(4), nn.ReLU()],
    lambda: [nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2)],
    lambda: [nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 4, 3)],
    lambda: [nn.GELU(), nn.Conv2d(4, 4, 3)],
    lambda: [nn.Conv2d(4, 4, 3), nn.AvgPool2d(2)],
]


def double_a_part(y: Tensor) -> Tensor:
    y[:1].mul_(2)
    return y


FOLLOWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": nn.ReLU(True),
    "ReLU6": nn.ReLU6(True),
    "LeakyReLU": nn.LeakyReLU(0.1, True),
    "SiLU": nn.SiLU(True),
    "Hardtanh": nn.Hardtanh(-0.4, 0.7, inplace=True),
    "ELU": nn.ELU(inplace=True),
    "Dropout": nn.Dropout(0.0, inplace=True),
    "add_": lambda y: y.add_(1),
    "y[:1].mul_": double_a_part,
}


class Then(nn.Module):
    """A layer, and what follows it; `apart`: on a copy of the layer's output."""

    def __init__(self, layer: Callable[..., Any], follower: Callable[[Tensor], Tensor], apart: bool = False) -> None:
        super().__init__()
        self.layer, self.follower, self.apart = layer, follower, apart

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        y = self.layer(x, *more)
        if isinstance(y, tuple):
            y = y[0]
        return self.follower(y.clone() if self.apart else y)


Results = list[Tensor] | str


def results(model: nn.Module, shape: tuple[int, ...], more: tuple[Any, ...]) -> Results:
    """Output and gradients, or the refusal."""
    x = random_like(torch.empty(shape, dtype=torch.float64)).requires_grad_()
    torch.manual_seed(3)
    try:
        y = model(x * 1, *more)
        loss = y.square().sum()
        return [y.detach().clone(), *torch.autograd.grad(loss, [x, *model.parameters()], allow_unused=True)]
    except RuntimeError as refusal:
        return str(refusal)


def results_by_sample(model: nn.Module, shape: tuple[int, ...], more: tuple[Any, ...]) -> Results:
    """vmap(grad(functional_call)) by the parameters and the input, for two inputs."""
    x = random_like(torch.empty(2, *shape, dtype=torch.float64))
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, (parameters, buffers), (x * 1, *more)).square().sum()

    torch.manual_seed(3)
    try:
        weights, dx = vmap(grad(loss, (0, 1)), in_dims=(None, 0), randomness="different")(parameters, x)
        return [dx, *weights.values()]
    except RuntimeError as refusal:
        return str(refusal)


def fused(model: nn.Module) -> nn.Module:
    manualbp.fuse(model)
    return model


def converted(model: nn.Module) -> nn.Module:
    manualbp.convert(model)
    return model


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "by_hand": lambda model: model,
    "convert": converted,
    "fuse": fused,
    "convert, fuse": lambda model: fused(converted(model)),
    "vmap of grad, by_hand": lambda model: model,
}


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """PyTorch takes 1/6 in float32."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=1e-8, equal_nan=True)


def complaint(ours: Results, torchs: Results, right: Results) -> str | None:
    """What is wrong with ours; `right` is PyTorch's on a copy of the output."""
    if isinstance(right, str):
        return None  # PyTorch has no answer
    if isinstance(ours, str):
        return None if isinstance(torchs, str) else ours[:150]
    return None if len(ours) == len(right) and all(map(same, ours, right)) else "other numbers"


@dataclass
class Place:
    """A layer, an input and a follower, and what PyTorch makes of them by each of the two ways to run it."""

    layer: nn.Module
    follower: str
    shape: tuple[int, ...]
    more: tuple[Any, ...] = ()
    alone: bool = True
    first: bool = True
    known: dict[Callable[..., Results], tuple[Results, Results]] = field(default_factory=dict)

    def model(self, apart: bool = False) -> nn.Module:
        """The followers are copied, too: a way may convert them."""
        return copy.deepcopy(Then(self.layer, FOLLOWERS[self.follower], apart)).double()

    def torchs(self, run: Callable[..., Results]) -> tuple[Results, Results]:
        if run not in self.known:
            plain = run(self.model(), self.shape, self.more)
            right = run(self.model(True), self.shape, self.more) if isinstance(plain, str) else plain
            self.known[run] = plain, right
        return self.known[run]

    def __str__(self) -> str:
        return f"{self.layer} of {self.shape}, then {self.follower}"


def places() -> Iterator[Place]:
    for follower in FOLLOWERS:
        for row in TABLE:
            for shape in row.shapes:
                yield Place(row.layer(), follower, shape, row.more, first=shape is row.shapes[0])
        for chain in CHAINS:
            torch.manual_seed(0)
            yield Place(nn.Sequential(*chain()), follower, IMAGES, alone=False)


PLACES = list(places())


@pytest.mark.filterwarnings("ignore:by_hand", "ignore:There is a performance drop")
@pytest.mark.parametrize("way", WAYS)
def test_every_layer_by_every_follower(way: str) -> None:
    """Fused: a layer alone, which nothing is fused with, by some followers only. By sample: of one shape."""
    run = results_by_sample if way.startswith("vmap") else results
    complaints = []
    for place in PLACES:
        if "fuse" in way and place.alone and place.follower not in ("SiLU", "add_"):
            continue
        if run is results_by_sample and not place.first:
            continue
        mine = WAYS[way](place.model())
        with manualbp.by_hand() if way.endswith("by_hand") else nullcontext():
            ours = run(mine, place.shape, place.more)
        if wrong := complaint(ours, *place.torchs(run)):
            complaints.append(f"{place}: {wrong}")
    assert not complaints, f"{len(complaints)}:\n" + "\n".join(complaints)


def test_every_layer_has_a_row() -> None:
    layers = {name for name in by_hand.__all__ if hasattr(nn, name)}
    assert layers == {row.name for row in TABLE}
