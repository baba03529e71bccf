"""conv2d and true_conv2d: the index tuples of one sum, `reference.trilinear`, grouped by y, by x and by w.

The windows need no sums: the cells of each tensor are numbered, and these numbers are padded, spread and rotated as the
lecture's pictures are.
"""

from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.classes import bias_gradient
from manualbp.explain.data import LIMIT, NUMBERS, WEIGHTS, Draft, Grid, Term
from manualbp.explain.frames import affine, moved, named, places, spread
from manualbp.explain.source import code_of
from manualbp.functional.conv import Correlate
from manualbp.kernels import reference
from manualbp.kernels.geometry import Geometry, convolution
from manualbp.nn import TrueConv2d


def forward(layer: nn.Conv2d, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    if layer.padding_mode != "zeros":
        raise ValueError(f"explain: padding_mode = {layer.padding_mode!r}; it must be 'zeros'")
    f = F.convolve if isinstance(layer, TrueConv2d) else F.conv2d
    return f(x, w, b, layer.stride, layer.padding, layer.dilation, layer.groups)  # pyright: ignore[reportArgumentType]


def geometry_of(layer: nn.Conv2d, x: Tensor, w: Tensor) -> Geometry:
    settings: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return convolution("conv2d", x.shape, w.shape, *settings)


def shown_maps(layer: nn.Conv2d, x: Tensor, maps: tuple[int, int] | None) -> tuple[int, int] | None:
    """The output map and the input map that alone are shown, where `maps` asks for them, or all are too many."""
    w = layer.weight
    g, (O, per) = geometry_of(layer, x, w), w.shape[:2]
    o_per, cells = O // g.groups, _cells_under(g, x, w)
    if maps is None and cells <= LIMIT:
        return None
    _refuse(w.numel(), WEIGHTS, x, w, "a kernel of", "numbers")
    _refuse(cells // (O * per) * max(per, o_per), LIMIT, x, w, "for one map windows of", "cells")
    _refuse(x.shape[0] * O * prod(g.y_size), NUMBERS, x, w, "an output of", "numbers")
    o, c = (0, 0) if maps is None else maps
    if not (0 <= o < O and 0 <= c - o // o_per * per < per):
        raise ValueError(
            f"explain: maps = {(o, c)}; they must be an output map from 0 to {O - 1} and an input map that it reads, "
            f"from 0 to {x.shape[1] - 1}{'' if g.groups == 1 else f' in {g.groups} groups'}"
        )
    return o, c


def _cells_under(g: Geometry, x: Tensor, w: Tensor) -> int:
    """The cells under all windows, of whichever pass has the more."""
    return x.shape[0] * w.shape[0] * w.shape[1] * prod(g.reach) * max(prod(g.x_size), prod(g.y_size))


def _refuse(count: int, most: int, x: Tensor, w: Tensor, what: str, unit: str) -> None:
    if count > most:
        raise ValueError(
            f"explain: conv2d of an input {[*x.shape]} and a kernel {[*w.shape]} has {what} {count:,} {unit}; a page "
            f"shows at most {most:,}: take fewer maps, images or pixels"
        )


class Parts(NamedTuple):
    """What the panels of a convolution are made of; true: a true convolution, whose kernel is rotated forwards.

    Where t holds single maps, whole is of all maps, and gives them their numbers.
    """

    t: dict[str, Grid]
    g: Geometry
    true: bool
    terms: dict[str, list[list[Term]]]
    whole: "Parts | None" = None

    @property
    def map(self) -> str:
        """The input map that w[o, c] reads; with groups c counts from f, the first map of the group."""
        return "c" if self.g.groups == 1 else "f+c"

    def first(self, o: int) -> int:
        """The maps before those of the group of output map o."""
        O, per = self.t["w"].shape[:2]
        return o // (O // self.g.groups) * per

    def turned(self, cells: Tensor) -> Tensor:
        return cells.flip(-2, -1) if self.true else cells

    def pixel(self, *letters: int | str) -> str:
        """The pixel under tap (p, q) of window (i, j), each a letter or a number."""
        g, axes = self.g, zip(letters[:2], letters[2:], strict=True)
        made = []
        for (i, p), s, d, pad, P in zip(axes, g.stride, g.dilation, g.padding, g.w_size, strict=True):
            tap = (-d, p) if self.true else (d, p)
            made.append(affine((s, i), tap, plus=1 - s - d - pad + (d * (P + 1) if self.true else 0)))
        return ",".join(made)


def describe(draft: Draft, layer: nn.Conv2d, t: dict[str, Grid]) -> None:
    """The panels: forward, local gradient, kernel gradient, and the bias's."""
    g, true = geometry_of(layer, t["x"].values, t["w"].values), isinstance(layer, TrueConv2d)
    if draft.maps is None:
        x, w = t["x"].values, t["w"].values
        _refuse(_cells_under(g, x, w), LIMIT, x, w, "windows of", "cells")
        forth = back = kernel = Parts(t, g, true, _terms(t, g, true))
    else:
        forth, back, kernel = _single_maps(draft, Parts(t, g, true, {}), *draft.maps)
    _over_the_input(draft, forth)
    _over_delta(draft, back)
    _delta_over_the_input(draft, kernel)
    bias_gradient(draft, kernel.t)


def _single_maps(draft: Draft, whole: Parts, o: int, c: int) -> list[Parts]:
    """What makes output map o, the gradient of input map c, and that of the kernel between them.

    Their products have no lists: they are the cells that lie on each other. Only a bias is beside these.
    """
    t, first, (O, per) = whole.t, whole.first(o), whole.t["w"].shape[:2]
    o_per = O // whole.g.groups
    outputs, inputs = slice(o // o_per * o_per, (o // o_per + 1) * o_per), slice(first, first + per)
    own, read, sheet = slice(o, o + 1), slice(c, c + 1), slice(c - first, c - first + 1)
    every = slice(None)
    cut = {
        "forward": {"x": (every, inputs), "w": (own,), "b": (own,), "y": (every, own)},
        "local": {"delta": (every, outputs), "w": (outputs, sheet), "dx": (every, read)},
        "kernel": {"x": (every, read), "delta": (every, own), "dw": (own, sheet), "db": (own,)},
    }
    made = []
    for name, places_of in cut.items():
        single = {
            role: draft.framed(f"{t[role].id}_{name}", t[role], t[role].cells[place], t[role].title)
            for role, place in places_of.items()
            if role in t
        }
        bias: list[Term] = [(1, [(single["b"].id, 0)])] if "b" in single else []
        terms = {role: [bias] * grid.values.numel() for role, grid in single.items() if role in ("y", "dx", "dw")}
        made.append(Parts(single, replace(whole.g, groups=1), whole.true, terms, whole))
    return made


def _padded(draft: Draft, parts: Parts) -> Grid:
    g, x = parts.g, parts.t["x"]
    size = g.x_size[0] + 2 * g.padding[0], g.x_size[1] + 2 * g.padding[1]
    at = moved(x.cells, (g.padding[0], g.padding[1]), size)
    return draft.framed(f"{x.id}_padded", x, at, "input, padded with zeros")


def _over_the_input(draft: Draft, parts: Parts) -> None:
    (t, g, true, terms, _), y, xp, whole = parts, parts.t["y"], _padded(draft, parts), parts.whole or parts
    (A, B), (s, r), per = g.reach, g.stride, t["w"].shape[1]
    slid = _kernel(draft, parts, "slid", parts.turned(t["w"].cells), true)
    cells, kernel = xp.cells, slid.cells

    def formula(c: str, n: Any, o: Any, i: Any, j: Any) -> str:
        bias = f" + b[{o}]" if "b" in t else ""
        return f"y[{n},{o},{i},{j}] = sum_{{c,p,q}} x[{n},{c},{parts.pixel(i, j, 'p', 'q')}] w[{o},c,p,q]{bias}"

    draft.panel(
        "forward",
        f"Forward: the {'rotated ' if true else ''}kernel slides over the input",
        [xp, slid, t.get("b"), y],
        formula(whole.map, *"noij"),
        "lecture 002, eq. 2.1 and 2.2" if true else "lecture 002, eq. 2.2, without the rotation; lecture 001, eq. 1.1",
        code_of(F.convolve, "correlated(") if true else code_of(Correlate.forward),
        terms["y"],
        (xp, [cells[n, (c := parts.first(o)) : c + per, s * i :, r * j :][:, :A, :B] for n, o, i, j in places(y)]),
        (slid, [kernel[o] for _, o, _, _ in places(y)]),
        [formula(affine((1, "c"), plus=whole.first(place[1])), *(k + 1 for k in place)) for place in named(y)],
    )


def _over_delta(draft: Draft, parts: Parts) -> None:
    (t, g, true, terms, _), dx, delta, whole = parts, parts.t["dx"], parts.t["delta"], parts.whole or parts
    (A, B), (H, W), per, o_per = g.reach, dx.shape[-2:], t["w"].shape[1], t["w"].shape[0] // g.groups
    start, gaps = (A - 1 - g.padding[0], B - 1 - g.padding[1]), " and between" if max(g.stride) > 1 else ""
    at = moved(spread(delta.cells, g.stride), start, (H + A - 1, W + B - 1))
    padded = draft.framed(f"{delta.id}_padded", delta, at, f"delta, zeros around{gaps} it")
    back = _kernel(draft, parts, "as_it_is" if true else "rotated", parts.turned(t["w"].cells).flip(-2, -1), not true)
    pixel = parts.pixel(*"ijpq")

    def formula(of: Any, n: Any, c: Any, h: Any, k: Any) -> str:
        return f"dx[{n},{c},{h},{k}] = sum_{{o,i,j,p,q}} delta[{n},o,i,j] w[o,{of},p,q], ({h},{k}) = ({pixel})"

    cells, kernel, groups = padded.cells, back.cells, [c // per * o_per for c in range(dx.shape[1])]
    draft.panel(
        "local-gradient",
        f"Local gradient: the {'kernel as it stands' if true else 'rotated kernel'} slides over the zero-padded delta",
        [padded, back, dx],
        formula("c", "n", whole.map, "h", "k"),
        "lecture 002, eq. 2.3; lecture 001, eq. 1.4; lecture 004, eq. 4.6",
        code_of(Correlate.backward, "dx = run"),
        terms["dx"],
        (padded, [cells[n, (o := groups[c]) : o + o_per, h:, k:][:, :A, :B] for n, c, h, k in places(dx)]),
        (back, [kernel[(o := groups[c]) : o + o_per, c % per] for _, c, _, _ in places(dx)]),
        [formula(place[1] % whole.t["w"].shape[1] + 1, *(k + 1 for k in place)) for place in named(dx)],
    )


def _delta_over_the_input(draft: Draft, parts: Parts) -> None:
    (t, g, true, terms, _), dw, xp, whole = parts, parts.t["dw"], _padded(draft, parts), parts.whole or parts
    delta = t["delta"]
    (P, Q), (I, J), (s, r), (d, e) = g.w_size, g.y_size, g.stride, g.dilation
    wide = draft.framed(f"{delta.id}_spread", delta, spread(delta.cells, g.stride), "delta, zeros between")
    turned = [(o, c, *((P - 1 - p, Q - 1 - q) if true else (p, q))) for o, c, p, q in places(dw)]
    taps = [(o, c if parts.whole else parts.first(o) + c, p, q) for o, c, p, q in turned]
    cells, slid = xp.cells, wide.cells

    def formula(of: Any, o: Any, c: Any, p: Any, q: Any) -> str:
        return f"dw[{o},{c},{p},{q}] = sum_{{n,i,j}} delta[n,{o},i,j] x[n,{of},{parts.pixel('i', 'j', p, q)}]"

    draft.panel(
        "kernel-gradient",
        "Kernel gradient: delta slides over the input",
        [xp, wide, dw],
        formula(whole.map, *"ocpq"),
        "lecture 002, eq. 2.4; lecture 001, eq. 1.5; lecture 004, eq. 4.7",
        code_of(Correlate.backward, "dw = run"),
        terms["dw"],
        (xp, [cells[:, c, d * p :, e * q :][:, : s * (I - 1) + 1, : r * (J - 1) + 1] for _, c, p, q in taps]),
        (wide, [slid[:, o] for o, _, _, _ in taps]),
        [formula(whole.first(place[0]) + place[1] + 1, *(k + 1 for k in place)) for place in named(dw)],
    )


def _kernel(draft: Draft, parts: Parts, name: str, cells: Tensor, rotated: bool) -> Grid:
    """The kernel as it slides."""
    how = ", rotated by 180 degrees" if rotated else ""
    gaps = ", zeros between its numbers" if max(parts.g.dilation) > 1 else ""
    w = parts.t["w"]
    return draft.framed(f"{w.id}_{name}", w, spread(cells, parts.g.dilation), f"kernel{how}{gaps}")


def _terms(t: dict[str, Grid], g: Geometry, true: bool) -> dict[str, list[list[Term]]]:
    """The products of each y, dx and dw: three groupings of the same set."""
    x, w, delta, (H, W), (P, Q) = t["x"], t["w"], t["delta"], t["x"].shape[-2:], t["w"].shape[-2:]
    at_x, at_w, at_d = (grid.cells.tolist() for grid in (x, w, delta))
    made: dict[str, list[list[Term]]] = {
        name: [[] for _ in range(t[name].values.numel())] for name in ("y", "dx", "dw")
    }
    for n, o, i, j, c, h, k, p, q in reference.trilinear(g, x.shape[0], x.shape[1], w.shape[0]):
        if h < H and k < W:  # else it is the odd zero of "same" padding
            tap = (P - 1 - p, Q - 1 - q) if true else (p, q)
            a, b, d = at_x[n][c][h][k], at_w[o][c % w.shape[1]][tap[0]][tap[1]], at_d[n][o][i][j]
            made["y"][d].append((1, [(x.id, a), (w.id, b)]))
            made["dx"][a].append((1, [(delta.id, d), (w.id, b)]))
            made["dw"][b].append((1, [(delta.id, d), (x.id, a)]))
    for cell, (_, o, *_) in enumerate(places(t["y"]) if "b" in t else ()):
        made["y"][cell].append((1, [(t["b"].id, o)]))
    return made
