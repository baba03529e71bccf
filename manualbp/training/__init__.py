"""Training from the command line: networks, data, the Lightning module and pictures that `train.py` puts together."""


class UserError(ValueError):
    """Something that the user can mend: `train.py` shows it as one line, without a traceback, and exits with 2."""
