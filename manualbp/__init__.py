"""Convolutional networks trained on gradients that were derived by hand, and proved right.

`manualbp.functional` holds the rules, `manualbp.nn` the same rules as torch.nn's modules. `by_hand()` and `convert`
run any model on them, and `coverage` shows that they did.
"""

from manualbp import functional, nn
from manualbp.by_hand import by_hand
from manualbp.convert import convert, restore
from manualbp.coverage import Coverage, coverage
from manualbp.fuse import fuse, unfuse

__all__ = ["Coverage", "by_hand", "convert", "coverage", "functional", "fuse", "nn", "restore", "unfuse"]
