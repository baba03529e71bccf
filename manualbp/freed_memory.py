"""What the C library does with memory that is freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, for the next step; other C libraries are left as they are.

    It hands blocks of more than 32 MB back to the system at once, and each is then mapped anew, a page fault every
    4 KB: up to a third of a training step on a CPU. The process stays as large as it ever was. `train.py` and the
    benchmarks call this at their start; your own script may, too, before its first step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
