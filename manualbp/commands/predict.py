"""python -m manualbp predict: what a trained network sees in images."""

import argparse
from typing import Any

from manualbp.commands import needs, new_command, positive

EXAMPLE = "example:\n  python -m manualbp predict runs/best.ckpt digit.png --json"


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "predict",
        "what a trained network sees in images",
        "Print the classes that a network of train.py finds most probable for each image. The images are read as those "
        "that it was trained on: grey or colour, and brought to their size.",
        EXAMPLE,
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add("checkpoint", metavar="CKPT", help="of train.py: best.ckpt or last.ckpt of a run")
    add("images", metavar="IMAGE", nargs="+", help="the file of a picture")
    add("--top", metavar="K", type=positive, default=5, help="how many classes, the best first (default: 5)")
    add(
        "--json",
        action="store_true",
        help="print a list of {image, top: [{class, probability}, ...]} and nothing else; the network mlp, which is "
        "trained on the squared error, has a score in place of each probability",
    )


def run(options: argparse.Namespace) -> None:
    with needs("train"):
        from manualbp.training.predict import predict
    predict(options.checkpoint, options.images, options.top, options.json)
