"""Training from the command line: networks, data, the Lightning module and pictures that `train.py` puts together."""


class UserError(ValueError):
    """Something that the user can mend: `train.py` shows it as one line, without a traceback, and exits with 2."""


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight that is infinite or no number: `train.py` says where in one line, exits with 3."""
