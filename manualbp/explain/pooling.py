"""max_pool2d and avg_pool2d: the windows, the switches that the rule kept, and the divisors of the reference."""

from typing import Any

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.data import Draft, Grid, Term
from manualbp.explain.frames import moved, places
from manualbp.explain.source import code_of
from manualbp.functional.pool import MaxPool, WindowMean
from manualbp.kernels import reference
from manualbp.kernels.geometry import Geometry, pooling


def maxima(layer: nn.MaxPool2d, x: Tensor, w: None, b: None) -> Tensor:
    return _both(layer, x)[0]


def means(layer: nn.AvgPool2d, x: Tensor, w: None, b: None) -> Tensor:
    more = layer.count_include_pad, layer.divisor_override
    return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, *more)


def _both(layer: nn.MaxPool2d, x: Tensor) -> Any:
    settings: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    return F.max_pool2d(x, *settings, return_indices=True)


def describe_maximum(draft: Draft, layer: nn.MaxPool2d, t: dict[str, Grid]) -> None:
    """The panels: each window's largest number, and delta at the places of these."""
    x, y, delta, dx = (t[name] for name in ("x", "y", "delta", "dx"))
    g = _geometry(layer, x)
    xp, windows = _windows(draft, x, y, g, -float("inf"))
    plane = x.shape[-2] * x.shape[-1]
    index = _both(layer, x.values)[1].flatten().tolist()
    at = [(n * x.shape[1] + c) * plane + k for (n, c, _, _), k in zip(places(y), index, strict=True)]
    own, values = (xp.cells if xp.at is None else xp.at).flatten(), x.values.flatten().tolist()
    chosen, says = [], []
    for window, k in zip(windows, at, strict=True):
        flat = window.flatten()
        chosen.append(flat[own[flat] == k].tolist())
        equal = sum(values[pixel] == values[k] for pixel in own[flat].tolist() if pixel >= 0)
        tie = (
            f" {equal} numbers are equal: the first of them is the switch, and alone gets the gradient."
            if equal > 1
            else ""
        )
        says.append(f"The largest number of the window is at {x.symbols()[k]}.{tie}")
    draft.panel(
        "forward",
        "Forward: the largest number of each window",
        [xp, y],
        "y[n,c,i,j] = max x[n,c,h,k]",
        "lecture 001, eq. 1.6",
        code_of(MaxPool.forward),
        [[(1, [(x.id, k)])] for k in at],
        (xp, windows),
        chosen=chosen,
        say=says,
    )
    back: list[list[Term]] = [[] for _ in range(x.values.numel())]
    for cell, k in enumerate(at):
        back[k].append((1, [(delta.id, cell)]))
    draft.panel(
        "local-gradient",
        "Local gradient: delta goes to the switch of its window, and adds up there",
        [delta, dx],
        "dx[n,c,h,k] = sum_{i,j} delta[n,c,i,j]",
        "lecture 001, eq. 1.6; lecture 004, eq. 4.8",
        code_of(MaxPool.backward),
        back,
        say=[_said(len(own), "is the switch of") for own in back],
    )


def describe_mean(draft: Draft, layer: nn.AvgPool2d, t: dict[str, Grid]) -> None:
    """The panels: each window's mean, and delta spread over the windows."""
    x, y, delta, dx = (t[name] for name in ("x", "y", "delta", "dx"))
    g = _geometry(layer, x)
    xp, windows = _windows(draft, x, y, g, 0.0)
    at_x = x.cells.tolist()
    forth: list[list[Term]] = [[] for _ in range(y.values.numel())]
    back: list[list[Term]] = [[] for _ in range(x.values.numel())]
    divisors = []
    for cell, (n, c, i, j) in enumerate(places(y)):
        divisors.append(reference.divisor(g, i, j, layer.count_include_pad, layer.divisor_override))
        for h, k, _, _ in reference.taps(g, i, j):
            forth[cell].append((1 / divisors[-1], [(x.id, at_x[n][c][h][k])]))
            back[at_x[n][c][h][k]].append((1 / divisors[-1], [(delta.id, cell)]))
    draft.panel(
        "forward",
        "Forward: the mean of each window",
        [xp, y],
        "y[n,c,i,j] = 1/m sum_{h,k} x[n,c,h,k]",
        "lecture 001, eq. 1.1",
        code_of(WindowMean.forward),
        forth,
        (xp, windows),
        say=[f"The sum over the window is divided by {m}." for m in divisors],
    )
    draft.panel(
        "local-gradient",
        "Local gradient: delta is spread over its window, and adds up",
        [delta, dx],
        "dx[n,c,h,k] = sum_{i,j} 1/m delta[n,c,i,j]",
        "lecture 001, eq. 1.7; lecture 004, eq. 4.8",
        code_of(WindowMean.backward),
        back,
        say=[_said(len(own), "is in") for own in back],
    )


def _geometry(layer: nn.MaxPool2d | nn.AvgPool2d, x: Grid) -> Geometry:
    dilation: Any = getattr(layer, "dilation", 1)
    return pooling("explain", x.shape, layer.kernel_size, layer.stride, layer.padding, dilation, layer.ceil_mode)


def _windows(draft: Draft, x: Grid, y: Grid, g: Geometry, beside: float) -> tuple[Grid, list[Tensor]]:
    """The input in its padding, as wide as the last window that overhangs asks for, and the cells of each window."""
    (A, B), (s, r), (d, e), axes = g.reach, g.stride, g.dilation, range(2)
    size = [max(g.x_size[a] + 2 * g.padding[a], g.stride[a] * (g.y_size[a] - 1) + g.reach[a]) for a in axes]
    how = "the margin counts as minus infinity" if beside else "with the margin that windows reach over"
    xp = draft.framed(
        f"{x.id}_framed", x, moved(x.cells, (g.padding[0], g.padding[1]), (size[0], size[1])), f"input, {how}", beside
    )
    return xp, [xp.cells[n, c, s * i :, r * j :][:A:d, :B:e] for n, c, i, j in places(y)]


def _said(windows: int, what: str) -> str:
    return f"The pixel {what} {windows} window{'' if windows == 1 else 's'}."
