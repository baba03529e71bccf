"""One of PyTorch's test files, run in one way; what became of every test is written as a line of JSON.

A program of its own, `python -m tests.pytorch.one_way DIR FILE WAY RESULTS [TEST ...]`: the file and its helpers change
global settings, and a way lasts until the process ends. The tests are all of DIR/FILE, or those that are named. Ways:

    plain     PyTorch's own
    by_hand   each test inside `manualbp.by_hand()`
    modules   manualbp.nn's classes stand in torch.nn, in the place of those of the same name
"""

import importlib
import json
import os
import sys
import time
import unittest
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

os.environ["PYTORCH_TESTING_DEVICE_ONLY_FOR"] = "cpu"  # read when torch.testing._internal is loaded

import torch
import torch.testing._internal

import manualbp
from manualbp.convert import LAYERS
from manualbp.functional.rule import Rule


class Engines:
    """What torch.backends.quantized.supported_engines was up to 2.13: older helpers take "none" out of it."""

    def __get__(self, *_: Any) -> list[str]:
        return ["none", "fbgemm"]


def load(tests: Path, file: str) -> Any:
    """The test file as a module, with the helpers that stand in the same source tree, where they do.

    An older file asks for some that the installed PyTorch has no more.
    """
    sys.path.insert(0, str((tests / file).parent))
    torch.testing._internal.__path__.insert(0, str(tests.resolve().parent / "torch" / "testing" / "_internal"))
    if "none" not in torch.backends.quantized.supported_engines:
        type(torch.backends.quantized).supported_engines = Engines()  # pyright: ignore[reportAttributeAccessIssue]
    return importlib.import_module(Path(file).stem)


class Outcomes(unittest.TestResult):
    """Writes a line a test: its name, what became of it, what it said, how often a rule ran in it."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out, self.became, self.said, self.rules, self.began = out, "", "", 0, 0.0

    def count_rules(self) -> None:
        def counted(cls: type[Rule], *args: Any) -> Any:
            self.rules += 1
            return super(Rule, cls).apply(*args)

        Rule.apply = classmethod(counted)  # pyright: ignore[reportAttributeAccessIssue]

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.became, self.said, self.rules, self.began = "passed", "", 0, time.perf_counter()

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        seconds = round(time.perf_counter() - self.began, 2)
        line = {"test": name(test), "became": self.became, "said": self.said, "rules": self.rules, "seconds": seconds}
        print(json.dumps(line), file=self.out, flush=True)

    def failed(self, error: Any, became: str = "failed") -> None:
        said = f"{error[0].__name__}: {error[1]}".partition("To execute this test")[0]
        self.became, self.said = became, " ".join(said.split())[:400]

    def addError(self, test: Any, err: Any) -> None:
        self.failed(err)

    def addFailure(self, test: Any, err: Any) -> None:
        self.failed(err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.failed(err)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.failed(err, "failed as expected")

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.became = "passed unexpectedly"

    def addSkip(self, test: Any, reason: str) -> None:
        self.became, self.said = "skipped", reason


def name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def main(tests: str, file: str, way: str, results: str, *named: str) -> None:
    if way == "modules":
        for theirs, ours in LAYERS.items():
            setattr(torch.nn, theirs.__name__, ours)
    module = load(Path(tests), file)
    kinds = {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, unittest.TestCase)}
    with open(results, "w") as out:
        outcomes = Outcomes(out)
        outcomes.count_rules()
        for kind in sorted(kinds, key=lambda kind: kind.__name__):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
                if not named or name(test) in named:
                    with manualbp.by_hand() if way == "by_hand" else nullcontext():
                        test.run(outcomes)


if __name__ == "__main__":
    main(*sys.argv[1:])
