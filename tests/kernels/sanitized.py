"""A plugin of pytest's, `-p tests.kernels.sanitized`: the kernels are those of the library $SANITIZED_LIBRARY.

It was built with AddressSanitizer, which must be loaded before all else, by $LD_PRELOAD (test_sanitizers.py).
"""

import ctypes
import os
import sys
from typing import Any

import torch

from manualbp.kernels.cpu import build

os.environ.pop("LD_PRELOAD")  # the programs that tests start are as they are
build._found = (ctypes.CDLL(os.environ["SANITIZED_LIBRARY"]), "")
held: Any = None


def scratch(size: int) -> int:
    """New memory at each call, and not a byte more."""
    global held
    held = torch.empty(size, dtype=torch.uint8, device="cpu")
    return held.data_ptr()


for module in list(sys.modules.values()):
    if getattr(module, "scratch", None) is build.scratch:
        module.scratch = scratch  # pyright: ignore[reportAttributeAccessIssue]
