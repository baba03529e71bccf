"""python -m manualbp export: a trained network for programs that do not have this package."""

import argparse
from pathlib import Path
from typing import Any

from manualbp.commands import needs, new_command, require_new_file

EXAMPLE = "example:\n  python -m manualbp export runs/best.ckpt --to onnx digits.onnx"


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "export",
        "a trained network as a file for other programs",
        "Write a network of train.py into a new file that needs nothing of this package.",
        "onnx and pt2 take float32 images (n, C, H, W), pixels 0 to 255 as they are\n"
        "read: they subtract the mean and divide by the standard deviation themselves.\n"
        f"They return class scores (n, classes). n is any number.\n{EXAMPLE}",
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add("checkpoint", metavar="CKPT", help="of train.py: best.ckpt or last.ckpt of a run")
    add(
        "--to",
        choices=("onnx", "torch", "pt2"),
        required=True,
        help="onnx: for onnxruntime and others (needs the extra export); pt2: for torch.export.load; torch: the "
        "state_dict of the same network of torch.nn's layers or torchvision's, for torch.load(weights_only=True)",
    )
    add("file", metavar="FILE", type=Path, help="that is written; one that is there is not written over")


def run(options: argparse.Namespace) -> None:
    require_new_file("FILE", options.file)
    with needs("train"):
        from manualbp.training.export import export
    export(options.checkpoint, options.to, options.file)
