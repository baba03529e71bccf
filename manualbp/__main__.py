"""The command line.

python -m manualbp memory MODULE:NAME --input SIZE prints what each layer keeps for backward; python -m manualbp kernels
prints which kernels are used on this machine, builds them, and clears their cache; python -m manualbp audit
MODULE:NAME --inputs SIZE ... tells whether a backward pass is right; python -m manualbp exercise NAME writes one to
do.
"""

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from manualbp import exercises
from manualbp.audit import command as audit_command
from manualbp.explain import command as explain_command
from manualbp.kernels.cpu import cache, report
from manualbp.kernels.cpu.compiler import NoKernelsError
from manualbp.memory import memory
from manualbp.receipt import WAYS, Receipt, name_of

EXAMPLE = "example:\n  python -m manualbp memory torchvision.models:resnet18 --input 8x3x224x224"
ANY_INPUT = (
    "For inputs of other kinds (classes, lists, several), in Python:\n  print(manualbp.memory(model, x, targets))"
)
MIB = 2**20
COLOURS = ("#b0b0b0", "#1f5fa8", "#d9822b")
HEADER, LAYER = 1.5, 0.24  # inches of the picture


class UserError(ValueError):
    """Something that the user can mend: shown as one line, without a traceback, with the exit code 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (the process's own where None) and return its exit code."""
    try:
        options = build_parser().parse_args(argv)
        return options.run(options) or 0
    except BrokenPipeError:  # the reader, as `head`, has seen enough; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print("manualbp: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m manualbp",
        description="Convolutional networks trained on gradients that were derived by hand.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # a command that is broken in two cannot be copied
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_memory(commands)
    add_kernels(commands)
    audit_command.add_command(commands)
    exercises.add_command(commands)
    explain_command.add_command(commands)
    return parser


def add_memory(commands: Any) -> None:
    command = commands.add_parser(
        "memory",
        help="what each layer keeps in memory for the backward pass",
        description="Print what each layer of a network keeps in memory for the backward pass, in bytes,\n"
        "and why: in PyTorch, on the rules derived by hand, and with neighbouring layers taken\n"
        "together (fused). The network runs forwards three times, in training mode.",
        epilog=f"{EXAMPLE}\n{ANY_INPUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run_memory)
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


def add_kernels(commands: Any) -> None:
    command = commands.add_parser(
        "kernels",
        help="which kernels are used on this machine, and why",
        description="Print which kernels are used on this machine, and why: those in C, which the\n"
        "system's compiler builds on first use, or PyTorch's own operations.",
        epilog="MANUALBP_KERNELS=torch in the environment has PyTorch's operations used; with\n"
        "MANUALBP_KERNELS=compiled it is an error if the kernels cannot be built.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run_kernels)
    command.add_argument("--clear", action="store_true", help="first remove all libraries from the cache")
    command.add_argument("--build", action="store_true", help="build them now, and say how long it took")


def run_memory(options: argparse.Namespace) -> None:
    require_new_files(options.json, options.plot)
    receipt = receipt_of(model_of(options.model), options.input)
    print(receipt.wide() if options.wide else receipt, flush=True)
    if options.json is not None:
        with options.json.open("x") as file:
            file.write(json.dumps(receipt.as_dict(), indent=2) + "\n")
    if options.plot is not None:
        plot(receipt, f"{options.model}, input {written(options.input)}", options.plot)


def run_kernels(options: argparse.Namespace) -> None:
    try:
        if options.clear:
            print(f"removed {report.counted(*cache.clear())}")
        if options.build:
            print(report.built())
        print(report.report())
    except (NoKernelsError, ValueError) as error:  # ValueError: of MANUALBP_KERNELS
        raise UserError(str(error)) from error


def size(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: it must be positive numbers with x between them, as 8x3x224x224")
    return tuple(map(int, text.split("x")))


def written(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def require_new_files(json: Path | None, picture: Path | None) -> None:
    """UserError, before anything is computed, where a file cannot be made or would be written over."""
    for name, path in (("--json", json), ("--plot", picture)):
        if path is not None and path.exists():
            raise UserError(f"argument {name}: {path} exists already")
        if path is not None and not path.parent.is_dir():
            raise UserError(f"argument {name}: {path.parent} is no folder")
    if picture is None:
        return
    if json is not None and json.resolve() == picture.resolve():
        raise UserError(f"argument --plot: {picture} is the file of --json, too")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('argument --plot: it needs matplotlib: pip install "manualbp[train]"') from error
    endings = Figure().canvas.get_supported_filetypes()
    if picture.suffix.removeprefix(".").lower() not in endings:
        raise UserError(f"argument --plot: {picture}: it must end in one of .{', .'.join(sorted(endings))}")


def model_of(text: str) -> nn.Module:
    """The module that MODULE:NAME is, or makes."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise UserError(f"argument MODULE:NAME: {text}: it must be as torchvision.models:resnet18")
    try:
        made: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"argument MODULE:NAME: {module} cannot be imported: {first_line(error)}") from error
    for part in name.split("."):
        if not hasattr(made, part):
            raise UserError(f"argument MODULE:NAME: {module} has no {name}")
        made = getattr(made, part)
    if callable(made) and not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:
            raise UserError(f"argument MODULE:NAME: {text}() fails: {first_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"argument MODULE:NAME: {text} is a {type(made).__name__}; it must be, or make, a Module")
    return made


def receipt_of(model: nn.Module, size: tuple[int, ...]) -> Receipt:
    """The receipt for noise of the model's own dtype, on its device."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    try:
        return memory(model, torch.randn(size, dtype=like.dtype, device=like.device))
    except Exception as error:
        raise UserError(f"the model fails on an input of {written(size)}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def plot(receipt: Receipt, title: str, path: Path) -> None:
    """A bar a layer and way; the picture grows with the number of layers."""
    from matplotlib.figure import Figure

    n = len(receipt.rows)
    figure = Figure(figsize=(9, HEADER + LAYER * n), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(WAYS)
    for i, ((way, name), colour) in enumerate(zip(WAYS.items(), COLOURS, strict=False)):
        places = [row + (i + 0.5) * height - 0.4 for row in range(n)]
        widths = [row.bytes(way) / MIB for row in receipt.rows]
        label = f"{name}: {receipt.totals[way] / MIB:,.2f} MiB"
        axes.barh(places, widths, height=height, color=colour, label=label)
    axes.set_yticks(range(n), [f"{name_of(row.path)}  {row.kind}" for row in receipt.rows], fontsize=8)
    axes.set_ylim(n - 0.5, -0.5)  # the first layer on top
    axes.set(title=title, xlabel="kept for backward (MiB)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(WAYS))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
