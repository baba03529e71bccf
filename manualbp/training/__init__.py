"""Training from the command line: networks, data, the Lightning module and pictures that `train.py` puts together."""

from manualbp.commands import UserError

__all__ = ["NotFiniteError", "UserError"]


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight that is infinite or no number: `train.py` says where in one line, exits with 3."""
