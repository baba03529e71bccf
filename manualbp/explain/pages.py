"""A page as one file: HTML with its style, its scripts and its data in it, from the files in web/."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"
IMPORT = re.compile(r'^import\b[^;]*?from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)


def html(data: dict[str, Any]) -> str:
    """The file's text. What could end the script is written otherwise in JSON, and names in HTML are escaped."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    parts = {
        "title": escape(data["pages"][0]["title"]),
        "css": style("page.css"),
        "js": script("main.js", set()),
        "data": text.replace("</", "<\\/").replace("<!--", "\\u003c!--"),
    }
    return filled("page.html", parts)


def filled(name: str, parts: dict[str, str]) -> str:
    """A file of web/ with its {{parts}}."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (WEB / name).read_text("utf-8"))


def style(name: str) -> str:
    """A page's style, after what all pages share."""
    return "".join((WEB / file).read_text("utf-8") for file in ("base.css", name))


def script(name: str, done: set[str]) -> str:
    """A module with those that it imports before it, each once, without the lines that import and export."""
    done.add(name)
    text = (WEB / name).read_text("utf-8")
    before = [script(other, done) for other in IMPORT.findall(text) if other not in done]
    return "".join([*before, EXPORT.sub("", IMPORT.sub("", text))])
