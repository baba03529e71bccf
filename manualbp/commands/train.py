"""python -m manualbp train, which train.py calls, too: its options are those of manualbp.training.options."""

from collections.abc import Sequence
from typing import Any

from manualbp.commands import needs, new_command


def add_command(commands: Any) -> None:
    """For the list of commands alone."""
    new_command(commands, "train", "train a network, on handwritten digits or images of your own", "", add_help=False)


def run(argv: Sequence[str], name: str) -> int:
    """Train with these arguments, in messages under this name, and return the exit code."""
    with needs("train"):
        from manualbp.training import cli
    return cli.main(argv, name)
