"""Convolutional networks trained on gradients that were derived by hand, and proved right.

`manualbp.functional` holds the rules, `manualbp.nn` the same rules as torch.nn's modules.
"""

from manualbp import functional, nn

__all__ = ["functional", "nn"]
