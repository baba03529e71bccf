"""help() of a class in manualbp.nn shows its formula, its shapes, what it keeps, and where to read."""

import inspect
import pydoc
import re
from pathlib import Path

import pytest

import manualbp.functional as F
from manualbp import nn

PACKAGE = Path(F.__file__).parents[1]
CLASSES = [name for name in nn.__all__ if inspect.isclass(getattr(nn, name))]
PARTS = {
    "a formula": r"^        \S.* = .*$",
    "a gradient": r"dL/d\w+.* = ",
    "what is kept": r"Kept for backward: \S",
    "where to read": r"^    Read: functional/",
}


def complaints(name: str, doc: str) -> list[str]:
    """What the docstring of a class lacks."""
    lacking = [part for part, pattern in PARTS.items() if not re.search(pattern, doc, re.MULTILINE)]
    functions = re.findall(r"`manualbp\.functional\.(\w+)`", doc)
    if not functions or functions[0] not in F.__all__:
        return [*lacking, "its function"]
    lacking += [f"no function {function}" for function in functions if function not in F.__all__]
    there = Path(inspect.getsourcefile(getattr(F, functions[0])) or "").relative_to(PACKAGE).as_posix()
    read = re.findall(r"^    Read: (functional/[\w/]+\.py)", doc, re.MULTILINE)
    return lacking if read == [there] else [*lacking, f"{name} names {read}; {functions[0]} is in {there}"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_its_formula_and_where_to_read(name: str) -> None:
    assert complaints(name, vars(getattr(nn, name)).get("__doc__") or "") == []


@pytest.mark.parametrize(
    ("there", "instead", "complaint"),
    [
        ("functional/conv.py", "functional/convs.py", "Conv2d names ['functional/convs.py']; conv2d is in"),
        ("functional.conv2d", "functional.conv4d", "its function"),
        ("Kept for backward", "Kept", "what is kept"),
        ("dL/d", "dy/d", "a gradient"),
    ],
)
def test_what_is_lacking_is_found(there: str, instead: str, complaint: str) -> None:
    doc = nn.Conv2d.__doc__ or ""
    assert there in doc
    assert complaint in "; ".join(complaints("Conv2d", doc.replace(there, instead)))


def test_help_shows_it() -> None:
    shown = pydoc.plain(pydoc.render_doc(nn.Conv2d))
    for words in (
        "x[n,c, s i + d p - pad, s j + d q - pad] w[o,c,p,q]",
        "full_convolve(delta, w)",
        "weight [O, C / groups",
    ):
        assert words in shown
