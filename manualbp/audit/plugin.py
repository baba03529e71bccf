"""For pytest: the fixture `audit`, which fails a test with the report unless a backward pass is right."""

from collections.abc import Callable

import pytest


@pytest.fixture
def audit() -> Callable[..., None]:
    """manualbp.audit.assert_correct: `def test_f(audit): audit(f, (2, 3, 8, 8))`."""
    from manualbp.audit import assert_correct

    return assert_correct
