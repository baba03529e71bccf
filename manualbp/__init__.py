"""Convolutional networks trained on gradients that were derived by hand, and proved right.

`manualbp.functional` holds the rules, `manualbp.nn` the same rules as torch.nn's modules. `by_hand()` and `convert`
run any model on them, `coverage` shows that they did, and `memory` what they keep for the backward pass. `fuse` has
neighbouring layers run by the rules that are derived for them together, which keep less. `audit` tells whether a
backward pass, of anybody's, is right, and where it is not. `keep_freed_memory()` makes the steps of a script on a CPU
faster.
"""

from manualbp import functional, nn
from manualbp.audit import audit
from manualbp.by_hand import by_hand
from manualbp.convert import convert, restore
from manualbp.coverage import Coverage, coverage
from manualbp.explain import explain
from manualbp.freed_memory import keep_freed_memory
from manualbp.fuse.model import fuse, unfuse
from manualbp.memory import Receipt, memory

__version__ = "0.1.0"  # a literal: pyproject.toml reads it without an import

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
