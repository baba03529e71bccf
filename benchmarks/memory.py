"""What a training step keeps for its backward pass, and how much memory it needs at its peak."""

import contextlib
import ctypes
import gc
import platform
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.processes import alone
from benchmarks.variants import BASE, Setting, Training, variants_of

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
RUNS = 2  # of each peak; the larger one counts
MIB = 2**20


def kept_bytes(forward: Callable[[], Tensor], apart_from: Iterable[Tensor]) -> int:
    """Bytes that the graph of forward() holds for the backward pass: distinct storages, the images among them.

    Not counted: the storages of `apart_from`, the parameters and buffers, which are there anyway.
    """
    known = {t.untyped_storage().data_ptr() for t in apart_from}
    storages = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage  # held, so that no other gets its address
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        forward()
    return sum(storage.nbytes() for storage in storages.values())


def kept_by(training: Training) -> int:
    model = training.model
    return kept_bytes(training.loss, [*model.parameters(), *model.buffers()])


def kept_and_peak(name: str, s: Setting) -> tuple[int, int | None]:
    """Bytes kept, and those that the second step needs at its peak beside weights and batch: gradients count.

    The peak is None where the system does not tell it.
    """
    own_blocks()
    training = Training(name, s)
    training()
    training.optimizer.zero_grad()
    gc.collect()
    if s.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        training()
        peak = torch.cuda.max_memory_allocated() - before
    elif sys.platform == "linux":
        give_back()
        before = status("VmRSS")
        with contextlib.suppress(OSError):  # refused in some containers: then it is the peak of both steps
            Path("/proc/self/clear_refs").write_text("5")
        training()
        peak = status("VmHWM") - before
    else:
        peak = None
    return kept_by(training), peak


def own_blocks() -> None:
    """Have glibc take blocks above 64 KB from the system and hand them back when they are freed, the opposite of

    `keep_freed_memory`: what is in use is counted then, and not what chance left between.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)


def give_back() -> None:
    """Have glibc hand back what else is free."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def status(field: str) -> int:
    """Bytes, by Linux's account of this process: VmRSS is resident, VmHWM the most that was, VmData is its data."""
    found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])


def memory(s: Setting) -> list[dict[str, Any]]:
    """A row a variant: bytes kept and at the peak, and both over those of torch.nn's default.

    Each in processes of its own. `peaks` are those of each run, the larger one counts.
    """
    rows = []
    for name in variants_of(s):
        kept, peaks = zip(*(alone(kept_and_peak, name, s) for _ in range(RUNS)), strict=True)
        peaks = [peak for peak in peaks if peak is not None]
        rows.append({"variant": name, "kept": kept[0], "peak": max(peaks, default=None), "peaks": peaks})
    base = next(row for row in rows if row["variant"] == BASE)
    for row in rows:
        row["kept_ratio"] = row["kept"] / base["kept"]
        row["peak_ratio"] = row["peak"] / base["peak"] if row["peak"] is not None else None
    return rows
