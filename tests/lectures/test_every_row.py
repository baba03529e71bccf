"""Each row of the lectures' digest has a test that is named by its number and cites it."""

from importlib import import_module

import pytest

ROWS = [f"{lecture}.{row}" for lecture, rows in [(1, 8), (2, 5), (3, 5), (4, 9)] for row in range(1, rows + 1)]


@pytest.mark.parametrize("row", ROWS)
def test_the_row_has_a_test(row: str) -> None:
    tests = vars(import_module(f"tests.lectures.test_00{row[0]}"))
    own = [test for name, test in tests.items() if name.startswith(f"test_{row.replace('.', '_')}_")]
    assert own
    assert all(f"(lecture 00{row[0]}, eq. {row}" in test.__doc__ for test in own)
