"""The pages in a browser: every number that is shown, stepping, keys, questions, and who reads with other means.

The numbers on the screen are read back as text. They are shown with three figures, so they must be the data's up to
half a unit of the third.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor

import manualbp.functional as F
from manualbp import explain
from manualbp.explain.pages import html

AXE = Path(__file__).with_name("axe.min.js")
MATH = str.maketrans({"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "*"})
NAMES = re.compile(r"[^\W\d][\w',]*")
WIDTHS = {"wide": (1280, 800), "phone": (390, 844)}


@pytest.fixture
def tab(browser: Any, gallery: Path) -> Iterator[Any]:
    """The gallery in a tab that must stay silent and ask for nothing."""
    yield from opened(browser, gallery, "wide", "light")


def opened(browser: Any, file: Path, width: str, scheme: str) -> Iterator[Any]:
    wide, high = WIDTHS[width]
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme, offline=True)
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert said == []
    assert [url for url in asked if not url.startswith((file.as_uri(), "data:"))] == []
    context.close()


def data(tab: Any) -> dict[str, Any]:
    return json.loads(tab.locator("#manualbp-data").text_content())


def open_page(tab: Any, page: dict[str, Any]) -> None:
    tab.evaluate("id => { location.hash = id }", page["id"])
    tab.wait_for_function("title => document.querySelector('h1')?.textContent === title", arg=page["title"])
    tab.get_by_role("button", name="Numbers", exact=True).click()


def close(shown: str, value: float) -> bool:
    """Whether the shown number is the value, to three figures."""
    return abs(float(shown.translate(MATH)) - value) <= 5.01e-3 * abs(value) + 1e-12


# Steps a panel from its first step to its last, and returns what it shows at each.
WALK = """panel => {
  const all = selector => [...panel.querySelectorAll(selector)];
  const text = selector => panel.querySelector(selector)?.textContent ?? null;
  const cells = selector => all(selector).map(cell => [cell.dataset.grid, Number(cell.dataset.index)]);
  const [back, forth] = all('.controls button'), slider = panel.querySelector('.controls input');
  slider.value = 0;
  slider.dispatchEvent(new Event('input'));
  const seen = [];
  for (let step = 0; step <= Number(slider.max); step++) {
    seen.push({
      count: text('.controls output'), symbols: text('.sum .symbols'), numbers: text('.sum .numbers'),
      say: text('.sum .say:last-child'), live: document.getElementById('live').textContent,
      now: cells('td.now'), lit: cells('td.lit'), window: cells('td.window'), chosen: cells('td.chosen'),
      by: all('.value[data-by]').map(value => [
        value.parentNode.dataset.grid, Number(value.parentNode.dataset.index), value.dataset.by]),
    });
    forth.click();
  }
  return seen;
}"""


def terms_of(panel: dict[str, Any], step: dict[str, Any]) -> list[tuple[float, list[tuple[str, int]]]]:
    made = []
    for term in step["terms"]:
        if isinstance(term, dict):
            made.append((term.get("c", 1), [(name, k) for name, k in term["f"]]))
        else:
            scale, *cells = term if panel.get("coefficient") else (1, *term)
            made.append((scale, list(zip(panel["factors"], cells, strict=False))))
    return made


def key(page: dict[str, Any], name: str, k: int) -> tuple[str, int] | None:
    """The cell that a cell of a padded or rotated grid is."""
    while "of" in page["grids"][name]:
        k, name = page["grids"][name]["at"][k], page["grids"][name]["of"]
        if k < 0:
            return None
    return name, k


def check_step(page: dict[str, Any], panel: dict[str, Any], step: dict[str, Any], seen: dict[str, Any]) -> None:
    grids, cell = page["grids"], step["cell"]
    result, terms = grids[panel["result"]], terms_of(panel, step)
    *sides, shown = re.split("[=≈]", seen["numbers"])
    assert close(shown, result["values"][cell])
    assert seen["now"] == [[panel["result"], cell]]
    assert seen["live"].startswith(f"{panel['title']}. Step {seen['count'].replace(' / ', ' of ')}.")
    window = [k for name, k in seen["window"] if name == panel.get("over")]
    assert sorted(window) == sorted(set(step.get("window", [])))
    assert [k for name, k in seen["chosen"] if name == panel.get("over")] == sorted(step.get("chosen", []))
    touched = {key(page, name, k) for _, cells in terms for name, k in cells}
    assert {key(page, *cell) for cell in map(tuple, seen["lit"])} == {k for k in touched if drawn(page, panel, k)}
    for name, k, by in seen["by"]:  # the other factor, in the window
        others = [
            cell for _, cells in terms if key(page, name, k) in cells for cell in cells if cell != key(page, name, k)
        ]
        for text, (n, c) in zip(by[1:].split(by[0]), others, strict=True):
            assert close(text, grids[n]["values"][c])
    if not terms:
        return
    *_, numbers = sides
    factors = [(name, k) for _, cells in terms for name, k in cells]
    names = [grids[name]["symbols"][k] for name, k in factors]
    assert NAMES.findall(seen["symbols"].split("=", 1)[1]) == names
    # The products as they stand, calculated: three figures a factor.
    size = sum(
        abs(c) * abs(torch.tensor([grids[name]["values"][k] for name, k in cells]).prod().item()) for c, cells in terms
    )
    calculated = eval(re.sub(r"(?<=[\d)])\s*\(", "*(", numbers.translate(MATH)))
    assert abs(calculated - result["values"][cell]) <= 0.02 * size + 1e-9


def drawn(page: dict[str, Any], panel: dict[str, Any], cell: tuple[str, int] | None) -> bool:
    return cell is not None and any(
        key(page, name, k) == cell for name in panel["shows"] for k in range(len(page["grids"][name]["values"]))
    )


def test_every_step_of_every_page_shows_the_numbers_of_the_data(tab: Any) -> None:
    for page in data(tab)["pages"]:
        open_page(tab, page)
        cells = "cells => cells.map(c => [c.dataset.grid, Number(c.dataset.index), c.firstChild.textContent])"
        for name, k, shown in tab.locator("td[data-grid]").evaluate_all(cells):
            value = page["grids"][name]["values"][k]
            assert shown == "\N{MINUS SIGN}\N{INFINITY}" if value is None else close(shown, value), (
                page["id"],
                name,
                k,
            )
        for panel in page["panels"]:
            seen = tab.locator(f"#panel-{panel['id']}").evaluate(WALK)
            assert [each["count"] for each in seen] == [f"{s + 1} / {len(seen)}" for s in range(len(panel["steps"]))]
            for step, each in zip(panel["steps"], seen, strict=True):
                check_step(page, panel, step, each)


def shown_grid(tab: Any, panel: str, name: str) -> Tensor:
    """The numbers of a grid as they stand on the screen."""
    cells = tab.locator(f"#panel-{panel} td[data-grid='{name}'] .value").all_text_contents()
    return torch.tensor([float(text.translate(MATH)) for text in cells], dtype=torch.float64)


def test_the_shown_gradients_of_a_convolution_are_those_of_the_library(tab: Any) -> None:
    pages = [page for page in data(tab)["pages"] if page["kind"] == "conv2d"]
    assert pages
    for page in pages:
        open_page(tab, page)
        x, w, delta = (
            torch.tensor(page[name], dtype=torch.float64, requires_grad=True) for name in ("x", "w", "delta")
        )
        b = torch.tensor(page["b"], dtype=torch.float64) if page["b"] is not None else None
        how = page["settings"]
        y = F.conv2d(x, w, b, how["stride"], how["padding"], how["dilation"], how["groups"])
        dx, dw = torch.autograd.grad(y, (x, w), delta)
        for panel, name, expected in (("forward", "y", y), ("local-gradient", "dx", dx), ("kernel-gradient", "dw", dw)):
            torch.testing.assert_close(
                shown_grid(tab, panel, name), expected.detach().flatten(), rtol=5.01e-3, atol=1e-9
            )


def test_keys_step_play_and_walk(tab: Any) -> None:
    page = data(tab)["pages"][0]
    open_page(tab, page)
    tab.locator("h1").click()
    panel = page["panels"][0]
    last, count = len(panel["steps"]), tab.locator(f"#panel-{panel['id']} output")
    for pressed, step in (
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 1),
    ):
        tab.keyboard.press(pressed)
        assert count.text_content() == f"{step} / {last}"
    assert tab.locator("#live").text_content().startswith(f"{panel['title']}. Step 1 of {last}.")
    tab.locator("h1").click()
    tab.keyboard.press(" ")
    tab.wait_for_function(
        "id => document.querySelector(`#panel-${id} output`).textContent.startsWith('2 ')", arg=panel["id"]
    )
    tab.keyboard.press(" ")
    assert tab.locator(f"#panel-{panel['id']} .controls button").nth(2).text_content() == "Play"

    # By tab to the first cell of a grid, by arrows through its cells: each is opened as its sum.
    focused = "[document.activeElement.dataset.grid, document.activeElement.dataset.index]"
    first = panel["shows"][0]
    for _ in range(100):
        tab.keyboard.press("Tab")
        if tab.evaluate(focused) == [first, "0"]:
            break
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    columns = page["grids"][first]["shape"][-1]
    assert tab.evaluate(focused) == [first, str(columns + 1)]
    tab.keyboard.press("End")
    assert tab.evaluate(focused) == [first, str(len(page["grids"][first]["values"]) - 1)]
    tab.keyboard.press("Tab")
    assert tab.evaluate(focused) == [panel["shows"][1], "0"]


def test_a_cell_opens_as_what_it_is_made_of_and_what_it_takes_part_in(tab: Any) -> None:
    page = next(page for page in data(tab)["pages"] if page["kind"] == "conv2d")
    open_page(tab, page)
    for name in ("x", "w", "delta", "y", "dx", "dw"):
        for k in {0, len(page["grids"][name]["values"]) // 2}:
            cell = tab.locator(f"td[data-key='{name}:{k}']").first
            cell.hover()
            opened, own = tab.locator("#cell"), page["grids"][name]["symbols"][k]
            assert opened.locator("h2").text_content().startswith(f"{own} = ")
            uses = [
                (panel, step["cell"])
                for panel in page["panels"]
                for step in panel["steps"]
                for _, cells in terms_of(panel, step)
                if (name, k) in [key(page, *each) for each in cells]
            ]
            made = [panel for panel in page["panels"] if panel["result"] == name]
            sums = opened.locator("h3 + ul button > span:first-child").all_text_contents()
            for panel, text in zip(made, sums, strict=True):
                terms = terms_of(panel, panel["steps"][k])
                assert NAMES.findall(text) == [page["grids"][n]["symbols"][c] for _, cells in terms for n, c in cells]
            assert opened.locator("li button").count() == len(uses) + len(made)
            expected = [page["grids"][panel["result"]]["symbols"][c] for panel, c in uses]
            shown = opened.locator("h4 + ul button span:first-child").all_text_contents()
            assert [text.split(" in ")[1] for text in shown if " in " in text] == expected
            label = cell.get_attribute("aria-label")
            assert label.startswith(f"{own}, ")
            assert not made or " equals " in label
    # A click keeps it, and an entry goes to its step.
    tab.locator("td[data-key='w:0']").first.click()
    tab.locator("h1").hover()
    assert tab.locator("#cell h2").text_content().startswith(page["grids"]["w"]["symbols"][0])
    tab.locator("#cell h4 + ul button").last.click()
    assert ["w", 0] in tab.locator(".panel.active td.lit").evaluate_all(
        "cells => cells.map(c => c.dataset.key.split(':')).map(([n, k]) => [n, Number(k)])"
    )


def test_each_question_opens_its_example_and_is_answered(tab: Any) -> None:
    known = data(tab)
    pages = {page["id"]: page for page in known["pages"]}
    buttons = tab.locator("#questions button")
    assert buttons.all_text_contents() == [each["question"] for each in known["questions"]]
    for k, each in enumerate(known["questions"]):
        page = pages[each["page"]]
        buttons.nth(k).click()
        assert tab.locator("h1").text_content() == page["title"]
        assert tab.locator(".answer p").all_text_contents() == each["answer"].split("\n\n")
        assert tab.locator(".answer").is_visible()
        panel = next((panel for panel in page["panels"] if panel["id"] == each["panel"]), None)
        if panel is not None and each.get("cell") is not None:
            now = tab.locator(f".panel.active#panel-{panel['id']} td.now")
            assert now.get_attribute("data-index") == str(each["cell"])


def opened_code(tab: Any, page: dict[str, Any], panel: dict[str, Any]) -> list[str]:
    """The marked lines, which have the focus, are on the screen, and are those that the panel names."""
    code, mark = panel["code"], tab.locator(".files mark")
    tab.wait_for_function("hash => location.hash === hash", arg=f"#{page['id']}/{panel['id']}")
    assert tab.locator(".files details[open] summary").all_text_contents() == [code["file"]]
    assert mark.evaluate("mark => mark === document.activeElement")
    assert mark.evaluate("mark => mark.getBoundingClientRect().bottom <= innerHeight")
    assert mark.evaluate("mark => mark.getBoundingClientRect().top >= 0")
    lines = ".files details[open] .line"
    places = tab.locator(lines).evaluate_all("lines => lines.map((line, k) => line.closest('mark') ? k + 1 : 0)")
    assert [k for k in places if k] == [*range(code["line"], code["end"] + 1)]
    number = "line => [getComputedStyle(line, '::before').content, getComputedStyle(line).counterIncrement]"
    assert tab.locator(lines).first.evaluate(number) == ["counter(line)", "line 1"]
    return mark.locator(".line").all_text_contents()


def test_the_code_of_every_panel_opens_at_its_lines(tab: Any) -> None:
    known = data(tab)
    for page in known["pages"]:
        open_page(tab, page)
        for panel in page["panels"]:
            code, own = panel["code"], tab.locator(f"#panel-{panel['id']} .code")
            lines = known["files"][code["file"]].splitlines(keepends=True)[code["line"] - 1 : code["end"]]
            assert own.locator("pre").text_content().strip() == dedent("".join(lines)).strip()
            where = f"lines {code['line']}\N{EN DASH}{code['end']}" if len(lines) > 1 else f"line {code['line']}"
            assert own.locator("a").text_content() == f"{code['file']}, {where}"
            own.locator("a").click()
            assert opened_code(tab, page, panel) == lines
        named = dict.fromkeys(panel["code"]["file"] for panel in page["panels"])
        assert tab.locator(".files summary").all_text_contents() == [*named]
    first = tab.locator(".files details").first
    first.locator("mark + a").evaluate_all("links => links.forEach(link => link.remove())")
    assert first.locator("code").text_content() == known["files"][first.locator("summary").text_content()]


def test_from_the_code_back_to_the_panel(tab: Any) -> None:
    page = next(page for page in data(tab)["pages"] if page["id"] == "conv2d-stride")
    open_page(tab, page)
    panel = page["panels"][1]
    own = tab.locator(f"#panel-{panel['id']} .code a")
    focused = "link => link === document.activeElement"
    own.focus()
    tab.keyboard.press("Enter")
    opened_code(tab, page, panel)
    tab.keyboard.press("Tab")  # the link back is the next thing
    tab.keyboard.press("Enter")
    tab.wait_for_function("id => location.hash === `#${id}`", arg=page["id"])
    assert own.evaluate(focused)
    own.click()
    opened_code(tab, page, panel)
    tab.go_back()
    tab.wait_for_function("id => location.hash === `#${id}`", arg=page["id"])
    assert own.evaluate(focused)
    tab.go_forward()
    opened_code(tab, page, panel)
    tab.reload()
    assert tab.locator("h1").text_content() == page["title"]
    opened_code(tab, page, panel)
    tab.emulate_media(media="print")
    assert not tab.locator(".files").is_visible()


def test_the_code_opens_in_the_frame_of_a_notebook(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "notebook.html"
    made = explain(torch.relu, torch.tensor([1.0, -1.0]))
    file.write_text(f"<!doctype html><p style='height: 90em'></p>{made._repr_html_()}", "utf-8")
    for outer in opened(browser, file, "wide", "light"):
        tab = outer.frames[1]
        page = data(tab)["pages"][0]
        tab.locator(".code a").last.click()
        opened_code(tab, page, page["panels"][-1])
        tab.get_by_role("link", name="Back to").click()
        assert tab.locator(".code a").last.evaluate("link => link === document.activeElement")
        assert tab.url.startswith("about:srcdoc")
        assert outer.url == file.as_uri()


@pytest.mark.parametrize(
    ("width", "scheme", "options"),
    [
        ("wide", "light", {}),
        ("phone", "light", {"rules": {"color-contrast": {"enabled": False}}}),
        ("wide", "dark", {"runOnly": ["color-contrast"]}),
    ],
    ids=["wide", "phone", "dark"],
)
def test_axe_finds_nothing_and_nothing_stands_out_of_the_page(
    browser: Any, gallery: Path, width: str, scheme: str, options: dict[str, Any]
) -> None:
    """All pages are read wide and in the light. On a phone the places are others, in the dark the colours; there one
    page of a kind does, and the network has the other kinds' panels."""
    for tab in opened(browser, gallery, width, scheme):
        tab.evaluate(AXE.read_text())
        pages = data(tab)["pages"]
        if (width, scheme) != ("wide", "light"):
            pages = {page["kind"]: page for page in pages if page["kind"] != "network"}.values()
        for page in pages:
            open_page(tab, page)
            tab.locator("td[data-key]").first.focus()
            if width == "phone":
                tab.get_by_role("button", name="Close").click()
            tab.locator(".code a").first.click()
            found = tab.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})
            assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", ["wide", "phone"])
def test_a_large_convolution_steps_through_one_map(browser: Any, tmp_path: Path, width: str) -> None:
    """64 to 64 maps: what is shown of a step are the cells that lie on each other, and their sum is PyTorch's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, image, delta = torch.nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 8, 8), torch.randn(1, 64, 8, 8)
    file = explain(layer, image, delta=delta, maps=(5, 7)).save(tmp_path / "large.html")
    x, w, b = (t.double() for t in (image, *layer.state_dict().values()))
    dx, dw, db = torch.autograd.grad(layer(leaf := image.requires_grad_()), (leaf, *layer.parameters()), delta)
    y = F.conv2d(x, w, b, padding=1)
    for tab in opened(browser, file, width, "light"):
        results = {"forward": y[:, 5], "local-gradient": dx[:, 7], "kernel-gradient": dw[5, 7], "bias-gradient": db[5]}
        for (id, shown), name in zip(results.items(), ("y_forward", "dx_local", "dw_kernel", "db_kernel"), strict=True):
            torch.testing.assert_close(
                shown_grid(tab, id, name), shown.detach().double().flatten(), rtol=5.01e-3, atol=1e-5
            )
        step = tab.locator("#panel-forward .controls button").nth(1)
        tab.locator("#panel-forward .controls input").fill("8")
        step.click()
        assert tab.locator("#panel-forward output").text_content() == "10 / 64"
        lit = tab.locator("#panel-forward td.lit").evaluate_all("cells => cells.map(c => c.dataset.key)")
        window = [f"x:{(c * 8 + h) * 8 + k}" for c in range(64) for h in (0, 1, 2) for k in (0, 1, 2)]
        assert [key for key in lit if key.startswith("x:")] == window
        assert [key for key in lit if key.startswith("w:")] == [f"w:{5 * 576 + k}" for k in range(576)]
        numbers = tab.locator("#panel-forward .numbers").text_content().translate(MATH)
        total = eval(re.sub(r"(?<=[\d)])\s*\(", "*(", re.split("[=≈]", numbers)[1]))
        assert abs(total - y[0, 5, 1, 1]) < 0.02
        names = tab.locator("#panel-forward .many .sheet-name").all_text_contents()
        assert names[:2] == ["x[1]", "x[2]"]
        assert names[64:66] == ["w[6, 1]", "w[6, 2]"]
        tab.locator("#panel-forward td.now").focus()
        assert tab.locator("#cell h2").text_content().startswith("y6,22 = ")
        assert "and 573 more products" in tab.locator("#panel-forward td.now").get_attribute("aria-label")
        if width == "phone":
            tab.get_by_role("button", name="Close").click()
        tab.evaluate(AXE.read_text())
        found = tab.evaluate("axe.run({runOnly: ['scrollable-region-focusable']})")  # the others have the gallery
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_names_are_text_and_never_markup(browser: Any, tab: Any, tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>&amp;"
    page = data(tab)["pages"][0] | {"title": name, "note": name, "settings": {name: name}}
    for grid in page["grids"].values():
        grid["title"] = grid["label"] = name
    for panel in page["panels"]:
        panel |= {"title": name, "source": name}
        panel["code"] = {"file": name, "line": 1, "end": 1}
    question = {"question": name, "answer": name, "page": page["id"], "panel": page["panels"][0]["id"], "cell": 0}
    file = tmp_path / "names.html"
    known = {"version": 1, "pages": [page], "questions": [question], "files": {name: name}}
    file.write_text(html(known), "utf-8")
    for other in opened(browser, file, "wide", "light"):
        other.locator("#questions button").click()
        other.locator(".code a").first.click()
        other.locator("td[data-key]").first.focus()
        assert other.locator("img").count() == 0
        for place in (
            "h1",
            ".note",
            ".panel h2",
            ".source",
            ".grid b",
            ".code pre",
            ".files summary",
            ".files mark",
            ".answer h3",
            ".answer p",
            "#cell h2 + p",
        ):
            assert other.locator(place).first.text_content() == name
