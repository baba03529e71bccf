"""The code beside a panel: the lines of the package that computed its numbers."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def code_of(function: Callable[..., Any], *needles: str) -> dict[str, Any]:
    """Where a function's lines stand: from the first to the last that holds a needle, or all from its `def`."""
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    found = [i for i, line in enumerate(lines) if any(needle in line for needle in needles or ["def "])]
    start, end = found[0], found[-1] if needles else len(lines) - 1
    file = Path(inspect.getsourcefile(function) or "").relative_to(ROOT).as_posix()
    return {"file": file, "line": first + start, "end": first + end}


def files_of(pages: list[dict[str, Any]]) -> dict[str, str]:
    """The texts of the files in which the code of the panels stands."""
    paths = {panel["code"]["file"] for page in pages for panel in page["panels"]}
    return {path: (ROOT / path).read_text("utf-8") for path in sorted(paths)}
