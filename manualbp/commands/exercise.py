"""python -m manualbp exercise: backward passes to write."""

import argparse
from pathlib import Path
from typing import Any

from manualbp.commands import new_command


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "exercise",
        "exercises: write a backward pass yourself, and have it checked",
        "Exercises on backward passes. Without NAME and --check, print their list; with NAME, write the exercise into "
        "a new file NAME.py; with --check, say whether the backward pass of a file is right, and if not, where it is "
        "wrong, with a hint.",
        "The exit code is 0 if the exercise is solved, and 1 if it is not yet.",
    )
    command.set_defaults(run=run)
    either = command.add_mutually_exclusive_group()
    either.add_argument("name", metavar="NAME", nargs="?", help="of the exercise that is written into ./NAME.py")
    either.add_argument("--check", metavar="FILE", type=Path, help="say whether the backward pass of FILE is right")


def run(options: argparse.Namespace) -> int:
    from manualbp.exercises import run_exercise

    return run_exercise(options)
