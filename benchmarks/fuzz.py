"""python -m benchmarks.fuzz: random configurations of every rule and module, and random networks, beside torch.nn.

Each case is made from its name alone, NAME:SEED:INDEX, so that `--case` runs it again, whatever ran before it. Each
failure is printed as such a line, and at the end what was run, and what was refused and why; after a failure the exit
status is 1. Cases run in a process of their own, so that one that kills it is found, too: by hand that is a failure.
"""

import argparse
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

import manualbp
from benchmarks.fuzz_compare import Verdict, compared, said
from benchmarks.fuzz_modules import MODULES
from benchmarks.fuzz_networks import drawn
from benchmarks.fuzz_rules import FUNCTIONS
from benchmarks.fuzz_ways import check, keeps_more

NAMES = [*FUNCTIONS, *MODULES]
BATCH = 5000  # cases a process
RULES_A_NETWORK = 25
MEMORY = 10  # of so many networks one is asked what it keeps


@dataclass
class Counts:
    """What was run: by name, and by what came out of it."""

    cases: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: str, verdict: Verdict, described: str) -> None:
        self.cases[case.split(":")[0]] += 1
        self.verdicts[": ".join([verdict.kind, verdict.why][: 1 + bool(verdict.why and verdict.kind != "FAILED")])] += 1
        if verdict.kind == "FAILED":
            self.failed.append(case)
            print(
                f"FAILED  python -m benchmarks.fuzz --case {case}\n        {verdict.why}\n        {described}",
                flush=True,
            )

    def __str__(self) -> str:
        networks = self.cases["network"]
        lines = [
            f"{self.cases.total() - networks} configurations of {len(self.cases) - bool(networks)} names, "
            f"{networks} networks, {len(self.failed)} failures, {self.seconds:.0f} s of processor time",
            "by name: " + ", ".join(f"{name} {n}" for name, n in sorted(self.cases.items())),
            *(f"{n:7}  {kind}" for kind, n in self.verdicts.most_common()),
        ]
        return "\n".join(lines)


def verdict(case: str, tell: Callable[[str], None] = lambda side: None) -> tuple[Verdict, str]:
    """(what came out of the case, its description)."""
    name, _, index, *_ = case.split(":")
    if name != "network":
        found, trial = compared(case, tell)
        return found, trial.described()
    found = check(case, tell)
    remark = keeps_more(case) if found.kind == "same" and int(index) % MEMORY == 0 else ""
    return (Verdict("remark", f"a network {remark}") if remark else found), ""


def cases(seed: int, only: str, networks: bool, rules: bool) -> Iterator[str]:
    """The names of the cases, without end."""
    names = [name for name in NAMES if not only or name == only]
    index = 0
    while True:
        if networks and (not rules or index % RULES_A_NETWORK == 0):
            yield f"network:{seed}:{index}"
        if rules:
            yield f"{names[index % len(names)]}:{seed}:{index}"
        index += 1


def run_here(some: list[str], until: float, pipe: Any) -> None:
    """Runs them, and sends (case, side) before and (case, verdict, description, seconds) after each."""
    torch.set_num_threads(1)
    for case in some:
        if time.monotonic() > until:
            break
        start = time.process_time()
        pipe.send((case, "manualbp"))
        try:
            found, described = verdict(case, lambda side, case=case: pipe.send((case, side)))
        except Exception as error:
            found, described = Verdict("FAILED", f"in the fuzzer itself: {said(error)}"), ""
        pipe.send((case, found, described, time.process_time() - start))


def run(seconds: float, all_cases: Iterator[str], counts: Counts) -> None:
    """For so many seconds, in one process after another."""
    until, left = time.monotonic() + seconds, []
    context = multiprocessing.get_context("fork")
    while time.monotonic() < until:
        left += islice(all_cases, BATCH - len(left))
        if not left:
            break
        ours, its = context.Pipe(duplex=False)
        process = context.Process(target=run_here, args=(left, until, its))
        process.start()
        its.close()
        side = "manualbp"
        while (message := received(ours)) is not None:
            if len(message) == 2:
                side = message[1]
                continue
            case, found, described, spent = message
            counts.add(case, found, described)
            counts.seconds += spent
            left.remove(case)
        process.join()
        if process.exitcode:
            died = Verdict("FAILED", f"the process died ({process.exitcode}) by hand")
            died = Verdict("PyTorch dies", left[0].split(":")[0]) if side == "PyTorch" else died
            counts.add(left.pop(0), died, "")


def received(pipe: Any) -> tuple[Any, ...] | None:
    """The next message, or None at the end."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: a new one")
    parser.add_argument("--only", choices=NAMES, default="", metavar="NAME", help="one rule or module")
    parser.add_argument("--rules", action="store_true", help="no networks")
    parser.add_argument("--networks", action="store_true", help="no rules")
    parser.add_argument("--case", help="run this one alone: NAME:SEED:INDEX; a network's :STEPS cuts it off")
    chosen = parser.parse_args(arguments)
    if chosen.case:
        found, described = verdict(chosen.case)
        print(drawn(chosen.case)[0] if chosen.case.startswith("network") else described)
        print(f"{found.kind}  {found.why}")
        return int(found.kind == "FAILED")
    print(
        f"torch {torch.__version__}, manualbp {manualbp.__version__}, seed {chosen.seed}, {chosen.seconds:.0f} s",
        flush=True,
    )
    counts = Counts()
    run(
        chosen.seconds,
        cases(chosen.seed, chosen.only, not chosen.rules and not chosen.only, not chosen.networks),
        counts,
    )
    print(counts)
    return int(bool(counts.failed))


if __name__ == "__main__":
    raise SystemExit(main())
