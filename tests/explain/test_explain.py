"""The data of the pages: every step is evaluated from the JSON block alone, and all gradients are PyTorch's."""

import json
import re
from collections import Counter
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from manualbp.explain import Page
from manualbp.explain.command import gallery
from manualbp.explain.convolution import Parts
from manualbp.explain.examples import OPTIONS, example, random
from manualbp.explain.frames import affine
from manualbp.kernels.geometry import convolution
from manualbp.kernels.reference import trilinear

CONV: list[dict[str, Any]] = [
    {},
    {"image": (5, 4), "kernel": (3, 2), "stride": (2, 2), "padding": (1, 1)},
    {"image": (6, 5), "kernel": (2, 3), "stride": (3, 2), "padding": (0, 2)},
    {"image": (5, 5), "dilation": (2, 2)},
    {"image": (6, 7), "kernel": (3, 2), "stride": (2, 1), "padding": (2, 1), "dilation": (2, 3)},
    {"channels": (2, 3), "batch": 2},
    {"channels": (4, 6), "groups": 2, "padding": (1, 0), "image": (3, 2)},
    {"channels": (3, 3), "groups": 3, "stride": (2, 2), "batch": 2},
    {"padding": "same"},
    {"image": (3, 4), "kernel": (3, 3), "padding": "same", "channels": (2, 2)},
    {"image": (5, 5), "kernel": (2, 4), "padding": "same", "dilation": (3, 1)},
    {"image": (4, 4), "kernel": (1, 1), "padding": (2, 2), "stride": (3, 3)},
    {"image": (1, 1), "kernel": (1, 1), "padding": (5, 5), "stride": (20, 20)},
    {"image": (12, 12), "kernel": (5, 5)},
]
MAX: list[dict[str, Any]] = [
    {},
    {"image": (3, 3), "stride": (1, 1)},
    {"image": (5, 4), "kernel": (3, 2), "stride": (2, 1), "padding": (1, 1), "channels": (2,), "batch": 2},
    {"image": (6, 6), "dilation": (2, 2), "stride": (1, 2), "padding": (1, 0)},
]
AVG: list[dict[str, Any]] = [
    {},
    {"image": (4, 5), "kernel": (2, 2), "stride": (1, 2), "padding": (1, 1), "channels": (2,), "batch": 2},
    {"image": (5, 4), "kernel": (3, 2), "ceil_mode": True, "padding": (1, 0), "stride": (2, 3)},
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    *(("sigmoid", o) for o in ({}, {"channels": (2,), "batch": 2})),
    *(("relu", o) for o in ({}, {"image": (2, 4)})),
    *(("linear", o) for o in ({}, {"channels": (4, 3), "batch": 3})),
    *(("cross_entropy", o) for o in ({}, {"channels": (4,), "batch": 3})),
    *(("batch_norm", o) for o in ({}, {"image": (3, 2), "channels": (2,), "batch": 3})),
    *(("block", o) for o in ({}, {"channels": (2, 2), "stride": (1, 1), "padding": (1, 1), "batch": 2})),
    *(("network", o) for o in ({}, {"image": (6, 6), "batch": 2, "channels": (2, 4)})),
]
CASES = [
    *((kind, o) for kind in ("conv2d", "true_conv2d") for o in CONV),
    *(("max_pool2d", o) for o in MAX),
    *(("avg_pool2d", o) for o in AVG),
    *OTHERS,
]


def read(page: dict[str, Any]) -> dict[str, Any]:
    """As whoever opens the file reads it."""
    return json.loads(json.dumps(page, allow_nan=False))


def terms_of(panel: dict[str, Any], step: dict[str, Any]) -> list[tuple[float, list[Any]]]:
    made = []
    for term in step["terms"]:
        if isinstance(term, dict):
            made.append((term["c"], [(name, k) for name, k in term["f"]]))
        else:
            c, cells = (term[0], term[1:]) if panel.get("coefficient") else (1, term)
            made.append((c, [*zip(panel["factors"], cells, strict=True)]))
    return made


def evaluated(page: dict[str, Any], panel: dict[str, Any], step: dict[str, Any]) -> float:
    total = 0.0
    for c, factors in terms_of(panel, step):
        product = c
        for name, k in factors:
            product *= page["grids"][name]["values"][k]
        total += product
    return total


def double(nested: Any) -> Tensor:
    return torch.tensor(nested, dtype=torch.float64)


def flat(nested: Any) -> list[float]:
    return double(nested).flatten().tolist()


def close(a: Any, b: Any) -> bool:
    a, b = (torch.as_tensor(t, dtype=torch.float64) for t in (a, b))
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def sums_of(page: dict[str, Any], panel: dict[str, Any]) -> list[str]:
    """The steps in symbols, without coefficients."""
    symbols = {name: grid["symbols"] for name, grid in page["grids"].items()}
    return [
        " + ".join(" ".join(symbols[name][k] for name, k in factors) for _, factors in terms_of(panel, step))
        for step in panel["steps"]
    ]


def check(page: dict[str, Any]) -> None:
    """All that follows from the data alone."""
    grids = page["grids"]
    for name, grid in grids.items():
        assert len(grid["values"]) == len(grid["symbols"]) == torch.Size(grid["shape"]).numel()
        if "of" in grid:
            inner = grids[grid["of"]]
            assert all(
                (v, s) == (inner["values"][k], inner["symbols"][k]) if k >= 0 else v in (0, None)
                for k, v, s in zip(grid["at"], grid["values"], grid["symbols"], strict=True)
            )
        else:
            assert flat(page[name]) == grid["values"]
            assert len({*grid["symbols"]}) == len(grid["symbols"])
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])
    for panel in page["panels"]:
        assert panel["shows"][-1] == panel["result"]
        assert 0 < panel["code"]["line"] <= panel["code"]["end"]
        formulas = [panel["formula"]["mathml"], *(step["formula"] for step in panel["steps"] if "formula" in step)]
        assert all(ElementTree.fromstring(formula).tag == "math" for formula in formulas)
        values = grids[panel["result"]]["values"]
        assert [step["cell"] for step in panel["steps"]] == [*range(len(values))]
        for step in panel["steps"]:
            assert panel["linear"] or (step["say"] and not step["terms"])
            assert not panel["linear"] or close(evaluated(page, panel, step), values[step["cell"]])
            if panel["moving"]:
                check_window(page, panel, step)


def check_window(page: dict[str, Any], panel: dict[str, Any], step: dict[str, Any]) -> None:
    """The window has the moving grid's size, and the pairs of cells that lie on each other are the terms."""
    over, moving = (page["grids"][panel[name]] for name in ("over", "moving"))
    moved = step.get("moved", [*range(len(moving["values"]))])
    assert len(step["window"]) == len(moved)

    def real(grid: dict[str, Any], name: str, k: int) -> tuple[str, int]:
        return (grid["of"], grid["at"][k]) if "of" in grid else (name, k)

    pairs = []
    for a, b in zip(step["window"], moved, strict=True):
        two = real(over, panel["over"], a), real(moving, panel["moving"], b)
        if two[0][1] >= 0 and two[1][1] >= 0:
            pairs.append(frozenset(two))
    products = [frozenset(factors) for _, factors in terms_of(panel, step) if len(factors) == 2]
    assert Counter(pairs) == Counter(products)


def by_pytorch(kind: str, page: dict[str, Any]) -> dict[str, Tensor]:
    """y and the gradients of torch.nn.functional, of the page's own input, kernel and delta."""
    s = page["settings"]
    at = {n: double(page[n]) for n in ("x", "w", "b", "delta") if page.get(n) is not None}
    leaves: dict[str, Any] = {name: t.requires_grad_() for name, t in at.items() if name != "delta"}
    settings = s.get("stride"), s.get("padding"), s.get("dilation")
    forward: dict[str, Callable[[Any, Any, Any], Tensor]] = {
        "conv2d": lambda x, w, b: T.conv2d(x, w, b, *settings, s["groups"]),
        "true_conv2d": lambda x, w, b: T.conv2d(x, w.flip(2, 3), b, *settings, s["groups"]),
        "max_pool2d": lambda x, w, b: T.max_pool2d(x, s["kernel_size"], *settings, s["ceil_mode"]),
        "avg_pool2d": lambda x, w, b: T.avg_pool2d(x, s["kernel_size"], *settings[:2], s["ceil_mode"]),
        "sigmoid": lambda x, w, b: torch.sigmoid(x),
        "relu": lambda x, w, b: torch.relu(x),
        "linear": T.linear,
        "cross_entropy": lambda x, w, b: T.cross_entropy(x, torch.tensor(page["target"])).reshape(1),
        "batch_norm": lambda x, w, b: T.batch_norm(x, None, None, w, b, True, 0.0, s["eps"]),
    }
    y = forward[kind](*(leaves.get(name) for name in ("x", "w", "b")))
    gradients = torch.autograd.grad(y, [*leaves.values()], at["delta"])
    return {"loss" if kind == "cross_entropy" else "y": y} | {
        f"d{name}": t for name, t in zip(leaves, gradients, strict=True)
    }


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@pytest.mark.parametrize("values", ["small", "random"])
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_every_step_is_its_sum_and_every_number_pytorchs(kind: str, options: dict[str, Any], values: str) -> None:
    page = read(example(kind, random(1) if values == "random" else None, **options))
    check(page)
    if kind not in ("block", "network"):
        for name, t in by_pytorch(kind, page).items():
            assert close(page[name], t.detach()), name


@pytest.mark.parametrize("kind", ["block", "network"])
def test_layers_in_a_row_are_pytorchs(kind: str) -> None:
    page = read(example(kind, random(2), batch=2))
    x = double(page["x"]).requires_grad_()
    own = {name: double(page[name]).requires_grad_() for name in page if re.fullmatch(r"[wb]\d+", name)}
    h = T.max_pool2d(T.conv2d(x, own["w1"], own["b1"], padding=1 if kind == "network" else 0).sigmoid(), 2)
    if kind == "network":
        h = T.max_pool2d(T.conv2d(h, own["w4"], own["b4"], padding=1).sigmoid(), 2).flatten(1)
        z = T.linear(T.linear(h, own["w8"], own["b8"]).sigmoid(), own["w10"], own["b10"])
        h = T.cross_entropy(z, torch.tensor(page["target11"])).reshape(1)
    gradients = torch.autograd.grad(h, [x, *own.values()], double(page["delta"]))
    assert close(page["loss" if kind == "network" else "y"], h.detach())
    order = [int(layer) for panel in page["panels"] for layer in re.findall(r"layer(\d+)-", panel["id"])]
    last = order.index(max(order))
    assert order[:last] == sorted(order[:last])
    assert order[last:] == sorted(order[last:], reverse=True)
    for name, t in zip(["x", *own], gradients, strict=True):
        assert close(page[f"d{name}"], t), name


def test_erratum_of_lecture_002() -> None:
    """The cell of x23 is d12 w11 + d22 w21; all nine are the slide's table, as the digest has it."""
    page = next(p for p in gallery().data["pages"] if p["id"] == "true_conv2d")
    forward, local = (sums_of(page, panel) for panel in page["panels"][:2])
    assert local == [
        *("d11 w22", "d11 w21 + d12 w22", "d12 w21"),
        *("d11 w12 + d21 w22", "d11 w11 + d12 w12 + d21 w21 + d22 w22", "d12 w11 + d22 w21"),
        *("d21 w12", "d21 w11 + d22 w12", "d22 w11"),
    ]
    assert forward[0] == "x11 w22 + x12 w21 + x21 w12 + x22 w11"
    assert page["symbols"]
    assert "d12 w21 + d12 w22" in page["note"]


def test_numbers_of_the_lectures() -> None:
    pages = {page["id"]: page for page in gallery().data["pages"]}
    assert close(pages["avg_pool2d"]["dx"], [[[[0.5 / 9] * 3] * 3]])
    assert pages["avg_pool2d"]["panels"][1]["coef_text"] == "1/9"
    assert close(pages["cross_entropy"]["y"], [[0.5, 0.1, 0.1, 0.2, 0.1]])
    assert close(pages["cross_entropy"]["dx"], [[-0.5, 0.1, 0.1, 0.2, 0.1]])
    switch = pages["max_pool2d"]["dx"][0][0]
    assert switch == [[0.0, 3.0, 0.0], [0.0, -0.5, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("true", [False, True])
@pytest.mark.parametrize("options", CONV, ids=str)
def test_indices_of_the_formula(options: dict[str, Any], true: bool) -> None:
    """The pixel under each tap of each window, counted from 1, is that of the reference."""
    o = OPTIONS["conv2d"] | options
    kernel = o["kernel"]
    g = convolution("conv2d", (1, 1, *o["image"]), (1, 1, *kernel), o["stride"], o["padding"], o["dilation"], 1)
    parts = Parts({}, g, true, {})
    for _, _, i, j, _, h, k, p, q in trilinear(g, 1, 1, 1):
        tap = (kernel[0] - p, kernel[1] - q) if true else (p + 1, q + 1)
        assert parts.pixel(i + 1, j + 1, *tap) == f"{h + 1},{k + 1}"


def test_indices_as_text() -> None:
    cases = [affine((2, "i"), (1, "p"), plus=-3), affine((1, 2), (-1, "p"), plus=1), affine((1, "c"), plus=0)]
    assert cases == ["2i+p-3", "3-p", "c"]
    assert affine((3, 2), plus=-7) == "-1"
    assert affine((-1, "p"), plus=-1) == "-p-1"


def test_gallery() -> None:
    made = gallery()
    assert len(made.html().encode()) < 1_000_000
    pages = {page["id"]: page for page in made.data["pages"]}
    assert {page["kind"] for page in pages.values()} == {*OPTIONS}
    for page in pages.values():
        check(read(page))
    for question in made.data["questions"]:
        page = pages[question["page"]]
        steps = next((p["steps"] for p in page["panels"] if p["id"] == question["panel"]), None)
        assert question["panel"] == "wrong" if steps is None else question["cell"] < len(steps)
    assert len(made.data["questions"]) >= 14


def test_sums_in_the_answers_are_those_of_the_page() -> None:
    """Where an answer writes a cell as a sum, as dx12 = d11 + d12, a panel makes that cell so."""
    made, found = gallery(), 0
    for question in made.data["questions"]:
        page = next(page for page in made.data["pages"] if page["id"] == question["page"])
        sums = {
            f"{page['grids'][panel['result']]['symbols'][step['cell']]} = {text}"
            for panel in page["panels"]
            for step, text in zip(panel["steps"], sums_of(page, panel), strict=True)
        }
        for left, right in re.findall(r"\b(d[xw]\d\d) = ([a-z]\d\d(?:[ +]+[a-z]\d\d)*)", question["answer"]):
            assert f"{left} = {right}" in sums
            found += 1
    assert found >= 4


@pytest.mark.parametrize("kind", ["conv2d", "true_conv2d"])
def test_a_kernel_that_is_not_rotated(kind: str) -> None:
    page = example(kind)
    wrong = page["wrong"]["loss"]
    assert page["dx_wrong"] != page["dx"]
    assert wrong["right"] < wrong["before"] < wrong["wrong"]
    x, w, delta = (double(page[name]) for name in ("x", "w", "delta"))
    turned = w if kind == "conv2d" else w.flip(2, 3)
    assert close(page["dx_wrong"], T.conv2d(T.pad(delta, (1, 1, 1, 1)), turned.transpose(0, 1)))
    assert close(wrong["before"], delta.square().sum() / 2)
    f = T.conv2d(x - wrong["rate"] * double(page["dx_wrong"]), turned)
    assert close(wrong["wrong"], (f - T.conv2d(x, turned) + delta).square().sum() / 2)


def test_three_ways_of_batch_norm_add_up() -> None:
    page = example("batch_norm", random(3), channels=(2,), batch=3)
    ways = [double(page[name]) for name in ("direct", "through_mean", "through_variance")]
    assert close(sum(ways), page["dx"])
    assert close(ways[1][:, 0], ways[1][0, 0, 0, 0].expand(3, 2, 2))
    assert [panel["id"] for panel in page["panels"] if panel["id"] in page["ways"]] == page["ways"]


def test_overlap_ties_and_padding_of_max_pooling() -> None:
    page = example("max_pool2d", image=(3, 3), stride=(1, 1))
    forward, back = page["panels"]
    assert [step["chosen"] for step in forward["steps"]] == [[1], [1], [4], [4]]
    assert "equal" not in forward["steps"][0]["say"]
    assert "2 numbers are equal" in forward["steps"][1]["say"]
    assert back["steps"][1]["terms"] == [[0], [1]]
    page = read(example("max_pool2d", padding=(1, 1)))
    assert page["grids"]["x_framed"]["values"][0] is None


def test_the_files_are_those_that_the_panels_name() -> None:
    for made in (gallery(), manualbp.explain(nn.Conv2d(1, 1, 2), IMAGE)):
        named = {panel["code"]["file"] for page in made.data["pages"] for panel in page["panels"]}
        assert {*made.data["files"]} == named
        for path, text in made.data["files"].items():
            assert text == (Path(manualbp.__file__).parents[1] / path).read_text("utf-8")


def test_code_is_that_of_the_rule() -> None:
    data = gallery().data
    seen = {}
    for page in data["pages"]:
        for panel in page["panels"]:
            code = panel["code"]
            own = data["files"][code["file"]].splitlines()[code["line"] - 1 : code["end"]]
            assert own[0].strip()
            assert own[-1].strip()
            assert len(own) == code["end"] - code["line"] + 1 <= 12
            seen[page["id"], panel["id"]] = "\n".join(own)
    assert "dx = run" in seen["conv2d", "local-gradient"]
    assert "dw = run" in seen["conv2d", "kernel-gradient"]
    assert seen["sigmoid", "forward"].strip().startswith("def forward(")


TWICE = nn.Sigmoid()
LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv2d(2, 3, 2), (1, 2, 3, 3)),
    (nn.Conv2d(2, 4, (2, 3), groups=2, bias=False), (2, 4, 5)),
    (manualbp.nn.Conv2d(1, 1, 3, padding="same"), (1, 1, 4, 4)),
    (manualbp.nn.TrueConv2d(1, 2, 2), (1, 1, 3, 3)),
    (nn.MaxPool2d(2, 1, padding=1), (1, 1, 4, 4)),
    (nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False, padding=1), (1, 1, 4, 4)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 1, 4, 4)),
    (nn.Sigmoid(), (4,)),
    (manualbp.nn.ReLU(), (2, 3)),
    (nn.Linear(3, 2), (3,)),
    (nn.BatchNorm2d(2), (2, 2, 2, 2)),
    (nn.BatchNorm2d(1, affine=False), (2, 1, 2, 2)),
    (nn.Sequential(nn.Conv2d(1, 2, 2), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), nn.AvgPool2d(2)), (2, 1, 5, 5)),
    (nn.Sequential(TWICE, nn.Linear(2, 2), TWICE), (1, 2)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: str(v)[:30])
def test_a_layer_of_ones_own(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Its own weights and output, and nothing of it is changed."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before, random_state = {k: v.clone() for k, v in layer.state_dict().items()}, torch.get_rng_state()
    made = manualbp.explain(layer, x)
    assert all(torch.equal(v, layer.state_dict()[k]) for k, v in before.items())
    assert torch.equal(random_state, torch.get_rng_state())
    page = read(made.data["pages"][0])
    check(page)
    y = double(page["y"])
    assert torch.allclose(y.view(layer(x).shape), layer(x).to(y), atol=1e-5)
    assert page["id"] == "own"


def looked_up(page: dict[str, Any]) -> dict[str, Any]:
    """A page of single maps, with the values, symbols and terms that are to be looked up in it."""
    page = read(page)
    grids = page["grids"]
    for name, grid in grids.items():
        of = grids.get(grid.get("of"))
        given = grid.get("symbols", {})
        known = dict(enumerate(given)) if isinstance(given, list) else {int(k): symbol for k, symbol in given.items()}
        grid["values"] = [of["values"][k] if k >= 0 else 0.0 for k in grid["at"]] if of else flat(page[name])
        grid["symbols"] = [of["symbols"].get(k) for k in grid["at"]] if of else known
        if of:
            grid["symbols"] = dict(enumerate(grid["symbols"]))
    for panel in page["panels"]:
        for step in panel["steps"] if "slide" in panel else ():
            pairs = [
                [(name, k + step["shift"] if name == panel["over"] else moved) for name in panel["factors"]]
                for moved, k in enumerate(panel["slide"])
            ]
            real = [pair for pair in pairs if all(grids[name]["symbols"][k] is not None for name, k in pair)]
            step["terms"] = [*({"c": 1, "f": pair} for pair in real), *step["terms"]]
    return page


SINGLE: list[tuple[nn.Conv2d, tuple[int, ...], tuple[int, int]]] = [
    (nn.Conv2d(2, 3, 2), (1, 2, 3, 3), (2, 1)),
    (nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2), (2, 4, 5, 4), (4, 3)),
    (nn.Conv2d(3, 2, 2, padding="same", dilation=3, bias=False), (1, 3, 6, 5), (1, 0)),
    (nn.Conv2d(3, 3, 3, padding=1, groups=3), (2, 3, 4, 4), (1, 1)),
    (manualbp.nn.TrueConv2d(3, 2, (2, 3), (1, 2), 1), (1, 3, 4, 5), (0, 2)),
    (manualbp.nn.TrueConv2d(4, 4, 2, groups=2, dilation=2), (2, 4, 4, 5), (3, 2)),
]


@pytest.mark.parametrize(("layer", "shape", "maps"), SINGLE, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_steps_of_single_maps_are_those_of_the_page_of_all(
    layer: nn.Conv2d, shape: tuple[int, ...], maps: tuple[int, int]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    whole = read(manualbp.explain(layer, x).data["pages"][0])
    page = looked_up(manualbp.explain(layer, x, maps=maps).data["pages"][0])
    assert [panel["id"] for panel in page["panels"]] == [panel["id"] for panel in whole["panels"]]
    for panel, other in zip(page["panels"], whole["panels"], strict=True):
        assert panel["formula"] == other["formula"]
        result = page["grids"][panel["result"]]
        assert len(panel["steps"]) == len(result["at"])
        for step, text in zip(panel["steps"], sums_of(page, panel), strict=True):
            k = result["at"][step["cell"]]
            assert step["formula"] == other["steps"][k]["formula"]
            assert Counter(text.split(" + ")) == Counter(sums_of(whole, other)[k].split(" + "))
            assert close(evaluated(page, panel, step), result["values"][step["cell"]])
    for name in ("x", "w", "b", "delta", "y", "dx", "dw", "db"):
        assert page[name] is None or torch.allclose(double(page[name]), double(whole[name]), rtol=1e-6, atol=1e-6)


def test_a_large_convolution_shows_the_steps_of_single_maps() -> None:
    """As in ResNet-18's layer1.0: 64 to 64 maps. The sums are over all of them, the lists of the whole layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, x, delta = nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 8, 8), torch.randn(1, 64, 8, 8)
    made = manualbp.explain(layer, x, delta=delta)
    assert len(made.html().encode()) < 2_000_000
    page = looked_up(made.data["pages"][0])
    assert torch.equal(double(page["x"]).float(), x)
    assert torch.equal(double(page["w"]).float(), layer.weight)
    for name, t in by_pytorch("conv2d", page).items():
        assert close(page[name], t.detach()), name
    counts = {}
    for panel in page["panels"]:
        values = page["grids"][panel["result"]]["values"]
        assert all(close(evaluated(page, panel, step), values[step["cell"]]) for step in panel["steps"])
        counts[panel["id"]] = max(len(step["terms"]) for step in panel["steps"])
    assert [len(panel["steps"]) for panel in page["panels"]] == [64, 64, 9, 1]
    assert counts == {"forward": 577, "local-gradient": 576, "kernel-gradient": 64, "bias-gradient": 64}
    assert "output map 1 of 64" in page["note"]


def test_cross_entropy_functions_and_delta() -> None:
    z, t = torch.randn(2, 3), torch.tensor([2, 0])
    for layer in (nn.CrossEntropyLoss(), T.cross_entropy, manualbp.functional.cross_entropy):
        assert close(manualbp.explain(layer, z, t).data["pages"][0]["loss"], [T.cross_entropy(z.double(), t)])
    total = manualbp.explain(nn.CrossEntropyLoss(reduction="sum"), z, t).data["pages"][0]
    check(read(total))
    delta = torch.tensor([2.0, 3.0])
    with torch.no_grad():
        page = manualbp.explain(torch.relu, torch.tensor([1.0, -1.0]), delta=delta, symbols=True).data["pages"][0]
    assert page["dx"] == [2, 0]
    assert page["symbols"]


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


IMAGE = torch.ones(1, 1, 4, 4)
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (nn.Conv1d(1, 1, 2), torch.ones(1, 1, 4), {}, "Conv1d has no page"),
    (nn.Sequential(nn.Conv2d(1, 1, 2), nn.Tanh()), IMAGE, {}, "Tanh has no page"),
    (Own(1, 1, 2), IMAGE, {}, "Own has a forward pass of its own"),
    (nn.Sequential(), IMAGE, {}, "empty"),
    (T.conv2d, IMAGE, {}, "conv2d has no page"),
    (3, IMAGE, {}, "int has no page"),
    (nn.Sigmoid(), [1.0], {}, "x is a list"),
    (nn.Conv2d(1, 1, 2, padding_mode="circular", padding=1), IMAGE, {}, "padding_mode = 'circular'"),
    (nn.Conv2d(1, 1, 2), torch.ones(1, 1, 13, 4), {}, "at most 12 x 12"),
    (nn.Conv2d(1, 1, 13, padding=6), IMAGE, {}, "kernel_size = (13, 13)"),
    (nn.Conv2d(1, 1, 5), IMAGE, {}, "must fit into the padded image"),
    (nn.Conv2d(2, 1, 2), IMAGE, {}, "they must be as many"),
    (nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU()), torch.ones(2, 16, 8, 8), {}, "589,824 cells; a page"),
    (nn.Conv2d(28, 28, 3, padding=1), torch.ones(1, 28, 12, 12), {"maps": (0, 28)}, "maps = (0, 28)"),
    (nn.Conv2d(8, 8, 1, groups=2), torch.ones(1, 8, 2, 2), {"maps": (4, 3)}, "from 0 to 7 in 2 groups"),
    (nn.Conv2d(28, 64, 3, padding=1), torch.ones(1, 28, 12, 12), {}, "for one map windows of 82,944 cells; a"),
    (nn.Conv2d(64, 64, 3), torch.ones(1, 64, 12, 12), {}, "1 to 4,096 numbers in all: take a part of it"),
    (nn.Conv2d(64, 128, 3), torch.ones(1, 64, 4, 4), {}, "a kernel of 73,728 numbers; a page shows at most 36,864"),
    (nn.Conv2d(16, 500, 1), torch.ones(1, 16, 6, 6), {}, "an output of 18,000 numbers; a page shows at most 4,096"),
    (nn.Conv2d(2, 2, 1), torch.ones(1, 2, 2, 2), {"maps": 1}, "maps = 1; it must be a tuple of two numbers"),
    (nn.ReLU(), IMAGE, {"maps": (0, 0)}, "they go with a single Conv2d"),
    (nn.Linear(2, 3), torch.ones(1, 2, 2), {}, "it must be [N, C]"),
    (nn.Linear(300, 200), torch.ones(1, 300), {}, "60,000 products"),
    (nn.Sigmoid(), torch.ones(5000), {}, "1 to 4,000 numbers"),
    (nn.ReLU(), torch.tensor([1.0, float("nan")]), {}, "the input of ReLU has numbers that are not finite"),
    (nn.Sigmoid(), torch.ones(2), {"delta": torch.tensor([1.0, float("inf")])}, "delta has numbers that are not"),
    (nn.BatchNorm2d(1).eval(), IMAGE, {}, "in evaluation"),
    (nn.Flatten(2), IMAGE, {}, "only Flatten()"),
    (nn.Sigmoid(), IMAGE, {"delta": torch.ones(2)}, "delta has shape [2]"),
    (nn.Sigmoid(), IMAGE, {"target": torch.tensor([1])}, "target"),
    (nn.CrossEntropyLoss(), torch.ones(1, 2), {}, "target"),
    (nn.CrossEntropyLoss(), torch.ones(1, 2), {"target": torch.tensor([2])}, "the classes are 0 to 1"),
    (nn.CrossEntropyLoss(), torch.ones(1, 2), {"target": torch.ones(1, 2)}, "int64 classes"),
    (nn.CrossEntropyLoss(label_smoothing=0.1), torch.ones(1, 2), {"target": torch.tensor([1])}, "label_smoothing"),
]


@pytest.mark.parametrize(("layer", "x", "more", "message"), REFUSED, ids=lambda v: str(v)[:25])
def test_refusals_name_what_does_not_fit(layer: Any, x: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        manualbp.explain(layer, x, **more)


def test_names_are_escaped() -> None:
    """A class, and a layer, that would end the script, or the frame of a notebook."""
    evil = '</script><script>alert(1)</script><!--<script>"&amp;{{js}}'
    named = type(evil, (nn.Sigmoid,), {"__module__": "x"})()
    chain = nn.Sequential()
    chain._modules[evil] = named
    chain._modules["again"] = nn.ReLU()
    for model in (named, chain):
        made = manualbp.explain(model, torch.ones(2, 2))
        text = made.html()
        assert "alert(1)</script>" not in text
        assert "<!--<script>" not in text
        assert text.count("</script>") == 2
        block = re.search(r'<script type="application/json" id="manualbp-data">(.*?)</script>', text, re.DOTALL)
        assert block
        assert json.loads(block[1]) == read(made.data)
        frame = made._repr_html_()
        assert frame.count("<") == 2
        srcdoc = re.search(r'srcdoc="([^"]*)"', frame)
        assert srcdoc
        assert unescape(srcdoc[1]) == text
        assert all(
            "alert" not in step.get("formula", "") for p in made.data["pages"][0]["panels"] for step in p["steps"]
        )


def test_save_does_not_overwrite(tmp_path: Path) -> None:
    made = manualbp.explain(nn.ReLU(), torch.ones(2))
    assert isinstance(made, Page)
    path = made.save(tmp_path / "page.html")
    assert path.read_text("utf-8") == made.html()
    path.write_text("old")
    with pytest.raises(FileExistsError):
        made.save(path)
    assert path.read_text() == "old"
    made.save(str(path), force=True)
    assert path.read_text("utf-8") == made.html()
