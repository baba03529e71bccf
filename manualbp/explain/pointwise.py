"""sigmoid and relu: each number by itself, and the slope that delta is multiplied by. And flatten, which moves none."""

from typing import Any

import torch
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.data import Draft, Grid, pulled_back
from manualbp.explain.source import code_of
from manualbp.functional.activation.relu import ReLU, ReLUSlope
from manualbp.functional.activation.sigmoid import Sigmoid
from manualbp.kernels import activation as kernels

ENDS = (-6.0, 6.0, 61)  # of the curve, and its points


def sigmoid(layer: nn.Sigmoid, x: Tensor, w: None, b: None) -> Tensor:
    return F.sigmoid(x)


def relu(layer: nn.ReLU, x: Tensor, w: None, b: None) -> Tensor:
    return F.relu(x)


def flatten(layer: nn.Flatten, x: Tensor, w: None, b: None) -> Tensor:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise ValueError(f"explain: {layer}; only Flatten() of all but the batch has a page")
    return x.flatten(1)


def describe_sigmoid(draft: Draft, layer: nn.Sigmoid, t: dict[str, Grid]) -> None:
    y, slope = t["y"], _slope(draft, layer, t, F.sigmoid)
    draft.panel(
        "forward",
        "Forward: each number by the curve",
        [t["x"], y],
        "y = f[](x) = 1 / (1 + exp(-x))",
        "lecture 004, eq. 4.4",
        code_of(Sigmoid.forward),
        windows=(t["x"], [*t["x"].cells.flatten()]),
        say=[f"{own} is f of {of}." for own, of in zip(y.symbols(), t["x"].symbols(), strict=True)],
    )
    draft.panel(
        "slope",
        "The slope, written in the output: y - y y = y (1 - y)",
        [y, slope],
        "f' = y - y y = y (1 - y)",
        "lecture 004, eq. 4.4",
        code_of(kernels.sigmoid_slope),
        [[(1, [(y.id, k)]), (-1, [(y.id, k), (y.id, k)])] for k in range(y.values.numel())],
    )
    _back(draft, t, slope, code_of(Sigmoid.backward))


def describe_relu(draft: Draft, layer: nn.ReLU, t: dict[str, Grid]) -> None:
    x, y, slope = t["x"], t["y"], _slope(draft, layer, t, F.relu)
    draft.panel(
        "forward",
        "Forward: what is not positive becomes 0",
        [x, slope, y],
        "y = max(x, 0)",
        "lecture 003, eq. 3.2",
        code_of(ReLU.forward),
        [[(1, [(x.id, k), (slope.id, k)])] for k in range(y.values.numel())],
        say=[
            f"The slope is {'1: x is positive' if s > 0 else '0: x is not positive'}." for s in slope.values.flatten()
        ],
    )
    _back(draft, t, slope, code_of(ReLUSlope.forward))


def describe_flatten(draft: Draft, layer: nn.Flatten, t: dict[str, Grid]) -> None:
    code, source = code_of(flatten, "return"), "lecture 004, eq. 4.1"
    for id, title, a, b in (("forward", "Forward", "x", "y"), ("local-gradient", "Local gradient", "delta", "dx")):
        terms = [[(1.0, [(t[a].id, k)])] for k in range(t[a].values.numel())]
        draft.panel(id, f"{title}: the same numbers in another shape", [t[a], t[b]], f"{b} = {a}", source, code, terms)


def _slope(draft: Draft, layer: nn.Module, t: dict[str, Grid], f: Any) -> Grid:
    """The slope at each x by the rule itself, asked with delta = 1; and the curve."""
    x = t["x"].values.clone().requires_grad_()
    (slope,) = pulled_back(f(x), torch.ones_like(x), x)
    name = "slope" if draft.alone else f"slope_{t['y'].id}"
    if draft.alone:
        line = torch.linspace(*ENDS, dtype=torch.float64)
        label = f"{type(layer).__name__}: the curve"
        draft.more["curve"] = {"label": label, "x": line.tolist(), "y": f(line).tolist(), "points": t["x"].id}
    return draft.grid(name, slope, "slope f'(x)", "other", t["x"].own, "f'" + t["y"].stem.removeprefix("y"))


def _back(draft: Draft, t: dict[str, Grid], slope: Grid, code: dict[str, Any]) -> None:
    draft.panel(
        "local-gradient",
        "Local gradient: delta times the slope",
        [t["delta"], slope, t["dx"]],
        "dx = delta f'(x)",
        "lecture 003, eq. 3.2; lecture 002, eq. 2.3",
        code,
        [[(1, [(t["delta"].id, k), (slope.id, k)])] for k in range(slope.values.numel())],
    )
