"""The files of the package that the book has: their heads, and their classes and functions as they stand."""

import ast
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from manualbp.explain.markdown import cited

PACKAGE = Path(__file__).parents[1]
ROOMS = ["functional", "functional/activation", "fuse", "kernels", "nn", "training"]  # in the order of the pages


class Part(NamedTuple):
    """A class or a function of a file, with its lines."""

    name: str
    docstring: str
    first: int
    text: str


class File(NamedTuple):
    """A file of the package that has a page. path: within the package."""

    path: str
    head: str
    parts: list[Part]

    @property
    def title(self) -> str:
        return re.split(r"[:;(]|\.(?: |$)", self.head.splitlines()[0])[0].replace("`", "").strip()

    @property
    def href(self) -> str:
        return self.path.removesuffix(".py").replace("/", "-") + ".html"


def files(linked: list[str]) -> list[File]:
    """The files that derivations.md links, and what else holds a rule or cites the lectures."""
    own = [
        path.relative_to(PACKAGE).as_posix()
        for room in ("functional", "kernels")
        for path in (PACKAGE / room).rglob("*.py")
    ]
    found = []
    for path in dict.fromkeys([*linked, *sorted(own)]):
        text = (PACKAGE / path).read_text("utf-8")
        tree, lines = ast.parse(text), text.splitlines()
        nodes = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and not n.name.startswith("_")]
        parts = []
        for node in nodes:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            parts.append(
                Part(node.name, ast.get_docstring(node) or "", first, "\n".join(lines[first - 1 : node.end_lineno]))
            )
        file = File(path, ast.get_docstring(tree) or path, parts)
        rules = any(
            ast.unparse(base).endswith("Rule") for n in nodes if isinstance(n, ast.ClassDef) for base in n.bases
        )
        if path in linked or rules or any(map(cited, [file.head, *(part.docstring for part in parts)])):
            found.append(file)
    return sorted(found, key=lambda file: ROOMS.index(posixpath.dirname(file.path)))
