"""python -m benchmarks.fuzz: that it has a row for every name, that it finds mistakes, and ten seconds of it."""

import random
import subprocess
import sys
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

from benchmarks import fuzz
from benchmarks.fuzz_compare import compared
from benchmarks.fuzz_modules import MODULES
from benchmarks.fuzz_rules import FUNCTIONS
from manualbp import functional as F
from manualbp import nn as layers
from manualbp.functional.activation.relu import ReLU
from manualbp.functional.activation.sigmoid import Tanh
from manualbp.kernels import pool


def test_every_public_name_that_pytorch_has_is_drawn() -> None:
    assert FUNCTIONS.keys() == {name for name in F.__all__ if hasattr(T, name)}
    assert MODULES.keys() == {name for name in layers.__all__ if hasattr(nn, name)}


def test_a_case_is_made_from_its_name_alone() -> None:
    torch.manual_seed(0)
    first = compared("Conv2d:3:1")[1]
    torch.manual_seed(1)
    again = compared("Conv2d:3:1")[1]
    other = compared("Conv2d:3:2")[1]
    assert first.described() == again.described() != other.described()
    for name, t in first.call.tensors.items():
        assert t is None or torch.equal(t.values, again.call.tensors[name].values)  # pyright: ignore[reportOptionalMemberAccess]


def failures(name: str, most: int, networks: bool = False) -> list[str]:
    """Why the first of so many cases failed."""
    some = islice(fuzz.cases(1, "" if networks else name, networks, not networks), most)
    found = (fuzz.verdict(case)[0] for case in some)
    return [verdict.why for verdict in found if verdict.kind == "FAILED"]


def wrong_slope(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta * (1 - y)


def wrong_mask(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    return delta * (y > 0.1)


@pytest.mark.parametrize(
    ("where", "attribute", "wrong", "name"),
    [
        (Tanh, "backward", staticmethod(wrong_slope), "tanh"),
        (Tanh, "backward", staticmethod(wrong_slope), "Tanh"),
        (pool, "window_mean", lambda x, g, *_: T.avg_pool2d(x, g.w_size, g.stride, g.padding), "avg_pool2d"),
    ],
    ids=["a slope", "in a module", "settings that are forgotten"],
)
def test_a_wrong_rule_is_found(
    where: Any, attribute: str, wrong: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, attribute, wrong)
    found = failures(name, 40)
    assert any("off of" in why or " for " in why for why in found), found


def test_a_wrong_rule_is_found_in_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReLU, "backward", staticmethod(wrong_mask))
    assert any("off by" in why for why in failures("", 12, networks=True))


def test_a_case_that_kills_its_process_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The case before it and the one after it run."""

    def dies(case: str, tell: Any) -> Any:
        if case == "relu:1:1":
            raise SystemExit(9)
        return fuzz.Verdict("same"), ""

    monkeypatch.setattr(fuzz, "verdict", dies)
    counts = fuzz.Counts()
    fuzz.run(5, (f"relu:1:{i}" for i in range(3)), counts)
    assert counts.failed == ["relu:1:1"]
    assert counts.cases["relu"] == 3


def test_ten_seconds() -> None:
    """The seed is a new one in each run; the lines that are printed run a failure again."""
    seed = random.SystemRandom().randrange(10**6)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz", "--seconds", "10", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"seed {seed}" in done.stdout
