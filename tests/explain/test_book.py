"""The book of `explain --book`: its links, its rules beside their code, the citations of the lectures, its search."""

import ast
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

import manualbp.functional as F
from manualbp.__main__ import main
from manualbp.explain.examples import EXAMPLES
from manualbp.explain.markdown import cite, cited, prose, reader
from manualbp.explain.pages import WEB
from manualbp.explain.tex import mathml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "manualbp"
TEXT = (ROOT / "docs" / "derivations.md").read_text()
AXE = Path(__file__).with_name("axe.min.js")
ROWS = [f"{lecture}.{row}" for lecture, rows in [(1, 8), (2, 5), (3, 5), (4, 9)] for row in range(1, rows + 1)]


class Reader(HTMLParser):
    """Of a page: its ids, where it links, the text below each id up to the next one, levels of headings, mistakes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.levels, self.mistakes = [], [], [], []
        self.text: dict[str, str] = {"": ""}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "input", "br"):
            if tag == "a" and "a" in self.open:
                self.mistakes.append(f"a link within a link: {given}")
            self.open.append(tag)
        if own := given.get("id"):
            self.ids.append(own)
            self.text[own] = ""
        self.links += [link for name in ("href", "src") if (link := given.get(name))]
        if re.fullmatch("h[1-6]", tag) and "nav" not in self.open:
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text[([*self.text])[-1]] += data


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book") / "new"
    assert main(["explain", "--book", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def pages(book: Path) -> dict[str, Reader]:
    return {path.name: Reader(path.read_text()) for path in book.glob("*.html") if path.name != "explain.html"}


def entries(book: Path) -> list[dict[str, str]]:
    return json.loads((book / "search.js").read_text().removeprefix("const ENTRIES = ").removesuffix(";\n"))


def page_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix().removesuffix(".py").replace("/", "-") + ".html"


def target_of(link: str, name: str) -> tuple[str, str]:
    page, _, anchor = link.partition("#")
    return page or name, unquote(anchor)


def test_the_command_says_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["explain", "--book", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'empty' / 'index.html'} is written\n", "")


def test_the_text_is_that_of_the_clone() -> None:
    """The package has no copy that could differ: a link, which a wheel holds as a file."""
    assert (WEB / "derivations.md").samefile(ROOT / "docs" / "derivations.md")


def test_it_is_small_and_asks_for_nothing(book: Path) -> None:
    assert sum(path.stat().st_size for path in book.iterdir()) < 5_000_000
    for path in book.iterdir():
        if path.name != "explain.html":
            assert not re.search(r"(?:src|href)=\"(?:\w+:)?//|fetch\(|@import|url\(|\{\{", path.read_text()), path.name


def test_every_link_leads_somewhere(book: Path, pages: dict[str, Reader]) -> None:
    ids = {name: page.ids for name, page in pages.items()} | {"explain.html": ["", *EXAMPLES]}
    for name, page in pages.items():
        assert page.mistakes == []
        assert page.open == []
        assert len({*page.ids}) == len(page.ids)
        for link in page.links:
            to, anchor = target_of(link, name)
            assert link == "data:," or (book / to).is_file(), (name, link)
            assert not anchor or anchor in ids[to], (name, link)
    for entry in entries(book):
        to, anchor = target_of(entry["href"], "")
        assert anchor in ids[to], entry["href"]
    linked = {target_of(link, name)[0] for name, page in pages.items() for link in page.links}
    assert {*pages, "explain.html"} <= linked
    for name, page in pages.items():
        assert [level for level in page.levels if level == 1] == page.levels[:1], name
        assert all(below - above <= 1 for above, below in pairwise(page.levels)), name


@pytest.mark.parametrize("name", F.__all__)
def test_each_rule_stands_beside_its_derivation(name: str, pages: dict[str, Reader], book: Path) -> None:
    function = inspect.unwrap(getattr(F, name))
    file = Path(inspect.getsourcefile(function) or "")
    page = pages[page_of(file)]
    source = inspect.getsource(function).rstrip("\n")
    assert page.text[f"code-{name}"].endswith(f"{source}\n") or f"{source}\n" in page.text[f"code-{name}"]
    assert "head" in page.ids
    assert any(entry["href"] == f"{page_of(file)}#code-{name}" for entry in entries(book))


def test_every_class_that_is_a_rule_is_there(pages: dict[str, Reader]) -> None:
    found = 0
    for file in (PACKAGE / "functional").rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Rule") for base in node.bases):
                source = ast.get_source_segment(file.read_text(), node)
                assert source is not None
                assert source in pages[page_of(file)].text[f"code-{node.name}"]
                found += 1
    assert found > 40


def test_the_head_of_a_file_is_told_whole(pages: dict[str, Reader]) -> None:
    squeezed = {name: re.sub(r"\s", "", page.text.get("head", "")) for name, page in pages.items()}
    for file in [*(PACKAGE / "functional").rglob("*.py"), *(PACKAGE / "fuse").glob("*.py")]:
        if page_of(file) in pages:
            head = ast.get_docstring(ast.parse(file.read_text())) or ""
            assert re.sub(r"[\s`]", "", head) in squeezed[page_of(file)], file


def test_every_section_of_the_derivations_is_there(pages: dict[str, Reader]) -> None:
    plain = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    told = " ".join(" ".join(page.text.values()) for page in pages.values())
    ids = {own for page in pages.values() for own in page.ids}
    for heading, body in re.findall(r"^##+ (.*)\n((?:(?!#).*\n)*)", plain, re.MULTILINE):
        if heading == "Contents" or not body.strip():
            continue
        assert re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") in ids, heading
        first = re.split(r"[`$\[\]*|:(]", body.strip().removeprefix("- "))[0]
        assert re.sub(r"\s+", " ", first).strip() in re.sub(r"\s+", " ", told)


def test_the_contents_have_every_formula_with_all_that_cite_it(pages: dict[str, Reader]) -> None:
    contents = pages["index.html"]
    assert [own for own in contents.ids if own.startswith("eq-")] == [f"eq-{row}" for row in ROWS]
    text = (ROOT / "docs" / "derivations.md").read_text()
    for row in ROWS:
        formula = re.search(rf"^\| {re.escape(row)} \| ([^|]+) \|", text, re.MULTILINE)
        assert formula
        assert formula[1].replace("`", "") in contents.text[f"eq-{row}"]
    lecture = r"lecture 00[1-4],\s+eq\.\s+([1-4]\.[1-9])"
    claims = 0
    for name in F.__all__:
        function = inspect.unwrap(getattr(F, name))
        for number in re.findall(lecture, function.__doc__ or ""):
            assert name in contents.text[f"eq-{number}"], (name, number)
            claims += 1
        for number in re.findall(lecture, sys.modules[function.__module__].__doc__ or ""):
            head = f"the head of {'/'.join(function.__module__.split('.')[1:])}.py"
            assert head in contents.text[f"eq-{number}"], (head, number)
            claims += 1
    assert claims > 40


def test_no_citation_of_the_package_is_unknown() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                assert cited(ast.get_docstring(node) or "") <= {*ROWS}, file


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("lecture 002, eq. 2.2 to 2.4; 001, 1.7", "2.2 2.3 2.4 1.7"),
        ("lecture 003, eq. 3.2-3.4; lecture 004, eq. 4.5;", "3.2 3.3 3.4 4.5"),
        ("lecture 002,\neq. 2.2, 2.3 and\n2.4 of it", "2.2 2.3 2.4"),
        ("the zero-padded delta (2.3)", "2.3"),
        ("Girshick 2015, eq. 3; Zeiler 2014, sec. 2.1; eq. 10 and 11; Python before 2.15; (2.15)", ""),
    ],
)
def test_citations(text: str, numbers: str) -> None:
    assert cited(text) == {*numbers.split()}
    assert re.sub("<[^>]+>", "", cite(text)) == text


def test_the_examples_are_those_that_the_code_computed(pages: dict[str, Reader]) -> None:
    def linked(page: str) -> set[str]:
        return {link.partition("#")[2] for link in pages[page].links if link.startswith("explain.html#")}

    assert linked("functional-true_conv.html") == {"true_conv2d"}
    assert {id for id in EXAMPLES if id.startswith("conv2d")} <= linked("functional-conv.html")
    assert {"avg_pool2d", "max_pool2d"} <= linked("functional-pool.html")
    assert {id for name in pages for id in linked(name)} == {*EXAMPLES}


def test_every_formula_of_the_derivations_is_mathml() -> None:
    formulas = re.findall(r"^```math\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) + re.findall(r"\$([^$]+)\$", TEXT)
    assert len(formulas) > 60
    for formula in formulas:
        made = "".join(ElementTree.fromstring(mathml(formula).replace("&nbsp;", " ")).itertext())
        assert "\\" not in made
        assert Counter(re.findall("[A-Za-z0-9]", re.sub(r"\\[A-Za-z]+", "", formula))) <= Counter(made)


def test_a_formula() -> None:
    made = mathml(r"\sum_{i,p} \frac{a}{2}\; \hat y_c^2 \left(x'\right)", display=True)
    below = "<munder><mo>∑</mo><mrow><mi>i</mi><mo>,</mo><mi>p</mi></mrow></munder>"
    assert made.startswith(
        f'<math display="block">{below}<mfrac><mrow><mi>a</mi></mrow><mrow><mn>2</mn></mrow></mfrac>'
    )
    hat = '<mover accent="true"><mrow><mi>y</mi></mrow><mo>^</mo></mover>'
    assert f"<msubsup>{hat}<mrow><mi>c</mi></mrow><mrow><mn>2</mn></mrow></msubsup>" in made
    with pytest.raises(ValueError, match=r"\\unknown is not known"):
        mathml(r"x \unknown y")


def test_a_docstring() -> None:
    made = prose("""A head.

    1. Said in words, and
       in a second line:
           y = x w
    2. Said by eq. 2.3.

    name   y = x
           else 0

        dx = <delta, w>
    """)
    assert re.sub(r"</\w+>", "", re.sub("<a [^>]+>", "", made)).splitlines() == [
        "<p>A head.",
        "<p>1. Said in words, and",
        "   in a second line:",
        "<pre>y = x w",
        "<p>2. Said by eq. 2.3.",
        "<pre>name   y = x",
        "       else 0",
        "<pre>dx = &lt;delta, w&gt;",
    ]


def test_text_is_never_markup() -> None:
    bad = "<img src=x onerror=alert(1)>&"
    md = reader(lambda href: href)
    for made in (
        prose(bad),
        prose(f"    {bad}"),
        prose(f"`{bad}`"),
        md.render(f"{bad} `{bad}` $<b>$ [{bad}](#a)\n\n{bad}"),
    ):
        assert "<img" not in made
        assert "<b>" not in made
        assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in made


REFUSED = [
    ("--book full", "argument --book: full must be a new folder, or an empty one"),
    ("--book file", "argument --book: file must be a new folder, or an empty one"),
    ("--book none/book", "argument --book: none is no folder"),
    ("conv2d --book new", "argument --book: it goes alone, without KIND"),
    ("--book new --seed 0", "argument --book: it goes alone, without --seed"),
    ("--book new --force", "argument --book: it goes alone, without --force"),
    ("--book new --out a.html", "argument --book: it goes alone, without --out"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals_are_one_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.txt").write_text("old")
    (tmp_path / "file").write_text("old")
    assert main(["explain", *arguments.split()]) == 2
    assert capsys.readouterr() == ("", f"manualbp: error: {message}\n")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "old.txt"]


def test_without_the_library_it_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    assert main(["explain", "--book", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == (
        "manualbp: error: argument --book: it needs markdown-it-py: pip install markdown-it-py\n"
    )
    assert not (tmp_path / "new").exists()


def opened(browser: Any, book: Path, wide: int, high: int, scheme: str) -> Iterator[Any]:
    """A tab that must stay silent, and ask for files of the book alone."""
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme, offline=True)
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((book / "index.html").as_uri())
    yield tab
    assert said == []
    assert [url for url in asked if not url.startswith((book.as_uri(), "data:"))] == []
    context.close()


@pytest.fixture
def tab(browser: Any, book: Path) -> Iterator[Any]:
    yield from opened(browser, book, 1280, 900, "light")


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("2.3", "index.html#eq-2.3"),
        ("batch_norm", "functional-norm.html#code-batch_norm"),
        ("full convolution", "functional-conv.html#full-convolution"),
        ("ERRATA", "lecture-and-code-side-by-side.html#errata"),
        ("stride 2, padding", "explain.html#conv2d-stride"),
    ],
)
def test_the_search_finds(words: str, first: str, tab: Any) -> None:
    tab.get_by_role("searchbox").fill(words)
    found = tab.locator("#found a")
    assert found.first.get_attribute("href") == first
    shown = tab.locator("#found [role=status]").text_content()
    assert re.fullmatch(r"1 place|\d+ places|The best \d+ of \d+ places", shown)
    assert all(word in found.first.text_content().lower() for word in words.lower().split())


def test_the_search_by_keys(tab: Any) -> None:
    at = "document.activeElement"
    tab.keyboard.press("/")
    assert tab.evaluate(f"{at}.type") == "search"
    tab.keyboard.type("no such words <b>")
    assert tab.locator("#found").text_content().strip() == "No places"
    tab.keyboard.press("Control+A")
    tab.keyboard.type("sigmoid")
    links = tab.locator("#found a")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(f"{at}.getAttribute('href')") == links.nth(1).get_attribute("href")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate(f"{at}.type") == "search"
    tab.keyboard.press("Escape")
    assert not tab.locator("#found").is_visible()
    tab.keyboard.type(" ")
    wanted = links.first.get_attribute("href")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/{wanted}")


def test_by_keys_to_what_is_too_wide(tab: Any, book: Path) -> None:
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto((book / "functional-conv.html").as_uri())
    wide = tab.locator("pre[tabindex='0']")
    assert wide.count() > 0
    wide.first.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("document.activeElement.scrollLeft > 0")


@pytest.mark.parametrize(
    ("wide", "high", "scheme", "options"),
    [
        (1280, 900, "light", {}),
        (390, 844, "light", {"rules": {"color-contrast": {"enabled": False}}}),
        (1280, 900, "dark", {"runOnly": ["color-contrast"]}),
    ],
    ids=["wide", "phone", "dark"],
)
def test_axe_finds_nothing_and_nothing_stands_out_of_the_page(
    browser: Any, book: Path, pages: dict[str, Reader], wide: int, high: int, scheme: str, options: dict[str, Any]
) -> None:
    """All pages for their widths; for axe those of each kind."""
    checked = (
        "index.html",
        "functional-conv.html",
        "functional-norm.html",
        "every-rule.html",
        "three-kinds-of-rule.html",
    )
    for tab in opened(browser, book, wide, high, scheme):
        for name in sorted(pages):
            tab.goto((book / name).as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            if name not in checked:
                continue
            tab.evaluate(AXE.read_text())
            for words in ("", "convolution"):
                tab.get_by_role("searchbox").fill(words)
                found = tab.evaluate(
                    "options => axe.run(options)", {"resultTypes": ["violations"], "preload": False, **options}
                )
                assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == [], name
