"""The derivations as a book: a folder of pages that need no network, for `python -m manualbp explain --book DIR`.

A page is a chapter of docs/derivations.md, or a file of the package: what derivations.md derives of it, its head, and
its rules with their code; beside them the examples of `explain` that this code computed. The first page is the table of
the lectures' formulas, with the rules whose docstrings cite each. Nothing is written for the book: what it says is said
in derivations.md (web/derivations.md is a link to it, so that a wheel has its text) and in the code.
"""

import json
import re
from html import escape, unescape
from pathlib import Path
from typing import Any, NamedTuple

from manualbp.explain import Page
from manualbp.explain.heads import File, files
from manualbp.explain.markdown import cited, code, prose, reader, words_of
from manualbp.explain.pages import WEB, filled

STATIC = ("base.css", "book.css", "book.js")
TABLE = "from-the-slide-to-the-code"  # the chapter that is the first page
ROW = re.compile(r"<tr>\n<td>([0-9]\.[0-9])</td>\n(<td>.*?)(<td>[^\n]*</td>\n</tr>)", re.DOTALL)


class Section(NamedTuple):
    """A heading of derivations.md with what stands below it. href: its page; there the heading is of this level."""

    title: str
    anchor: str
    tokens: list[Any]
    href: str
    level: int


class Book:
    """All pages, made of derivations.md and the code. explain: the page of all examples, `command.gallery()`."""

    def __init__(self, explain: Page) -> None:
        self.explain = explain
        self.md = reader(self.target)
        text = (WEB / "derivations.md").read_text("utf-8")
        before, _, after = text.partition("\n## Every rule\n")  # whose order is that of the pages
        self.files = {file.path: file for file in files(re.findall(r"\(\.\./manualbp/([^)#]+)", after + before))}
        self.sections = self.split(text)
        self.entries: list[dict[str, str]] = []

    def target(self, href: str) -> str | None:
        """Where a link of derivations.md leads within the book; None where it leads to what is no part of it."""
        if href.startswith("#"):
            return next((f"{s.href}{href}" for s in self.sections if f"#{s.anchor}" == href), None)
        file = self.files.get(href.removeprefix("../manualbp/"))
        return file and file.href

    def split(self, text: str) -> list[Section]:
        """A section is on the page of the file that it names as its head, else on that of the section above it."""
        made: list[Section] = []
        tokens = self.md.parse(text)
        starts = [i for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag != "h1"]
        href, base = "", 0
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            title, body, level = tokens[start + 1].content, tokens[start + 3 : end], int(tokens[start].tag[1])
            anchor = re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-")
            named = re.match(r"Head: \[[^]]*\]\(\.\./manualbp/([^)]+)\)", body[1].content if body else "")
            if named:
                href, base = self.files[named[1]].href, level - 2
            elif level == 2:
                href, base = "index.html" if anchor == TABLE else f"{anchor}.html", 1
            if anchor != "contents":
                made.append(Section(title, anchor, body, href, level - base))
        used = {s.href for s in made if s.tokens}
        return [s for s in made if s.href in used]

    def pages(self) -> dict[str, str]:
        """The files of the folder: their texts by their names."""
        chapters = {s.href: s.title for s in self.sections if s.level == 1}
        titles = chapters | {file.href: file.title for file in self.files.values()}
        bodies = {href: self.contents() if href == "index.html" else self.derived(href) for href in chapters}
        bodies |= {file.href: self.of_file(file) for file in self.files.values()}
        for page in self.explain.data["pages"]:
            self.enter(page["title"], "an example, step by step", f"explain.html#{page['id']}", page["note"])
        nav = self.nav(chapters)
        made = {"explain.html": self.explain.html()} | {name: (WEB / name).read_text("utf-8") for name in STATIC}
        made["search.js"] = f"const ENTRIES = {json.dumps(self.entries, ensure_ascii=False)};\n"
        order = [*titles]
        for k, (href, body) in enumerate(bodies.items()):
            ways = [(name, order[n]) for name, n in (("Before", k - 1), ("Next", k + 1)) if 0 <= n < len(order)]
            links = "".join(f'<a href="{to}">{way}: {escape(titles[to])}</a>\n' for way, to in ways)
            own = nav.replace(f'<a href="{href}"', f'<a href="{href}" aria-current="page"')
            main = f'{body}<p class="ways">\n{links}</p>'
            parts = {"title": escape(titles[href]), "nav": own, "main": main}
            made[href] = filled("book.html", parts)
        return made

    def nav(self, chapters: dict[str, str]) -> str:
        rooms = {"": [(href, escape(title)) for href, title in chapters.items()]}
        rooms[""].append(("explain.html", "Examples, step by step"))
        for file in self.files.values():
            room, _, name = file.path.rpartition("/")
            rooms.setdefault(room, []).append((file.href, f"{escape(file.title)} <small>{name}</small>"))
        made = []
        for room, own in rooms.items():
            made.append(f"<h2>manualbp/{room}</h2>\n" if room else "")
            made += ["<ul>\n", *(f'<li><a href="{to}">{name}</a></li>\n' for to, name in own), "</ul>\n"]
        return "".join(made)

    def contents(self) -> str:
        made = ROW.sub(self.row, self.derived("index.html"))
        made = made.replace("<th>tests</th>", "<th>cited by</th>\n<th>tests</th>")
        return made.replace('<div class="wide"><table>', '<div class="wide slides"><table>')

    def row(self, found: re.Match[str]) -> str:
        """A row of the lectures' table, with what cites it."""
        number, cells, tests = found.groups()
        names: list[tuple[str, str]] = []
        for file in self.files.values():
            own = [("head", f"the head of {file.path}", file.head)]
            own += [(f"code-{part.name}", part.name, part.docstring) for part in file.parts]
            names += [(name, f"{file.href}#{anchor}") for anchor, name, text in own if number in cited(text)]
        links = ", ".join(f'<a href="{href}">{name}</a>' for name, href in names)
        self.enter(number, "the lectures' formulas", f"index.html#eq-{number}", unescape(re.sub("<[^>]+>", " ", cells)))
        return f'<tr id="eq-{number}">\n<th scope="row">{number}</th>\n{cells}<td>{links}</td>\n{tests}'

    def derived(self, href: str) -> str:
        """The sections of derivations.md on a page."""
        made = []
        for s in self.sections:
            if s.href == href:
                body = self.md.renderer.render(s.tokens, self.md.options, {}).replace("<th></th>", "<td></td>")
                body = body.replace(f'<a href="{href}">', '<a href="#head">')
                made.append(f'<h{s.level} id="{s.anchor}">{escape(s.title)}</h{s.level}>\n{body}')
                self.enter(s.title, "derivations", f"{href}#{s.anchor}", words_of(s.tokens))
        return "".join(made)

    def of_file(self, file: File) -> str:
        """What is derived, then the code."""
        self.enter(file.title, file.path, f"{file.href}#head", file.head)
        examples = [
            f'<li><a href="explain.html#{page["id"]}">{escape(page["title"])}</a></li>\n'
            for page in self.explain.data["pages"]
            if any(panel["code"]["file"] == f"manualbp/{file.path}" for panel in page["panels"])
        ]
        places = [(s.anchor, escape(s.title)) for s in self.sections if s.href == file.href]
        places += [
            ("head", "The head of the file"),
            *((f"code-{part.name}", f"<code>{part.name}</code>") for part in file.parts),
        ]
        links = ", ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in places)
        made = [f'<h1>{escape(file.title)}</h1>\n<p class="places">{links}</p>\n']
        if examples:
            made.append(f'<div class="examples">\n<h2>Step through it</h2>\n<ul>\n{"".join(examples)}</ul>\n</div>\n')
        made.append(f'<div class="beside">\n<div>\n{self.derived(file.href)}')
        made.append(f'<h2 id="head">The head of {file.path}</h2>\n{prose(file.head)}</div>\n<div>\n')
        made.append('<h2 id="code">The code</h2>\n')
        for part in file.parts:
            lines = f"lines {part.first} to {part.first + part.text.count(chr(10))}"
            made.append(f'<h3 id="code-{part.name}">{part.name} <small>{lines}</small></h3>\n{code(part.text)}')
            self.enter(part.name, file.path, f"{file.href}#code-{part.name}", part.docstring)
        return "".join([*made, "</div>\n</div>\n"])

    def enter(self, title: str, page: str, href: str, text: str) -> None:
        """Make a place known to the search."""
        self.entries.append({"title": title, "page": page, "href": href, "text": " ".join(text.split())})


def write(folder: Path, explain: Page) -> Path:
    """Write the book into a new or empty folder, and return its first page."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"argument --book: {folder} must be a new folder, or an empty one")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"argument --book: {folder.parent} is no folder")
    pages = Book(explain).pages()
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")
    return folder / "index.html"
