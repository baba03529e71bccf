"""Times of some steps that take turns in one process, so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping


def in_turns(steps: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Milliseconds that each step took in each round after those that warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + warm_up):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start))
    return times
