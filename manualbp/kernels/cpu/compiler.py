"""The system's C compiler: which one, and how it is run."""

import contextlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

COMPILE = ("-O3", "-fno-math-errno", "-fno-signed-zeros", "-fno-trapping-math", "-fPIC", "-fopenmp")
NATIVE = ("-march=native", "-mcpu=native")  # the second one where a compiler refuses the first
LINK = ("-shared", "-Wl,-z,defs")  # a function that is missing is told now, and not when it is called
SECONDS = 300.0  # that the compiler is given
PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # lines of /proc/cpuinfo: x86, then ARM


class NoKernelsError(Exception):
    """There are none, for this reason; `words` are the compiler's."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(reason)
        self.words = words


class Tools(NamedTuple):
    """What builds a library: the compiler's command, what it says it is, PyTorch's libgomp; and for which processor."""

    command: tuple[str, ...]
    version: str
    pool: Path
    processor: str


def find_tools() -> Tools:
    """Raises: NoKernelsError where something is missing."""
    if sys.platform != "linux":
        raise NoKernelsError(f"they are built on Linux, and this is {sys.platform}")
    where = Path(torch.__file__).parent
    pools = sorted([*where.glob("lib/libgomp*"), *where.glob("../torch.libs/libgomp*")])
    if not pools:
        raise NoKernelsError("PyTorch has no libgomp here, whose threads the kernels share")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = {line for line in lines if line.split(":")[0].strip() in PROCESSOR}
    return Tools(*find_compiler(), pools[0], "\n".join([platform.machine(), *sorted(features)]))


def find_compiler() -> tuple[tuple[str, ...], str]:
    """$CC, else cc or gcc, and what it says it is.

    Clang's OpenMP does not run on libgomp's threads; with its own ones beside PyTorch's a step takes a third longer.
    """
    own = shlex.split(os.environ.get("CC", ""))
    clang = ""
    for name, *arguments in [own] if own else [["cc"], ["gcc"]]:
        path = shutil.which(name)
        if path is not None:
            version = run([[path, *arguments, "--version"]])[0]
            if "clang" not in version:
                return (path, *arguments), version
            clang = path
    if clang:
        raise NoKernelsError(f"{clang} is Clang, whose OpenMP threads are not PyTorch's: GCC is needed")
    raise NoKernelsError(f"there is no C compiler {own[0]} ($CC)" if own else "there is no C compiler cc or gcc")


def native(command: Sequence[str]) -> str:
    """The option that has the compiler use all that this processor can do."""
    for option in NATIVE[:-1]:
        with contextlib.suppress(NoKernelsError):
            run([[*command, option, "-E", "-x", "c", os.devnull]])
            return option
    return NATIVE[-1]


def compile_and_link(tools: Tools, sources: Sequence[Path], to: Path) -> None:
    """One process a source file, side by side; then one that links. What they leave lies in the folder of `to`."""
    objects = [to.with_name(f"{source.stem}.o") for source in sources]
    start = [*tools.command, *COMPILE, native(tools.command), "-c"]
    pairs = zip(sources, objects, strict=True)
    run([[*start, str(source), "-o", str(made)] for source, made in pairs], to.parent)
    run([[*tools.command, *LINK, *map(str, objects), str(tools.pool), "-lm", "-o", str(to)]], to.parent)


def run(commands: Sequence[Sequence[str]], work: Path | None = None) -> list[str]:
    """Run these side by side, their temporary files in the folder `work`, and return what each of them prints.

    Raises: NoKernelsError where one fails, or takes longer than SECONDS. No process is left behind.
    """
    environment = os.environ | {"LC_ALL": "C"} | ({"TMPDIR": str(work)} if work else {})
    until = time.monotonic() + SECONDS
    running: list[subprocess.Popen[str]] = []
    printed = []
    try:
        for command in commands:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                errors="replace",
                start_new_session=True,  # a compiler starts others: all are ended together
            )
            running.append(process)
        for command, process in zip(commands, running, strict=True):
            printed.append(process.communicate(timeout=max(until - time.monotonic(), 0))[0])
            if process.returncode != 0:
                words = printed[-1].replace(f"{work}/", "")
                raise NoKernelsError(f"{command[0]} {failure(process.returncode, words)}", words)
    except subprocess.TimeoutExpired as error:
        raise NoKernelsError(f"{commands[0][0]} did not end within {SECONDS:g} s") from error
    finally:
        for process in running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return printed


def failure(code: int, printed: str) -> str:
    """The first line in which the compiler speaks of an error, or how it ended."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    told = [line for line in lines if re.search("error|failed|undefined", line, re.IGNORECASE)] or lines
    return (f"was ended by the signal {-code}" if code < 0 else f"failed with the code {code}") + (
        f": {told[0]}" if told else ""
    )
