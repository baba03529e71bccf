"""A small C library in the place of the kernels, to be built by compilers of every kind into a cache of its own."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manualbp.kernels.cpu import build, cache

CC = shutil.which("cc") or shutil.which("gcc")
NEEDED = pytest.mark.skipif(sys.platform != "linux" or CC is None, reason="no Linux with a compiler cc or gcc")
SOURCES = {
    "number.h": "enum { NUMBER = 42 };\n",
    "answer.c": '/* The answer: a number. */\n#include "number.h"\nlong answer(void) { return NUMBER; }\n',
    "doubled.c": """/* Numbers, doubled
   in place. */
#include <omp.h>
long doubled(float *x, long n, long threads) {
    long number = 0;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        number = omp_get_num_threads();
#pragma omp for
        for (long i = 0; i < n; i++) x[i] *= 2;
    }
    return number;
}
""",
}


def new_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """C sources, of which `build.library()` is made, with an empty cache, as in a new process."""
    sources = folder / "sources"
    sources.mkdir()
    for name, text in SOURCES.items():
        (sources / name).write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name in ("CC", "MANUALBP_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "_found", None)
    load = build.load
    monkeypatch.setattr(build, "load", lambda folder=sources: load(folder))
    return sources


def use_compiler(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make $CC a shell script that does this first, and return its log: a line for each file that is compiled."""
    script, log = folder / "compiler", folder / "log"
    asked = f'case "$*" in *--version*|*" -E "*) exec {CC} "$@";; esac\n'
    script.write_text(f'#!/bin/sh\n{asked}echo "$*" >> {log}\n{does}\nexec {CC} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    return log


def compiled(log: Path) -> int:
    return sum(" -c " in line for line in log.read_text().splitlines())


def answer() -> Any:
    """What the library answers, or why there is none."""
    library = build.library()
    return build.why_not() if library is None else library.answer()


def forked(f: Callable[[], Any], processes: int = 1) -> list[Any]:
    """What f returns in so many processes, all at once. They are copies of this one, which must have no library."""
    assert build._found is None
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        waiting = [pool.apply_async(f) for _ in range(processes)]
        return [result.get(60) for result in waiting]


def in_cache() -> list[Path]:
    """Libraries, and what builds have left."""
    return sorted(path for path in cache.folder().iterdir() if path.name != "lock")
