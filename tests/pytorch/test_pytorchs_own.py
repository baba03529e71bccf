"""PyTorch's own tests of convolution, of pooling and of torch.nn pass by hand, but for those that `differs` lists.

The files are PyTorch's and not in this repository: `pytest tests/pytorch --pytorch-tests DIR`, where DIR is the folder
`test` of PyTorch's source tree, best with the whole tree around it. A test that does not pass by hand is run plainly,
too, and only if it passes there, it differs: an older file has tests that a newer PyTorch itself does not pass.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pytorch.differs import DIFFERS

ROOT = Path(__file__).parents[2]
FILES = ("nn/test_convolution.py", "nn/test_pooling.py", "test_nn.py")
NOT_GIVEN = "PyTorch's test files are not in the repository: pytest tests/pytorch --pytorch-tests DIR"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption("--pytorch-tests") is not None
    none = pytest.param(None, None, marks=pytest.mark.skip(NOT_GIVEN))
    metafunc.parametrize(("file", "way"), [(file, way) for file in FILES for way in DIFFERS] if given else [none])


def run(tests: str, file: str, way: str, results: Path, *named: str) -> dict[str, dict[str, Any]]:
    """What became of each test of the file, or of those that are named."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.pytorch.one_way", Path(tests).resolve(), file, way, results]
    done = subprocess.run([*command, *named], cwd=ROOT, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, f"{file} ended with {done.returncode}: {done.stderr[-3000:]}"
    return {line["test"]: line for line in map(json.loads, results.read_text().splitlines())}


def test_it_passes_by_hand(
    file: str, way: str, tmp_path: Path, record_property: Any, pytestconfig: pytest.Config
) -> None:
    tests = pytestconfig.getoption("--pytorch-tests")
    ours = run(tests, file, way, tmp_path / "ours")
    others = [test for test, line in ours.items() if line["became"] != "passed"]
    plain = run(tests, file, "plain", tmp_path / "plain", *others) if others else {}
    differ = {test for test in others if plain[test]["became"] not in ("failed", "skipped", ours[test]["became"])}
    listed = {test for group in DIFFERS[way].values() for test in group.split()}
    ran = [line for line in ours.values() if line["became"] != "skipped"]
    by_rule = sum(line["rules"] > 0 for line in ran)
    record_property(f"{file} {way}", f"{len(ran)} run, {by_rule} of them through a rule, {len(differ)} differ")
    new = [f"{test} {ours[test]['became']}: {ours[test]['said']}" for test in sorted(differ - listed)]
    gone = [f"{test}: take it off the list" for test in sorted(listed & ours.keys() - {*others})]
    assert by_rule
    assert not new + gone, "\n".join(new + gone)
