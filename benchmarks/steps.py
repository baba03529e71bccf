"""How long a training step takes: all variants in turns, in one process."""

import statistics
from typing import Any

from benchmarks.machine import products, rate
from benchmarks.timing import in_turns
from benchmarks.variants import BASE, TORCH, Setting, Training, variants_of


def steps(s: Setting, rounds: int, flops: int) -> list[dict[str, Any]]:
    """A row a variant: milliseconds (median and quartiles), over torch.nn's default, and over torch.nn's best mode.

    `gradient`: the relative distance of the first step's gradient from that of torch.nn's default: whether the same
    was computed. `share`: of the machine's own rate in matrix products (`rate`, FLOP/s; these take turns with the
    steps, so that other work slows both), by the FLOPs of the step.
    """
    trainings = {name: Training(name, s) for name in variants_of(s)}
    gradients = {name: training.gradient() for name, training in trainings.items()}
    expected = gradients[BASE]
    works = products(s.device, s.dtype)
    times = in_turns({**trainings, **works}, rounds)
    fastest = max(rate(s.device, statistics.median(times.pop(name))) for name in works)
    rows = []
    for name, taken in times.items():
        low, median, high = statistics.quantiles(taken, n=4) if rounds > 1 else taken * 3
        rows.append(
            {
                "variant": name,
                "ms": median,
                "quartiles": [low, high],
                "gradient": ((gradients[name] - expected).norm() / expected.norm()).item(),
                "share": flops / (median / 1000) / fastest,
                "rate": fastest,
            }
        )
    base = next(row["ms"] for row in rows if row["variant"] == BASE)
    best = min(row["ms"] for row in rows if row["variant"] in TORCH)
    for row in rows:
        row["ratio"], row["ratio_to_best"] = row["ms"] / base, row["ms"] / best
    return rows
