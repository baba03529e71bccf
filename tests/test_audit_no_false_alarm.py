"""The audit finds nothing where nothing is wrong: at PyTorch's operators (see audited_operators) and at our rules."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from manualbp.audit import audit
from tests.cases import CASES, Case

# Where the case is one that PyTorch, and so the rule, defines otherwise than its slopes.
OTHERWISE = {
    "softshrink: lambd 0.0": "it is the identity there, and its derivative at 0 is 0, as PyTorch's",
}


def size(case: Case) -> int:
    return sum(a.numel() for a in case.inputs() if isinstance(a, Tensor))


def small(count: int) -> list[Case]:
    """Of each rule the cases of the fewest numbers."""
    sized = sorted((case for case in CASES if str(case) not in OTHERWISE), key=size)
    of_rules = {op: [case for case in sized if case.op == op][:count] for op in dict.fromkeys(c.op for c in CASES)}
    return [case for cases in of_rules.values() for case in cases]


@pytest.mark.parametrize("case", small(1), ids=str)
def test_our_rules(case: Case) -> None:
    inputs, settings = case.inputs(), case.settings()
    places = [i for i, a in enumerate(inputs) if isinstance(a, Tensor)]

    def f(*tensors: Tensor) -> Any:
        args = [*inputs]
        for i, t in zip(places, tensors, strict=True):
            args[i] = t
        return case.ours(*args, **settings)

    report = audit(f, *(inputs[i] for i in places), skip=("memory left",))
    assert report, report


def test_pytorchs_operators() -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-W", "ignore", "-m", "tests.audited_operators"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    *lines, last = done.stdout.splitlines()
    assert last == f"{len(lines)} operators"
