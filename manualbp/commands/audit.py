"""python -m manualbp audit: the audit of a function that stands in a module or a file."""

import argparse
from pathlib import Path
from typing import Any

from manualbp.commands import new_command

DTYPES = ("float64", "float32", "bfloat16", "float16")
EXAMPLE = """\
examples:
  python -m manualbp audit torch.nn.functional:conv2d --inputs 2x3x8x8 4x3x3x3
  python -m manualbp audit mine.py:Square --inputs 3x4 --reference torch:square
Functions that need settings, in Python:
  print(manualbp.audit(lambda x: f(x, stride=2), (2, 3, 8, 8)))"""


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "audit",
        "whether a backward pass is right, where it is wrong, and why",
        "Tell whether the backward pass of a function is right, and if not where it is wrong and a likely cause. Exit "
        "code 0: it is right; 1: it is wrong, or it cannot be told; 2: it cannot be audited.",
        EXAMPLE,
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add(
        "function",
        metavar="MODULE:NAME",
        help="a function, a torch.autograd.Function, or a Module or what makes one; a file, as mine.py:NAME, will do",
    )
    add("--inputs", metavar="SIZE", nargs="+", required=True, help="of each input, as 2x3x8x8: normal numbers")
    add("--reference", metavar="MODULE:NAME", help="a trusted function of the same inputs, to put beside it")
    add("--dtype", choices=DTYPES, help="of the inputs (default: float64 if the function takes it, else float32)")
    add("--device", default="cpu", help="of the inputs, as cuda (default: cpu)")
    add("--skip", metavar="CHECK", nargs="+", default=[], help="checks to leave out, by the names in the report")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--json", metavar="FILE", type=Path, help="also write the report to a new FILE")
    add("--plot", metavar="FILE", type=Path, help="also draw true and given gradient into a new FILE, as a.png")


def run(options: argparse.Namespace) -> int:
    from manualbp.audit.command import run

    return run(options)
