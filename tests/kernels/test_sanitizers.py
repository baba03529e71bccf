"""The C kernels under AddressSanitizer and UndefinedBehaviorSanitizer, over the cases of test_cpu_*.py.

A tensor's memory comes from the sanitizer's malloc: a number that is read or written in front of it or behind it ends
the process. All new memory is full of NaN, so that a result that depends on what was in it is seen.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from manualbp.kernels.cpu import build, compiler
from tests.kernels.building import CC, NEEDED

ROOT = Path(__file__).parents[2]
CASES = sorted(str(path) for path in Path(__file__).parent.glob("test_cpu_*.py"))
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# The second one has the real __cxa_throw, which the first one looks for when it is loaded.
PRELOADED = [
    subprocess.run([CC or "true", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    for name in ("libasan.so", "libstdc++.so.6")
]
# What they leave alone: the masked loads and stores of AVX-512. NARROW is without them.
NARROW = ("-mno-avx512f",) if platform.machine() == "x86_64" else ()
# By torch.compile, over many shapes, or an activation that reads and writes as GELU does: nothing new about memory.
LEFT_OUT = "compiled or largest_error or (as_exact and (sigmoid or tanh or silu))"
OPTIONS = "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=4000000000"
pytestmark = [
    NEEDED,
    pytest.mark.skipif(not all(map(os.path.isabs, PRELOADED)), reason="the compiler has no AddressSanitizer"),
]

PLANTED = """
#include "vector.h"
long right(float *x, long n) {
    for (long i = 0, some; i < n; i += V) {
        some = smaller(V, n - i);
        store_some(FLOAT, x, i, load_some(FLOAT, x, i, some) * 2, some);
    }
    return 0;
}
long reads_behind(float *x, long n) { return x[n] > 0; }
long reads_before(float *x, long n) { return x[-1] > 0; }
long writes_behind(float *x, long n) { x[n] = 0; return 0; }
long loads_a_vector_behind(float *x, long n) { return load(x + n - V + 1)[0] > 0; }
long loads_some_behind(float *x, long n) { return load_some(FLOAT, x, n - 2, 3)[0] > 0; }
long loads_halves_behind(float *x, long n) { return load_some(HALF, x, 2 * n - 2, 3)[0] > 0; }
long stores_some_behind(float *x, long n) { store_some(BFLOAT16, x, 2 * n - 2, all(0), 3); return 0; }
long overflows(float *x, long n) { int many = n; return many * 2147483647; }
long shifts_too_far(float *x, long n) { return 1 << n; }
"""
RUN = """
import ctypes, os, sys, torch
kernels = ctypes.CDLL(sys.argv[1])
for name in sys.argv[2:]:
    x = torch.ones(33)
    child = os.fork()
    if not child:
        getattr(kernels, name)(ctypes.c_void_p(x.data_ptr()), ctypes.c_long(33))
        os._exit(0)
    print(name, os.waitpid(child, 0)[1] == 0, flush=True)
"""


def sanitized(sources: Path, to: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> Path:
    monkeypatch.setattr(compiler, "COMPILE", (*compiler.COMPILE, *SANITIZERS, *flags))
    monkeypatch.setattr(compiler, "LINK", ("-shared", *SANITIZERS))
    compiler.compile_and_link(compiler.find_tools(), sorted(sources.glob("*.c")), to / "kernels.so")
    return to / "kernels.so"


def run(command: list[str], library: Path) -> subprocess.CompletedProcess[str]:
    environment = {"LD_PRELOAD": " ".join(PRELOADED), "ASAN_OPTIONS": OPTIONS, "SANITIZED_LIBRARY": str(library)}
    environment |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600
    )


def test_planted_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.c").write_text(PLANTED)
    (tmp_path / "vector.h").write_bytes((build.HERE / "vector.h").read_bytes())
    library = sanitized(tmp_path, tmp_path, monkeypatch, *NARROW)
    names = [line.split()[1].split("(")[0] for line in PLANTED.splitlines() if line.startswith("long ")]
    done = run(["-c", RUN, str(library), *names], library)
    assert done.stdout.splitlines() == [f"{name} {name == 'right'}" for name in names], done.stderr
    assert done.stderr.count("ERROR: AddressSanitizer: ") == 7
    assert done.stderr.count("runtime error: ") == 2


def test_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = sanitized(build.HERE, tmp_path, monkeypatch, *NARROW)
    how = ["-n", "0", "-q", "-p", "tests.kernels.sanitized", "-p", "no:cacheprovider", "-k", f"not ({LEFT_OUT})"]
    done = run(["-m", "pytest", *how, *CASES], library)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
