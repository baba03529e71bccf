"""The parts of a page as data: grids of numbers, and panels of steps, each of them a sum of products of cells.

A cell is named by its letter and its place, counted from 1: `x23` is row 2, column 3. The number of the image and that
of the map stand before it, with commas, unless there is one only: `x2,1,23` is image 2, map 1, row 2, column 3, and
`w2,11` belongs to the second kernel. In a sheet of more than 9 rows or columns these have a comma, too: `x2,1,10,3`.
The letters of a network's layers have the layer's number raised: `y²1,23` is of the second layer's output.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from manualbp.explain import mathml

Term = tuple[float, list[tuple[str, int]]]  # coefficient, and (grid, cell) of each factor

LIMIT = 40_000  # products of a layer, or cells under its windows
# Where single maps are shown, of the input and of the output, and of the kernel: 64 to 64 maps of 8 x 8 under 3 x 3.
NUMBERS, WEIGHTS = 4_096, 36_864
STEMS = {"delta": "d", "loss": "L"}
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def pulled_back(y: Tensor, delta: Tensor, *of: Tensor) -> list[Tensor]:
    """dL/dt of each t, L = <delta, y>, as the backward passes of the rules leave them there."""
    for t in of:
        t.retain_grad()
        t.grad = None
    y.backward(delta, retain_graph=True)
    return [t.grad for t in of if t.grad is not None]


@dataclass
class Grid:
    """A tensor as it is drawn. own: how many of its last axes always have an index; at, of: see `Draft.framed`."""

    id: str
    values: Tensor
    title: str
    role: str
    stem: str
    own: int = 2
    of: "Grid | None" = None
    at: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def cells(self) -> Tensor:
        """The number of each cell, at its place."""
        return torch.arange(self.values.numel()).view(self.shape)

    def indices(self) -> list[str]:
        """The index of each cell, as at the head of this file; what is cut from a tensor has that tensor's."""
        if self.of is not None and self.at is not None:
            own = self.of.indices()
            return [own[k] for k in self.at.flatten().tolist()]
        kept = [a for a, n in enumerate(self.shape) if n > 1 or a >= len(self.shape) - self.own]
        close = [a for a in kept if a >= len(self.shape) - 2]
        together = self.own == 2 and all(self.shape[a] < 10 for a in close)
        made = []
        for place in torch.cartesian_prod(*map(torch.arange, self.shape)).view(-1, len(self.shape)).tolist():
            apart = [str(place[a] + 1) for a in kept if not (together and a in close)]
            made.append(",".join([*apart, "".join(str(place[a] + 1) for a in close)] if together else apart))
        return made

    def symbols(self) -> list[str]:
        return [self.stem + index for index in self.indices()]

    def head(self) -> dict[str, Any]:
        return {"label": self.stem, "title": self.title, "shape": [*self.shape], "role": self.role}

    def data(self) -> dict[str, Any]:
        own = self.head()
        if self.of is None or self.at is None:
            return own | {"values": self.values.flatten().tolist(), "symbols": self.symbols()}
        at, names = self.at.flatten().tolist(), self.of.symbols()
        values = [v if isfinite(v) else None for v in self.values.flatten().tolist()]
        symbols = [
            names[k] if k >= 0 else f"{mathml.MINUS}∞" if v is None else "0" for k, v in zip(at, values, strict=True)
        ]
        return own | {"values": values, "symbols": symbols, "frame": True, "of": self.of.id, "at": at}


@dataclass
class Draft:
    """A page while it is made. In a network a layer's panels have `prefix` before their ids, `name` before titles.

    maps: the output and the input map of which alone the steps are shown; then what can be looked up is not written.
    """

    grids: dict[str, Grid] = field(default_factory=dict)
    panels: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    name: str = ""
    alone: bool = True
    maps: tuple[int, int] | None = None

    def grid(self, id: str, values: Tensor, title: str, role: str, own: int = 2, stem: str = "") -> Grid:
        """A tensor of the library's."""
        made = Grid(id, values.detach(), title, role, stem or STEMS.get(id, id).translate(RAISED), own)
        self.grids[id] = made
        return made

    def framed(self, id: str, of: Grid, at: Tensor, title: str, beside: float = 0.0) -> Grid:
        """Cells of another grid, moved, rotated or with zeros between: at each place the cell's number, or -1.

        It is that grid itself where nothing is moved. `beside` is the value where there is no cell.
        """
        if torch.equal(at, of.cells):
            return of
        flat = torch.cat([of.values.flatten(), of.values.new_tensor([beside])])
        made = Grid(id, flat[at], title, of.role, of.stem, of.own, of, at)
        self.grids[id] = made
        return made

    def panel(
        self,
        id: str,
        title: str,
        shows: Sequence[Grid | None],
        general: str,
        source: str,
        code: dict[str, Any],
        terms: Sequence[list[Term]] | None = None,
        windows: tuple[Grid, Sequence[Tensor]] | None = None,
        moving: tuple[Grid, Sequence[Tensor]] | None = None,
        filled: Sequence[str] | None = None,
        **steps: Sequence[Any],
    ) -> None:
        """A panel with one step a cell of its last grid.

        terms: of each cell; None where it is no sum of products. windows: the grid that is slid over, and the cells
        that each step covers; moving: the grid that slides, and its cells that lie on these, in the same order.
        filled: the formula of each step, else the sum in symbols; steps: other keys of the steps, as `say`.
        """
        grids = [g for g in shows if g is not None]
        result = grids[-1]
        self.grids |= {g.id: g for g in grids}
        given = [term for cell in terms or [] for term in cell]
        factors = _common(tuple(name for name, _ in term) for _, term in given)
        slide: list[int] = []
        if self.maps is not None and windows and moving:
            factors = tuple(g.id for g in sorted([windows[0], moving[0]], key=lambda g: g.role))  # delta, input, kernel
            slide = windows[1][0].flatten().tolist()
        coefficients = {c for c, _ in given}
        scaled = not coefficients <= {1}
        panel = {
            "id": self.prefix + id,
            "title": f"{self.name}: {title}" if self.name else title,
            "shows": [g.id for g in grids],
            "result": result.id,
            "moving": moving[0].id if moving else None,
            "over": windows[0].id if windows else None,
            "formula": {"mathml": mathml.formula(general), "text": general},
            "source": source,
            "code": code,
            "factors": [*factors],
            "linear": terms is not None,
        }
        if scaled:
            panel["coefficient"] = True
        if scaled and len(coefficients) == 1:
            panel["coef_text"] = mathml.fraction(*coefficients)
        summed = {} if filled is not None else {name: self.grids[name] for _, term in given for name, _ in term}
        names = {g.id: [mathml.symbol(g.stem, k) for k in g.indices()] for g in [*summed.values(), result]}
        made = []
        if slide:
            panel["slide"] = slide
        for cell in range(result.values.numel()):
            own = terms[cell] if terms is not None else []
            step: dict[str, Any] = {"cell": cell, "terms": [_written(term, factors, scaled) for term in own]}
            if filled is not None:
                step["formula"] = mathml.formula(filled[cell])
            elif terms is not None:
                sums = [(c, [names[name][k] for name, k in term]) for c, term in own]
                step["formula"] = mathml.filled(names[result.id][cell], sums)
            if windows:
                window = windows[1][cell].flatten().tolist()
                step |= {"shift": window[0] - slide[0]} if slide else {"window": window}
            if moving and not slide and moving[1][cell].numel() < moving[0].values.numel():
                step["moved"] = moving[1][cell].flatten().tolist()
            made.append(step | {key: values[cell] for key, values in steps.items()})
        self.panels.append(panel | {"steps": made})

    def _short(self) -> dict[str, dict[str, Any]]:
        """The grids without the numbers that stand in the nested lists, with the symbols of the drawn cells only."""
        drawn: dict[str, set[int]] = {g.id: set() for g in self._real()}
        made = {}
        for g in self.grids.values():
            made[g.id] = g.head()
            if g.of is not None and g.at is not None:
                at = g.at.flatten().tolist()
                made[g.id] |= {"of": g.of.id, "at": at}
                drawn.get(g.of.id, set()).update(k for k in at if k >= 0)
        for panel in self.panels:
            for name in panel["shows"]:
                drawn.get(name, set()).update(range(self.grids[name].values.numel()))
        for name, cells in drawn.items():
            symbols = self.grids[name].symbols()
            all_drawn = len(cells) == len(symbols)
            made[name]["symbols"] = symbols if all_drawn else {k: symbols[k] for k in sorted(cells)}
        return made

    def _real(self) -> list[Grid]:
        return [g for g in self.grids.values() if g.of is None]

    def page(
        self, id: str, kind: str, title: str, note: str, settings: dict[str, Any], symbols: bool
    ) -> dict[str, Any]:
        """The page as data, its tensors as nested lists, too."""
        head = {"id": id, "kind": kind, "title": title, "note": note, "settings": settings, "symbols": symbols}
        tensors = {g.id: g.values.tolist() for g in self._real()}
        grids = {g.id: g.data() for g in self.grids.values()} if self.maps is None else self._short()
        return head | {"b": None, "db": None} | tensors | {"grids": grids, "panels": self.panels} | self.more


def _common(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The factors that most terms have."""
    counted = Counter(names).most_common(1)
    return counted[0][0] if counted else ()


def _written(term: Term, factors: tuple[str, ...], scaled: bool) -> Any:
    c, cells = term
    if tuple(name for name, _ in cells) != factors:
        return {"c": c, "f": cells}
    return [*([c] if scaled else []), *(k for _, k in cells)]
