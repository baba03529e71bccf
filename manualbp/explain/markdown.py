"""docs/derivations.md, docstrings and code as HTML. All of it is escaped; citations of the lectures are links."""

import re
from collections.abc import Callable
from html import escape
from inspect import cleandoc
from itertools import groupby
from textwrap import dedent
from typing import Any

from manualbp.explain.tex import mathml

NUMBER = r"[1-4]\.[1-9](?![0-9])"
# As in "lecture 002, eq. 2.2 to 2.4; 004, 4.6" and "(2.3)".
CITATION = re.compile(rf"(?:\b[Ee]q\.\s+|\b00[1-4],\s+|\(){NUMBER}(?:(?:,?\s+(?:and|to)\s+|,\s+|-){NUMBER})*")
FORMULA = re.compile(r"^ {4}|\S {2,}\S")  # a line that is indented, or has columns


def cited(text: str) -> set[str]:
    """The numbers of the formulas that a text cites, with those between "2.2 to 2.4"."""
    found = set()
    for citation in CITATION.findall(text):
        found |= set(re.findall(NUMBER, citation))
        for lecture, first, last in re.findall(r"([1-4])\.([1-9])(?:\s+to\s+|-)\1\.([1-9])", citation):
            found |= {f"{lecture}.{row}" for row in range(int(first), int(last) + 1)}
    return found


def cite(html: str) -> str:
    """The same text, in which each number of a citation leads to its row of the contents."""
    link = r'<a href="index.html#eq-\g<0>">\g<0></a>'
    return CITATION.sub(lambda found: re.sub(NUMBER, link, found[0]), html)


def code(text: str) -> str:
    return f"<pre><code>{cite(escape(text))}</code></pre>\n"


def prose(docstring: str) -> str:
    """A docstring: paragraphs, and as they stand the lines that are indented or have columns."""
    made = []
    for block in re.split(r"\n\s*\n", cleandoc(docstring)):
        for formula, lines in groupby(block.splitlines(), lambda line: bool(FORMULA.search(line))):
            text = "\n".join(lines)
            if formula:
                made.append(f"<pre>{cite(escape(dedent(text)))}</pre>\n")
            else:
                made += [f"<p>{_words(part)}</p>\n" for part in re.split(r"\n(?=[0-9]\. )", text)]
    return "".join(made)


def _words(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", cite(escape(text)))


def reader(href: Callable[[str], str | None]) -> Any:
    """Reads Markdown, with GitHub's tables and formulas. href: where a link leads; of None only its words are left."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ValueError("argument --book: it needs markdown-it-py: pip install markdown-it-py") from error
    md = MarkdownIt("commonmark", {"html": False}).enable("table")
    md.inline.ruler.before("escape", "math", _math)

    def fence(tokens: Any, i: int, *_: Any) -> str:
        token = tokens[i]
        if token.info != "math":
            return code(token.content)
        return f'<div class="formula">{mathml(token.content, display=True)}</div>\n'

    def link(tokens: Any, i: int, *_: Any) -> str:
        target = href(tokens[i].attrGet("href"))
        tokens[i].meta["shown"] = target is not None
        return "" if target is None else f'<a href="{escape(target)}">'

    def end_of_link(tokens: Any, i: int, *_: Any) -> str:
        opening = next(token for token in reversed(tokens[:i]) if token.type == "link_open")
        return "</a>" if opening.meta["shown"] else ""

    rules: dict[str, Any] = {}
    rules |= {"math": lambda tokens, i, *_: mathml(tokens[i].content), "fence": fence}
    rules |= {"text": lambda tokens, i, *_: cite(escape(tokens[i].content))}
    rules |= {"link_open": link, "link_close": end_of_link}
    rules |= {"table_open": lambda *_: '<div class="wide"><table>\n', "table_close": lambda *_: "</table></div>\n"}
    renderer: Any = md.renderer
    renderer.rules |= rules
    return md


def _math(state: Any, silent: bool) -> bool:
    """$...$ as one token, as it stands."""
    found = re.compile(r"\$([^$]+)\$").match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("math", "math", 0).content = found[1]
    state.pos = found.end()
    return True


def words_of(tokens: Any) -> str:
    """The text of tokens without its marks and formulas: what is searched."""
    inline = [token for each in tokens for token in (each.children or [each])]
    shown = ("text", "code_inline", "fence")
    return " ".join("…" if "math" in (t.type, t.info) else t.content for t in inline if t.type in (*shown, "math"))
