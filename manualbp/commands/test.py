"""python -m manualbp test: the accuracy of a trained network."""

import argparse
from typing import Any

from manualbp.commands import needs, new_command

EXAMPLE = "example:\n  python -m manualbp test runs/best.ckpt --data folder --data-dir DIR"


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "test",
        "the accuracy of a trained network on test images",
        "Print the accuracy and the loss of a network of train.py on test images: those of its own run, or others of "
        "the same classes and the same size.",
        EXAMPLE,
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add("checkpoint", metavar="CKPT", help="of train.py: best.ckpt or last.ckpt of a run")
    add("--data", metavar="KIND", help="digits, cifar10, caltech101 or folder, as train has it (default: the run's)")
    add("--data-dir", metavar="DIR", help="where the images are (default: the run's)")
    add("--json", action="store_true", help="print it as an object, with the accuracy of every class")


def run(options: argparse.Namespace) -> None:
    with needs("train"):
        from manualbp.training.test import test
    test(options.checkpoint, options.data, options.data_dir, options.json)
