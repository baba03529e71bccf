"""Convolutional networks trained on gradients that were derived by hand, and proved right.

`manualbp.functional` holds the rules, `manualbp.nn` the same rules as torch.nn's modules. `by_hand()` and `convert`
run any model on them, `coverage` shows that they did, and `memory` what they keep for the backward pass. `fuse` has
neighbouring layers run by the rules that are derived for them together, which keep less. `audit` tells whether a
backward pass, of anybody's, is right, and where it is not. `keep_freed_memory()` makes the steps of a script on a CPU
faster.
"""

import os
import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"  # a literal: pyproject.toml reads it without an import


def _is_command() -> bool:
    """Whether this process is `python -m manualbp ...`, the script `manualbp` beside its Python, or our train.py."""
    if not 0 < len(sys.argv) < len(sys.orig_argv):
        return False
    first, typed = sys.argv[0], sys.orig_argv[-len(sys.argv)]  # which differ in what multiprocessing has started
    if first == "-m":  # while Python looks for the module that it is to run
        return typed == "manualbp"
    beside = (os.path.join(os.path.dirname(sys.executable), name) for name in ("manualbp", "manualbp.exe"))
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "train.py")
    return first == typed and (first in beside or os.path.abspath(first) == ours)


# A command line is parsed, or answered by its help, before torch is imported, which takes seconds; then
# manualbp.__main__ has this file run once more.
_waits = "_waits" not in globals() and _is_command()
if TYPE_CHECKING or not _waits:
    from manualbp import functional, nn
    from manualbp.audit import audit
    from manualbp.by_hand import by_hand
    from manualbp.convert import convert, restore
    from manualbp.coverage import Coverage, coverage
    from manualbp.explain import explain
    from manualbp.freed_memory import keep_freed_memory
    from manualbp.fuse.model import fuse, unfuse
    from manualbp.memory import Receipt, memory

__all__ = [
    "Coverage",
    "Receipt",
    "__version__",
    "audit",
    "by_hand",
    "convert",
    "coverage",
    "explain",
    "functional",
    "fuse",
    "keep_freed_memory",
    "memory",
    "nn",
    "restore",
    "unfuse",
]
