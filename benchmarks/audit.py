"""python -m benchmarks.audit: gradcheck, its fast mode, gradgradcheck and manualbp.audit on backward passes by hand.

The samples of benchmarks.mistakes are wrong in one point each, or right. A line each says what the four made of it, and
the end counts what they caught, what they named, and where they raised a false alarm. What a check raises counts as an
alarm. Memory that nobody filled holds NaN here, so that no check depends on what was in it before. Seconds are of
processor time.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

from benchmarks.mistakes import SAMPLES, Sample


@dataclass(frozen=True)
class Said:
    """What a check said of a sample: "right", "wrong", "cannot tell", or the exception that it ended with."""

    verdict: str
    causes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def alarm(self) -> bool:
        return self.verdict not in ("right", "cannot tell")

    def __str__(self) -> str:
        return f"{'; '.join([self.verdict, *self.causes])} ({self.seconds:.2f} s)"


@contextmanager
def no_chance() -> Iterator[None]:
    """The same random numbers each time, and NaN in memory that nobody filled."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gradcheck's about float32
            torch.manual_seed(0)
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def by_gradcheck(sample: Sample) -> Said:
    return Said("right" if gradcheck(sample.f, sample.inputs()) else "wrong")


def by_fast_mode(sample: Sample) -> Said:
    return Said("right" if gradcheck(sample.f, sample.inputs(), fast_mode=True) else "wrong")


def by_gradgradcheck(sample: Sample) -> Said:
    return Said("right" if gradgradcheck(sample.f, sample.inputs()) else "wrong")


def by_audit(sample: Sample) -> Said:
    from manualbp import audit

    report = audit(sample.f, *sample.inputs())
    return Said(report.verdict, tuple(report.causes))


CHECKS: dict[str, Callable[[Sample], Said]] = {
    "gradcheck": by_gradcheck,
    "fast mode": by_fast_mode,
    "gradgradcheck": by_gradgradcheck,
    "audit": by_audit,
}


def said(check: Callable[[Sample], Said], sample: Sample) -> Said:
    start = time.process_time()
    with no_chance():
        try:
            found = check(sample)
        except GradcheckError:
            found = Said("wrong")
        except Exception as error:
            found = Said(type(error).__name__)
    return Said(found.verdict, found.causes, time.process_time() - start)


def summary(name: str, all_said: list[tuple[Sample, Said]]) -> str:
    caught = [(sample, found) for sample, found in all_said if sample.cause and found.alarm]
    wrong = sum(sample.cause is not None for sample, _ in all_said)
    false = sum(sample.cause is None and found.alarm for sample, found in all_said)
    open_ones = sum(found.verdict == "cannot tell" for _, found in all_said)
    rightly = sum(sample.cause in found.causes for sample, found in caught)
    unnamed = sum(not found.causes for _, found in caught)
    return (
        f"{name:13}  caught {len(caught)} of {wrong} (named rightly {rightly}, wrongly "
        f"{len(caught) - rightly - unnamed}, not {unnamed}), false alarms {false} of {len(all_said) - wrong}, "
        f"cannot tell {open_ones}, {sum(found.seconds for _, found in all_said):.1f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="samples with this text in their name")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, list[tuple[Sample, Said]]] = {name: [] for name in CHECKS}
    for check in CHECKS.values():
        said(check, SAMPLES[0])  # the first call imports what it needs, and is not timed
    for sample in SAMPLES:
        if chosen.only not in sample.name:
            continue
        for name, check in CHECKS.items():
            results[name].append((sample, said(check, sample)))
        line = ", ".join(f"{name}: {results[name][-1][1]}" for name in CHECKS)
        print(f"{sample.name} [{sample.cause or 'right'}]  {line}", flush=True)
    for name, all_said in results.items():
        print(summary(name, all_said))


if __name__ == "__main__":
    main()
