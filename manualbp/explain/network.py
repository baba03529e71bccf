"""One layer, or several in a row: their numbers by the rules, and a page of their panels, forwards and backwards."""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from operator import not_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manualbp.explain import classes, convolution, norm, pointwise, pooling, rotation
from manualbp.explain.data import NUMBERS, Draft, Grid, pulled_back
from manualbp.nn import TrueConv2d

LARGEST = 12  # rows and columns of an image or a kernel
CELLS = 4_000
ROLES = {"w": ("kernel", "kernel"), "b": ("bias", "bias"), "target": ("the true classes, from 0", "other")}
FORWARD = {"forward", "softmax", "loss", "mean", "scale", "normalise"}
Draw = Callable[[Sequence[int]], Tensor]


class Kind(NamedTuple):
    name: str
    layer: type[nn.Module]
    forward: Callable[..., Tensor]
    describe: Callable[[Draft, Any, dict[str, Grid]], None]
    axes: int | None = 4  # of the input
    settings: tuple[str, ...] = ()
    cells: int = CELLS  # of the input


WINDOW = ("kernel_size", "stride", "padding", "ceil_mode")
SLID = ("stride", "padding", "dilation", "groups")
KINDS = (
    Kind("true_conv2d", TrueConv2d, convolution.forward, rotation.describe, settings=SLID, cells=NUMBERS),
    Kind("conv2d", nn.Conv2d, convolution.forward, rotation.describe, settings=SLID, cells=NUMBERS),
    Kind("max_pool2d", nn.MaxPool2d, pooling.maxima, pooling.describe_maximum, settings=(*WINDOW, "dilation")),
    Kind("avg_pool2d", nn.AvgPool2d, pooling.means, pooling.describe_mean, settings=(*WINDOW, "count_include_pad")),
    Kind("sigmoid", nn.Sigmoid, pointwise.sigmoid, pointwise.describe_sigmoid, None),
    Kind("relu", nn.ReLU, pointwise.relu, pointwise.describe_relu, None),
    Kind("flatten", nn.Flatten, pointwise.flatten, pointwise.describe_flatten, None),
    Kind("linear", nn.Linear, classes.linear, classes.describe_linear, 2),
    Kind(
        "cross_entropy", nn.CrossEntropyLoss, classes.cross_entropy, classes.describe_cross_entropy, 2, ("reduction",)
    ),
    Kind("batch_norm", nn.BatchNorm2d, norm.forward, norm.describe, settings=("eps",)),
)


def kind_of(layer: nn.Module) -> Kind:
    """The kind of a layer; a refusal of one that has none, or whose class has a forward pass of its own."""
    name = type(layer).__name__
    kind = next((kind for kind in KINDS if isinstance(layer, kind.layer)), None)
    if kind is None:
        raise ValueError(f"explain: {name} has no page; {', '.join(kind.layer.__name__ for kind in KINDS)} have one")
    own = next(c for c in type(layer).__mro__ if not vars(c).keys().isdisjoint({"forward", "_conv_forward"}))
    if not own.__module__.startswith(("torch.nn.", "manualbp.nn.")):
        raise ValueError(f"explain: {name} has a forward pass of its own; its layers have pages, one by one")
    return kind


def layers_of(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of Sequentials in each other, with their names."""
    if not isinstance(model, nn.Sequential):
        yield name, model
        return
    names = {layer: own for own, layer in model.named_children()}  # one layer may stand there twice
    for layer in model:
        yield from layers_of(layer, f"{name}.{names[layer]}" if name else names[layer])


@torch.enable_grad()
def page_of(
    model: nn.Module,
    x: Tensor,
    delta: Tensor | Draw,
    target: Tensor | None,
    symbols: bool,
    maps: tuple[int, int] | None,
    **head: str,
) -> dict[str, Any]:
    """The page of a layer, or of several in a row. delta: dL/dy, or what draws it in the shape of y.

    maps: the output and the input map of a convolution whose steps alone are shown; None: all, or (0, 0) of too many.
    """
    layers = [*layers_of(model)]
    kinds = [kind_of(layer) for _, layer in layers]
    _refuse_loss(kinds, target)
    x = x.detach().to("cpu", torch.float64)
    if kinds[0].axes in (2, 4) and x.ndim == kinds[0].axes - 1:  # one sample
        x = x.unsqueeze(0)
    maps = _shown_maps(layers, kinds, x, maps)
    exact = (lambda t: t) if maps is None else _rounded
    values, own = _forward(layers, kinds, exact(x), target, exact)
    y = values[-1]
    delta = torch.ones_like(y) if target is not None else delta if isinstance(delta, Tensor) else delta(y.shape)
    delta = exact(delta.detach().to(y))
    if delta.shape != y.shape:
        raise ValueError(f"explain: delta has shape {[*delta.shape]} and the output {[*y.shape]}; they must be equal")
    _refuse_infinite(delta=delta, output=y)
    asked = [*values[:-1], *(p for ps in own for p in ps.values() if p.requires_grad)]
    of = dict(zip(asked, pulled_back(y, delta, *asked), strict=True)) | {y: delta}
    draft = Draft(alone=len(layers) == 1, maps=maps)
    forth, back = [], []
    grids = [_grids(draft, kinds[-1], k, len(layers), values[k], of[values[k]]) for k in range(len(values))]
    for k, ((name, layer), kind, parameters) in enumerate(zip(layers, kinds, own, strict=True)):
        t = {"x": grids[k][0], "dx": grids[k][1], "y": grids[k + 1][0], "delta": grids[k + 1][1]}
        number = "" if draft.alone else str(k + 1)
        for role, p in parameters.items():
            axes = 2 if p.ndim > 1 else 1
            t[role] = draft.grid(f"{role}{number}", p, ROLES[role][0], ROLES[role][1], axes)
            if p.requires_grad:
                t[f"d{role}"] = draft.grid(f"d{role}{number}", of[p], f"dL/d{role}", "gradient", axes)
        if not draft.alone:
            draft.prefix, draft.name = f"layer{k + 1}-", f"{name} {type(layer).__name__}"
        draft.panels = []
        kind.describe(draft, layer, t)
        forwards = [panel["id"].removeprefix(draft.prefix) in FORWARD for panel in draft.panels]
        forth += compress(draft.panels, forwards)
        back = [*compress(draft.panels, map(not_, forwards)), *back]
    draft.panels = forth + back
    settings = {name: getattr(layers[0][1], name) for name in kinds[0].settings if draft.alone}
    if maps is not None:
        head["note"] = _note_on(maps, own[0]["w"].shape[0], x.shape[1])
    return draft.page(symbols=symbols, settings=settings, **head)


def _shown_maps(
    layers: list[tuple[str, nn.Module]], kinds: list[Kind], x: Tensor, maps: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The maps of a convolution that alone are shown, or None for all. That a layer is too large is refused."""
    (_, layer), kind = layers[0], kinds[0]
    if len(layers) == 1 and isinstance(layer, nn.Conv2d):
        _refuse_size(kind, layer, x)
        return convolution.shown_maps(layer, x, maps)
    if maps is not None:
        raise ValueError(f"explain: maps = {maps}; they go with a single Conv2d or TrueConv2d")
    return None


def _rounded(t: Tensor) -> Tensor:
    """Each number as the shortest decimal that is the same float32, so that a large layer's page is no larger."""
    made = t
    for figures in (9, 8, 7, 6):
        decimals = [float(f"{v:.{figures}g}") for v in t.flatten().tolist()]
        shorter = torch.tensor(decimals, dtype=t.dtype).view(t.shape)
        made = shorter.where(shorter.float() == t.float(), made)
    return made


def _note_on(maps: tuple[int, int], O: int, C: int) -> str:
    o, c = maps
    return (
        f"The layer has {C} input and {O} output maps. Each panel steps through one: the forward pass makes output map "
        f"{o + 1} of {O}, the local gradient is that of input map {c + 1} of {C}, and the kernel gradient that of the "
        f"sheet between the two. No map is left out of a sum, and all numbers are those of the whole layer; x, w, b "
        f"and delta have the figures of a float32. Other maps: explain(..., maps=({o}, {c})), counted from 0."
    )


def _refuse_loss(kinds: list[Kind], target: Tensor | None) -> None:
    if not kinds:
        raise ValueError("explain: the Sequential is empty; it must have a layer at least")
    if any(kind.name == "cross_entropy" for kind in kinds[:-1]):
        raise ValueError("explain: CrossEntropyLoss must be the last layer")
    if (kinds[-1].name == "cross_entropy") != (target is not None):
        raise ValueError("explain: target = the classes goes with CrossEntropyLoss as the last layer, and with it only")


def _forward(
    layers: list[tuple[str, nn.Module]],
    kinds: list[Kind],
    x: Tensor,
    target: Tensor | None,
    exact: Callable[[Tensor], Tensor],
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """What goes into each layer and comes out of the last, in float64, and the parameters of each."""
    values, own = [x.clone().requires_grad_()], []
    for (_, layer), kind in zip(layers, kinds, strict=True):
        _refuse_size(kind, layer, values[-1])
        given = {"w": getattr(layer, "weight", None), "b": getattr(layer, "bias", None)}
        if kind.name == "cross_entropy" and target is not None:
            parameters = {"target": target}
        else:
            doubles = {role: exact(p.detach().to("cpu", torch.float64)) for role, p in given.items() if p is not None}
            parameters = {role: p.clone().requires_grad_() for role, p in doubles.items()}
        _refuse_infinite(**{f"the input of {type(layer).__name__}": values[-1]}, **parameters)
        own.append(parameters)
        values.append(kind.forward(layer, values[-1], parameters.get("w", target), parameters.get("b")))
    return values, own


def _refuse_infinite(**tensors: Tensor) -> None:
    for name, t in tensors.items():
        if not t.isfinite().all():
            raise ValueError(f"explain: {name} has numbers that are not finite; all must be")


def _refuse_size(kind: Kind, layer: nn.Module, x: Tensor) -> None:
    name, shape = type(layer).__name__, [*x.shape]
    if x.ndim == 0 or (kind.axes and x.ndim != kind.axes):
        wanted = {2: "[N, C]", 4: "[N, C, H, W]"}.get(kind.axes or 0, "of an axis or more")
        raise ValueError(f"explain: the input of {name} has shape {shape}; it must be {wanted}")
    if x.numel() == 0 or x.numel() > kind.cells or (x.ndim > 2 and max(shape[-2:]) > LARGEST):
        raise ValueError(
            f"explain: the input of {name} has shape {shape}; a page shows images of at most {LARGEST} x {LARGEST} and "
            f"1 to {kind.cells:,} numbers in all: take a part of it"
        )
    window = getattr(layer, "kernel_size", 1)
    if max(window if isinstance(window, tuple) else (window,)) > LARGEST:
        raise ValueError(f"explain: {name} has kernel_size = {window}; it must be at most {LARGEST} x {LARGEST}")


def _grids(draft: Draft, last: Kind, k: int, layers: int, value: Tensor, gradient: Tensor) -> tuple[Grid, Grid]:
    """The input (k = 0), the output of layer k, and its gradient."""
    own = 2 if value.ndim > 2 else 1
    if k == 0:
        return draft.grid("x", value, "input", "input", own), draft.grid("dx", gradient, "dL/dx", "gradient", own)
    if k < layers:
        y = draft.grid(f"y{k}", value, f"output of layer {k}", "output", own)
        return y, draft.grid(f"dy{k}", gradient, f"local gradient dL/dy of layer {k}", "delta", own)
    name, own = ("loss", 0) if last.name == "cross_entropy" else ("y", own)
    y = draft.grid(name, value, "loss" if name == "loss" else "output", "output", own)
    return y, draft.grid("delta", gradient, "delta = dL/dy", "delta", own)
