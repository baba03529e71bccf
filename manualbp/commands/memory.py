"""python -m manualbp memory: what each layer of a network keeps for the backward pass."""

import argparse
from pathlib import Path
from typing import Any

from manualbp.commands import new_command, size

EXAMPLE = "example:\n  python -m manualbp memory torchvision.models:resnet18 --input 8x3x224x224"
ANY_INPUT = """\
For inputs of other kinds (classes, lists, several), in Python:
  print(manualbp.memory(model, x, targets))"""


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "memory",
        "what each layer keeps in memory for the backward pass",
        "Print what each layer of a network keeps in memory for the backward pass, in bytes, and why: in PyTorch, on "
        "the rules derived by hand, and with neighbouring layers taken together (fused). The network runs forwards "
        "three times, in training mode.",
        f"{EXAMPLE}\n{ANY_INPUT}",
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add("model", metavar="MODULE:NAME", help="a torch.nn.Module, or what makes one when it is called without arguments")
    add(
        "--input",
        metavar="SIZE",
        type=size,
        required=True,
        help="of the input, as 8x3x224x224: it is filled with noise",
    )
    add("--wide", action="store_true", help="a line a layer with whole names, wider than 100 columns")
    add("--json", metavar="FILE", type=Path, help="also write it all to a new FILE")
    add("--plot", metavar="FILE", type=Path, help="also draw it into a new FILE, as a.png (needs matplotlib)")


def run(options: argparse.Namespace) -> None:
    from manualbp.receipt_command import run

    run(options)
