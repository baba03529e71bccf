"""What `python -m manualbp kernels` prints: which kernels are used here, and why."""

import ctypes
import platform
import re
import time
from pathlib import Path
from textwrap import wrap

import torch

from manualbp.kernels.cpu import build, cache, compiler

WIDTH, LABEL = 80, 11
MIB = 2**20


def report(folder: Path = build.HERE) -> str:
    """Each row begins with its label, in at most 80 columns. The C sources are in `folder`."""
    try:
        which, table = state(folder), used(folder)
    except (compiler.NoKernelsError, OSError) as error:
        which, table = f"PyTorch's operations: {error}", []
    rows = [("kernels", which), *tools(folder), ("threads", str(build.threads())), ("cache", kept()), *table]
    lines = []
    for label, words in rows:
        lines += wrap(
            words, WIDTH, initial_indent=label.ljust(LABEL), subsequent_indent=" " * LABEL, break_on_hyphens=False
        )
    return "\n".join(lines)


def state(folder: Path) -> str:
    """How it stands with the compiled kernels. Raises: NoKernelsError or OSError where they cannot be used."""
    build.require_compiled()
    it = build.plan(folder)
    if not cache.whole(it.path, it.key):
        return "not built yet: this is done on first use, or by --build"
    ctypes.CDLL(str(it.path))
    return f"compiled: the library {it.path.name} is built, and loads"


def tools(folder: Path) -> list[tuple[str, str]]:
    """With what they are built, and for which processor; nothing where something is missing, as `state` tells."""
    try:
        it = compiler.find_tools()
        native = compiler.native(it.command)
        vectors = compiler.run([[*it.command, native, "-E", "-P", str(folder / "vector.h")]])[0]
    except (compiler.NoKernelsError, OSError):
        return []
    width = re.search(r"enum \{ V = (\d+) \}", vectors)
    name = re.search(r"model name\s*: (.+)", it.processor)
    return [
        ("compiler", f"{' '.join(it.command)}: {it.version.splitlines()[0]}"),
        ("flags", " ".join([*compiler.COMPILE, native])),
        ("processor", (name[1] if name else platform.machine()) + (f", {width[1]} floats a vector" if width else "")),
        ("OpenMP", f"{it.pool.name} of PyTorch {torch.__version__}"),
    ]


def kept() -> str:
    try:
        sizes = [path.lstat().st_size for path in cache.libraries(cache.folder())]
    except OSError as error:
        return str(error)
    return f"{cache.folder()}: {counted(len(sizes), sum(sizes))}"


def built(folder: Path = build.HERE) -> str:
    """Build the library where it is not there. Raises: NoKernelsError, OSError."""
    start = time.perf_counter()
    it = build.plan(folder)
    before = cache.whole(it.path, it.key)
    build.load(folder)
    return "built already" if before else f"built in {time.perf_counter() - start:.1f} s"


def counted(libraries: int, size: int) -> str:
    return f"{libraries} librar{'y' if libraries == 1 else 'ies'}, {size / MIB:.1f} MiB"


def used(folder: Path) -> list[tuple[str, str]]:
    """What each source file computes, as the comment at its head begins, and where to ask what serves a call."""
    found = []
    for path in sorted(folder.glob("*.c")):
        head = re.match(r"/\*(.+?)[.:(]", path.read_text(), re.DOTALL)
        found.append((path.stem, " ".join(head[1].split()) if head else ""))
    return [*found, ("choice", "manualbp.kernels.chosen(op, input, weight, ...) tells what serves a call")]
