"""Where the time of a step goes: each rule of manualbp, forward and backward, beside torch.nn's operations."""

import re
from collections import Counter, defaultdict
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.variants import BY_HAND, Setting, Training

STEPS = 5
BACKWARD = "autograd::engine::evaluate_function: "


def rules(s: Setting) -> list[dict[str, Any]]:
    """A row an operation of either variant, both in channels_last: milliseconds and calls of a step.

    Whatever an operation calls counts as its own. On CUDA it is the device's time, else the CPU's.
    """
    return [
        {"variant": name, "operation": operation, "part": part, "ms": ms, "calls": calls}
        for name in ("torch.nn, channels_last", BY_HAND)
        for (operation, part), (ms, calls) in sorted(_times(name, s).items(), key=lambda item: -item[1][0])
    ]


def _times(name: str, s: Setting) -> dict[tuple[str, str], tuple[float, int]]:
    """(operation, part of the step): (milliseconds, calls) of one step."""
    training = Training(name, s)
    training()
    on_cuda = s.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiler:
        for _ in range(STEPS):
            training()
    times, calls = defaultdict(float), Counter()
    for event in profiler.events() or ():
        if event.cpu_parent is None and event.device_type.name == "CPU":
            key = operation_of(event.name)
            times[key] += (event.device_time_total if on_cuda else event.cpu_time_total) / 1000 / STEPS
            calls[key] += 1
    return {key: (ms, round(calls[key] / STEPS)) for key, ms in times.items()}


def operation_of(event: str) -> tuple[str, str]:
    """(what it is called in the sources, "forward", "backward" or "update") of a profiler's event that no other calls.

    A rule's node is named by the class that ran, its dual; PyTorch's by a number at the end.
    """
    if event.startswith(BACKWARD):
        node = event.removeprefix(BACKWARD)
        return re.sub(r"(Dual)?Backward\d*$", "", node.rpartition("::")[2]), "backward"
    if event.startswith("Optimizer."):
        return re.sub(r"^Optimizer\.(\w+)#(\w+?)\..*$", r"\2.\1", event), "update"
    return event.removesuffix("Dual"), "forward"
