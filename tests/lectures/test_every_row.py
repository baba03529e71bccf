"""Every numbered formula of the lectures has a test that is named by its number and cites it."""

import re
from pathlib import Path

import pytest

ROWS = {1: range(1, 9), 2: range(1, 6), 3: range(1, 6), 4: range(1, 10)}


@pytest.mark.parametrize(("lecture", "row"), [(n, row) for n, rows in ROWS.items() for row in rows])
def test_every_row_has_a_test(lecture: int, row: int) -> None:
    source = (Path(__file__).parent / f"test_00{lecture}.py").read_text()
    tests = re.findall(rf'def test_{lecture}_{row}_\w+\(\).*?:\n    """(.*?)"""', source, re.DOTALL)
    assert tests
    assert any(f"{lecture}.{row}" in docstring for docstring in tests)
