"""The largest batch that can be trained in a given memory: tried, each time in a process of its own."""

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.memory import give_back, own_blocks, status
from benchmarks.processes import DiedError, alone
from benchmarks.variants import BY_HAND, TORCH, Setting, Training, variants_of

FIRST = 8  # images tried first; then twice as many, and so on
CLOSE = 0.02  # of the largest batch: where the search ends


def fits(name: str, s: Setting, room: int) -> bool:
    """Whether a step of s.batch images can be done in `room` bytes beside what is there after a step of one image.

    There are then weights, gradients and whatever is made once. On a CPU the limit is set to the process's data
    (RLIMIT_DATA), on CUDA to PyTorch's share of the device.
    """
    own_blocks()
    training = Training(name, replace(s, batch=1))
    training()
    gc.collect()
    if s.device == "cuda":
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + room) / whole))
    else:
        give_back()
        limit = status("VmData") + room
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        training.draw(s.batch)
        training()
    except (RuntimeError, MemoryError):  # a library's own words for want of memory differ; one image was no error
        return False
    return True


def largest(fit: Callable[[int], bool]) -> int:
    """The largest n for which fit(n) holds, to 2 %, if it holds for all that are smaller; 0 if there is none."""
    low, high = 0, FIRST
    while fit(high):
        low, high = high, 2 * high
    while high - low > max(1, CLOSE * low):
        middle = (low + high) // 2
        low, high = (middle, high) if fit(middle) else (low, middle)
    return low


def capacity(s: Setting, room: int) -> list[dict[str, Any]]:
    """A row a variant: the largest batch, and over the larger of torch.nn's two (what is compiled is made for a batch).

    A process that ends without an answer did not fit: a library that cannot be refused memory aborts.
    """
    if s.device != "cuda" and sys.platform != "linux":
        return []

    def fit(name: str, batch: int) -> bool:
        try:
            return alone(fits, name, replace(s, batch=batch), room)
        except DiedError:
            return False

    rows = []
    for name in variants_of(s):
        if name in (*TORCH[:2], BY_HAND, "manualbp, fused"):
            alone(fits, name, replace(s, batch=1), room)  # raises what is wrong with the variant itself
            rows.append({"variant": name, "batch": largest(lambda batch, name=name: fit(name, batch))})
    best = max(row["batch"] for row in rows if row["variant"] in TORCH)
    for row in rows:
        row["ratio"] = row["batch"] / best if best else None
    return rows
