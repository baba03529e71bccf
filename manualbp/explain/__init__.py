"""A derivation with real numbers, as a page: each cell of a gradient as the sum of products that it is.

Every number is computed by `manualbp.functional`, forwards and backwards in float64; the products of a convolution are
those of `kernels.reference`. The page computes nothing: it shows the data of its JSON block, `Page.data`:

    version, pages, questions
    files       the source files that the panels name: each one's text by its path
    a page      id, kind, title, note, settings, symbols; each tensor by its name (x, w, b, delta, y, dx, dw, db ...) as
                nested lists; grids, what is drawn; panels. Some have wrong (the gradient by the wrong kernel), curve,
                bars or ways.
    a grid      label, title, shape, values and symbols of its cells, row by row, role. With `of` and `at` its cells are
                those of another grid: at holds their numbers there, or -1 where there is none.
    a panel     shows, its grids, of which the last is its result; over and moving, the grids of a sliding window;
                formula, source; code, the lines that computed it: file, a key of files, the first line, and the last as
                end; factors; linear, whether its steps are sums; steps, one a cell of the result
                Where all maps of a convolution are too many, the grids that are drawn are cut from the tensors, by of
                and at, as are those around them. Then a grid has no values: they stand in the nested list of its name.
                And symbols has those of the drawn cells only, by their numbers, if these are not all.
    a step      cell; terms, whose sum the cell is: [i, j] is factors[0][i] * factors[1][j], with the coefficient in
                front where the panel has `coefficient`; {"c": c, "f": [[grid, i], ...]} is a term of other factors.
                window, the cells of `over` that it sees; moved, the cells of `moving` that lie on these, in the same
                order, where these are not all; chosen, a switch in `over`; formula; say
                Where the panel has slide, a window: the step's window is slide, each number plus shift. Its terms are
                the products of the cells of `over` and `moving` that lie on each other, and those in terms.
"""

from html import escape
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.examples import gallery_page, small
from manualbp.explain.network import kind_of, page_of
from manualbp.explain.pages import html
from manualbp.explain.questions import asked_of
from manualbp.explain.source import files_of

__all__ = ["Page", "explain"]

FUNCTIONS = {
    **dict.fromkeys([torch.sigmoid, T.sigmoid, F.sigmoid], nn.Sigmoid),
    **dict.fromkeys([torch.relu, T.relu, F.relu], nn.ReLU),
    **dict.fromkeys([T.cross_entropy, F.cross_entropy], nn.CrossEntropyLoss),
}


class Page:
    """A page; a notebook shows it. data: its JSON block, as at the head of this file."""

    def __init__(self, pages: list[dict[str, Any]], questions: list[dict[str, Any]]) -> None:
        self.data = {"version": 1, "pages": pages, "questions": questions, "files": files_of(pages)}

    def html(self) -> str:
        """One file that needs nothing else."""
        return html(self.data)

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write it into a new file, or with `force` over an old one. Raises FileExistsError where there is one."""
        path = Path(path)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(self.html())
        return path

    def _repr_html_(self) -> str:
        title, text = (escape(part) for part in (self.data["pages"][0]["title"], self.html()))
        return f'<iframe title="{title}" srcdoc="{text}" style="width: 100%; height: 50em; border: 0"></iframe>'


def explain(
    layer_or_function: Any,
    x: Tensor,
    target: Tensor | None = None,
    *,
    delta: Tensor | None = None,
    symbols: bool = False,
    maps: tuple[int, int] | None = None,
) -> Page:
    """A page that steps through the forward and the backward pass of a layer of torch.nn's or manualbp.nn's.

    layer_or_function: Conv2d, TrueConv2d, MaxPool2d, AvgPool2d, Sigmoid, ReLU, Linear, BatchNorm2d (in training), with
    the weights that it has; CrossEntropyLoss; a Sequential of these, and Flatten; or the functions sigmoid, relu and
    cross_entropy. x: its input, one sample or a batch, images of 12 x 12 pixels at most; computed with in float64 on
    the CPU. target: the classes, int64 [N], for cross-entropy. delta: dL/dy, small numbers where it is not given.
    symbols: letters first, not numbers. maps: of a convolution alone, the output map and the input map, from 0, whose
    steps are shown, its numbers with the figures of a float32; (0, 0) where all maps are too many for a page.
    Nothing of the caller's is changed, and no hook is called.
    Raises ValueError naming what has no page, what does not fit, or what is too large.
    """
    model = layer_or_function
    if not isinstance(model, nn.Module):
        made = FUNCTIONS.get(model) if callable(model) else None
        if made is None:
            name = getattr(model, "__name__", type(model).__name__)
            raise ValueError(f"explain: {name} has no page; give a layer, or sigmoid, relu or cross_entropy")
        model = made()
    for name, t in {"x": x, "target": target, "delta": delta}.items():
        if not (isinstance(t, Tensor) or (t is None and name != "x")):
            raise ValueError(f"explain: {name} is a {type(t).__name__}; it must be a tensor")
    if maps is not None and not (isinstance(maps, tuple) and [*map(type, maps)] == [int, int]):
        raise ValueError(f"explain: maps = {maps!r}; it must be a tuple of two numbers, an output map and an input map")
    kind = "network" if isinstance(model, nn.Sequential) else kind_of(model).name
    title = f"{type(model).__name__} of {' x '.join(map(str, x.shape))}"
    given = small(kind)
    drawn = delta if delta is not None else lambda shape: given("delta", shape)
    own = page_of(model, x, drawn, target, symbols, maps, id="own", kind=kind, title=title, note="")
    return with_questions(own)


def with_questions(own: dict[str, Any]) -> Page:
    """The page, then the examples that answer the questions on its kind."""
    questions = asked_of(own["kind"])
    examples = [gallery_page(id) for id in dict.fromkeys(question["page"] for question in questions)]
    return Page([own, *(page | {"title": f"Example: {page['title']}"} for page in examples)], questions)
