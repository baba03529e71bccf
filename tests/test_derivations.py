"""docs/derivations.md has a section for every rule, a row for every formula of the lectures, and no dead link."""

import re
from pathlib import Path

import pytest

import manualbp.functional as F

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "derivations.md").read_text()
ROWS = [f"{lecture}.{row}" for lecture, rows in [(1, 8), (2, 5), (3, 5), (4, 9)] for row in range(1, rows + 1)]
PARTS = {
    "a formula": r"^```math$",
    "what is kept": r"^- \*\*Kept\.\*\* \S",
    "its own derivative": r"^- \*\*Second derivative\.\*\* \S",
    "a source": r"^- \*\*Source\.\*\* \S",
    "a link to code": r"^- \*\*Code\.\*\*[^*]*\]\(\.\./manualbp/functional/",
    "a link to a test": r"^- \*\*Tests\.\*\*[^*]*\]\(\.\./tests/",
}
# One or more names of code, then the file that they are in.
NAMES_IN_FILE = r"((?:`\w+`(?:, |,\n|\s+and\s+)?)+)\s+in\s+\[[^\]]*\]\((\.\./manualbp/[^)]+)\)"


def complaints(text: str) -> list[str]:
    """What the derivations lack."""
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    lacking = [f"no section {name}" for name in F.__all__ if name not in sections]
    lacking += [f"section {name} is of no public rule" for name in sections if name not in F.__all__]
    lacking += [
        f"{name} lacks {part}"
        for name, section in sections.items()
        for part, pattern in PARTS.items()
        if not re.search(pattern, section, re.MULTILINE)
    ]
    lacking += [f"no row {row}" for row in ROWS if not re.search(rf"^\| {re.escape(row)} \|", text, re.MULTILINE)]
    anchors = {
        re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#") and target[1:] not in anchors:
            lacking.append(f"no anchor {target}")
        if not target.startswith("#") and not (DOCS / target).is_file():
            lacking.append(f"no file {target}")
    for names, target in re.findall(NAMES_IN_FILE, text):
        code = (DOCS / target).read_text() if (DOCS / target).is_file() else ""
        for name in re.findall(r"`(\w+)`", names):
            if not re.search(rf"^(?:def |class )?{name}\b", code, re.MULTILINE):
                lacking.append(f"no {name} in {target}")
    return lacking


def test_nothing_is_lacking() -> None:
    assert complaints(TEXT) == []


@pytest.mark.parametrize(
    ("there", "instead", "complaint"),
    [
        ("## `tanh`\n", "## tanh\n", "no section tanh"),
        ("## `tanh`\n", "## `tan`\n", "section tan is of no public rule"),
        ("| 2.3 | `delta", "| 2.33 | `delta", "no row 2.3"),
        ("- **Kept.** Nothing: no number of `w` is in the formula.", "", "rotate lacks what is kept"),
        ("`FullConvolve` in", "`FullyConvolve` in", "no FullyConvolve in ../manualbp/functional/conv.py"),
        ("(#conv2d)", "(#conv4d)", "no anchor #conv4d"),
        (
            "../manualbp/functional/pool.py",
            "../manualbp/functional/pools.py",
            "no file ../manualbp/functional/pools.py",
        ),
    ],
)
def test_what_is_lacking_is_found(there: str, instead: str, complaint: str) -> None:
    assert there in TEXT
    assert complaint in complaints(TEXT.replace(there, instead))
