"""The machine: what it is, and what it can do at most in the same run, in matrix products and in copies."""

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as T
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import in_turns
from benchmarks.variants import BASE, DTYPES, Setting, Training, allow_tf32

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
COPIED = {"cpu": 2**27, "cuda": 2**31}  # bytes, more than a cache holds
ROUNDS = 15


def machine(device: str, dtypes: list[str]) -> dict[str, Any]:
    """What it is called, and its limits: FLOP/s of a product in each dtype, bytes a second of a copy (read + written).

    The product is measured both ways that PyTorch has: torch.mm, and as a 1 x 1 convolution, which on a CPU is
    oneDNN's where the former is MKL's. The better one counts, and of each the fastest of its rounds: a limit.
    """
    allow_tf32()
    rates, copy = {}, _copy(device)
    for dtype in dtypes:
        works = products(device, dtype)
        of_each = {name: rate(device, min(ms)) for name, ms in in_turns(works, ROUNDS).items()}
        rates[dtype] = {"rate": max(of_each.values()), "ways": of_each}
    ms = min(in_turns({"copy": _timed(copy, device)}, ROUNDS)["copy"])
    return {
        "torch": torch.__version__,
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else cpu(),
        "threads": torch.get_num_threads(),
        "tf32": device == "cuda",
        "products": rates,
        "copy": 2 * COPIED[device] / (ms / 1000),
    }


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def flops(s: Setting) -> int:
    """Of a training step of torch.nn: products and convolutions, forward and backward, an addition being one."""
    training = Training(BASE, s)
    with FlopCounterMode(display=False) as counter:
        training.loss().backward()
    return counter.get_total_flops()


def products(device: str, dtype: str) -> dict[str, Callable[[], None]]:
    a, b = (torch.randn(SIDE[device], SIDE[device], device=device, dtype=DTYPES[dtype]) for _ in range(2))
    x, w = a[None, :, :, None], b[:, :, None, None]
    works = {"torch.mm": lambda: torch.mm(a, b), "1 x 1 convolution": lambda: T.conv2d(x, w)}
    return {name: _timed(work, device) for name, work in works.items()}


def rate(device: str, ms: float) -> float:
    """FLOP/s of a product that took so long."""
    return 2 * SIDE[device] ** 3 / (ms / 1000)


def _copy(device: str) -> Callable[[], object]:
    a, b = (torch.zeros(COPIED[device], dtype=torch.uint8, device=device) for _ in range(2))
    return lambda: b.copy_(a)


def _timed(work: Callable[[], object], device: str) -> Callable[[], None]:
    def done() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return done
