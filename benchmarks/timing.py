"""Times of some steps that take turns in one process, so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping

from manualbp import keep_freed_memory


def in_turns(steps: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Milliseconds that each step took in each round after those that warm up.

    Freed memory is kept, as `train.py` does it: else luck decides which step gets its memory anew from the system.
    """
    keep_freed_memory()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + warm_up):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start))
    return times
