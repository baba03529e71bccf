"""PyTorch's own sample and error inputs, in a process of their own (see opinfo_process)."""

import subprocess
import sys
from pathlib import Path


def test_pytorchs_own_inputs() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.functional.opinfo_process"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    *lines, last = done.stdout.splitlines()
    assert last == f"{len(lines)} operators"
