"""The library of the C kernels: built on first use by the system's C compiler, and kept in a cache of the user's.

A file of the cache is named by all that it depends on: sources, compiler, flags, processor, PyTorch and this package.
It is made in a private folder and then renamed, so that there is a whole library or none. Where there is none and none
can be built, the operations of PyTorch do the work; nothing fails.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from manualbp.kernels.cpu import cache, compiler
from manualbp.kernels.cpu.compiler import NoKernelsError

HERE = Path(__file__).parent
CHOICES = ("", "torch", "compiled")  # of MANUALBP_KERNELS
LOG = logging.getLogger("manualbp")

_found: tuple[ctypes.CDLL | None, str] | None = None
_one_at_a_time = threading.Lock()
_forked = False
_scratch = threading.local()


def library() -> ctypes.CDLL | None:
    """The kernels, built when this is called for the first time; None where there are none.

    Raises: ValueError for another MANUALBP_KERNELS than "torch" or "compiled"; with "compiled" RuntimeError where there
    are none.
    """
    return _get()[0]


def why_not() -> str:
    """Why there are no kernels, in a phrase; empty where there are."""
    return _get()[1]


def threads() -> int:
    """How many threads a kernel takes: as many as PyTorch's operations.

    In a forked child one: the pool's threads did not come with it, and a kernel would wait for them for ever.
    """
    return 1 if _forked else torch.get_num_threads()


def scratch(size: int) -> int:
    """The address of so many bytes that are this thread's until its next call."""
    held: Tensor | None = getattr(_scratch, "held", None)
    if held is None or held.numel() < size + 64:
        _scratch.held = None
        _scratch.held = held = torch.empty(size + 64, dtype=torch.uint8, device="cpu")
    return -(-held.data_ptr() // 64) * 64


def _get() -> tuple[ctypes.CDLL | None, str]:
    global _found
    if _found is None:
        with _one_at_a_time:
            if _found is None:
                _found = _find()
    return _found


def _find() -> tuple[ctypes.CDLL | None, str]:
    wanted = wanted_kernels()
    try:
        require_compiled()
        return load(), ""
    except Exception as error:  # whatever it is, nobody's training ends by it
        reason = " ".join(str(error).split())
        if wanted == "compiled":
            words = error.words if isinstance(error, NoKernelsError) else ""
            raise RuntimeError(f"MANUALBP_KERNELS=compiled, and there are none: {reason}\n{words}".strip()) from error
        LOG.info("PyTorch's operations run, and no compiled kernels: %s", reason)
        return None, reason


def wanted_kernels() -> str:
    """MANUALBP_KERNELS. Raises: ValueError where that is none of its values."""
    value = os.environ.get("MANUALBP_KERNELS", "")
    if value not in CHOICES:
        raise ValueError(f'MANUALBP_KERNELS is {value!r}: it must be "torch" or "compiled", or not be set')
    return value


class Plan(NamedTuple):
    """A library, built or not: its C sources by name, what builds them, the key of all that, and its file."""

    sources: dict[str, bytes]
    tools: compiler.Tools
    key: str
    path: Path


def plan(folder: Path = HERE) -> Plan:
    """The library of the sources in this folder. Raises: NoKernelsError, or OSError from the cache."""
    from manualbp import __version__  # it is not there yet where this file is imported

    sources = {path.name: path.read_bytes() for path in sorted([*folder.glob("*.c"), *folder.glob("*.h")])}
    tools = compiler.find_tools()
    flags = (compiler.COMPILE, compiler.NATIVE, compiler.LINK)
    built_with = (tools.command, tools.version, tools.pool.name, tools.processor, flags, torch.__version__, __version__)
    key = hashlib.sha256(repr((sources, built_with)).encode()).hexdigest()[:32]
    return Plan(sources, tools, key, cache.made_folder() / f"{key}.so")


def require_compiled() -> None:
    if wanted_kernels() == "torch":
        raise NoKernelsError("MANUALBP_KERNELS=torch")


def load(folder: Path = HERE) -> ctypes.CDLL:
    """The library of the sources in this folder, from the cache or built now. Raises: as `plan`."""
    it = plan(folder)
    if not cache.whole(it.path, it.key):
        with cache.locked(it.path.parent, compiler.SECONDS) as alone:
            if not cache.whole(it.path, it.key):  # no other process built it in the meantime
                if alone:
                    cache.remove_unfinished(it.path.parent)
                build(it)
    return ctypes.CDLL(str(it.path))


def build(it: Plan) -> None:
    """Make the library. Raises: NoKernelsError, OSError; then its file is as it was."""
    start = time.monotonic()
    names = [name for name in it.sources if name.endswith(".c")]
    if not names:
        raise NoKernelsError("the C sources were not installed")
    LOG.info("%s compiles %s; this is done once", it.tools.command[0], ", ".join(names))
    work = Path(tempfile.mkdtemp(prefix=cache.UNFINISHED, dir=it.path.parent))
    try:
        for name, text in it.sources.items():  # what is compiled is what the key was made of
            (work / name).write_bytes(text)
        made = work / "library"
        compiler.compile_and_link(it.tools, [work / name for name in names], made)
        content = made.read_bytes()
        made.write_bytes(content + cache.digest(it.key, content))
        made.chmod(0o700)
        made.replace(it.path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    LOG.info("%s is there after %.1f s", it.path, time.monotonic() - start)


def _after_fork() -> None:
    global _forked, _one_at_a_time
    _forked = True
    _one_at_a_time = threading.Lock()  # the thread that may have held it is not in the child


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_after_fork)
