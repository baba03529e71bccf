"""docs/where-pytorch-differs.md: every script prints what stands under it, and the rules equal the differences."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

PAGE = Path(__file__).parents[1] / "docs" / "where-pytorch-differs.md"
RIGHT = "Right on"  # the section of what was tried and is no difference
SCRIPT = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```\n", re.DOTALL)


def scripts() -> list[Any]:
    """(section, code, what is printed) of every script."""
    sections = [section.partition("\n") for section in PAGE.read_text().split("\n## ")[1:]]
    return [
        pytest.param(title, *script, id=f"{title}, {n}")
        for title, _, text in sections
        for n, script in enumerate(SCRIPT.findall(text), 1)
    ]


def error(numbers: Tensor | None, differences: Tensor) -> float:
    """The greatest error, over the greatest of the differences."""
    if numbers is None or not numbers.isfinite().all():
        return float("inf")
    return float((numbers.double() - differences).abs().max() / differences.abs().max().clamp(min=1e-9))


@pytest.mark.parametrize(("title", "code", "printed"), scripts())
def test_a_script(title: str, code: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "torch.compile" in code and not shutil.which("g++"):
        pytest.skip("Inductor needs a C++ compiler")
    known: dict[str, Any] = {}
    head = re.findall(r"```python\n(.*?)```\n", PAGE.read_text(), re.DOTALL)[0]
    exec(head, known)
    shown: list[tuple[Tensor | None, Tensor, Tensor]] = []
    show = known["show"]

    def noted(*numbers: Any, **settings: Any) -> None:
        shown.append(numbers)
        show(*numbers, **settings)

    known["show"] = noted
    exec(code, known)
    ((theirs, ours, differences),) = shown
    of_ours, of_theirs = error(ours, differences), error(theirs, differences)
    assert of_ours < 1e-6
    if title.startswith(RIGHT):
        assert of_theirs < 1e-6
    elif of_theirs <= 5 * of_ours + 1e-10:
        pytest.fail(f"PyTorch {torch.__version__} is right here: take {title!r} out of docs/{PAGE.name}")
    else:
        assert capsys.readouterr().out == printed


def test_every_script_is_run() -> None:
    assert len(scripts()) == PAGE.read_text().count("```python\n") - 1 > 10  # the first one only defines
