"""The numbers behind the rules: forward primitives only, no autograd. `reference` is the truth they answer to.

`chosen` tells which kernel serves a call.
"""

from manualbp.kernels.chosen import chosen

__all__ = ["chosen"]
