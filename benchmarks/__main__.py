"""python -m benchmarks: training by hand beside torch.nn, in time and in memory, on this machine.

Every variant starts from the same weights and sees the same batch of noise. A training step is forward, loss, backward
and an update by SGD. A ratio above 1 says in a word what is worse.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own remarks; read when torch is imported

import torch
from rich.console import Console

from benchmarks import report
from benchmarks.capacity import capacity
from benchmarks.machine import flops, machine
from benchmarks.memory import MIB, memory
from benchmarks.networks import NETWORKS
from benchmarks.processes import one_core_busy
from benchmarks.rules import rules
from benchmarks.scaling import scaling
from benchmarks.steps import steps
from benchmarks.variants import COMPILED, DTYPES, Setting, compiles, has_kernels, setting

PARTS = {
    "steps": "time of a step",
    "memory": "bytes kept for backward, and the peak",
    "capacity": "largest batch that fits",
    "rules": "time of each rule",
    "scaling": "growth with batch and image",
}
QUICK = {"networks": ["lecture004"], "dtypes": ["float32"], "parts": ["steps", "memory"], "rounds": 10}
FULL = {"networks": list(NETWORKS), "dtypes": list(DTYPES), "parts": list(PARTS), "rounds": 20}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no positive whole number")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="about a minute: lecture004 in float32, steps and memory, 10 rounds")
    batches = ", ".join(f"{network.batch} for {name}" for name, network in NETWORKS.items())
    add(
        "--networks", nargs="+", choices=list(NETWORKS), metavar="NAME", help=f"of {', '.join(NETWORKS)} (default: all)"
    )
    add(
        "--dtypes",
        nargs="+",
        choices=list(DTYPES),
        metavar="NAME",
        help=f"of {', '.join(DTYPES)} (default: both)",
    )
    parts = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    add("--parts", nargs="+", choices=list(PARTS), metavar="NAME", help=f"{parts} (default: all)")
    add("--batch-size", type=positive, metavar="N", help=f"images a step (default: {batches})")
    add("--rounds", type=positive, metavar="N", help="timed steps of each variant (default: 20)")
    add("--room", type=positive, default=512, metavar="MIB", help="for the largest batch (default: 512)")
    add("--busy", action="store_true", help="while another process keeps one core busy")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add("--plots", type=Path, metavar="DIR", help="draw them, as PNG files in DIR")
    add("--overwrite", action="store_true", help="write to a FILE or DIR that is there already")
    options = parser.parse_args(argv)
    for name, default in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: cuda, but PyTorch finds no CUDA device")
    writable(parser, options)
    return options


def writable(parser: Parser, options: argparse.Namespace) -> None:
    """Refuse now what could not be written in the end."""
    file, folder = options.json, options.plots
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        parser.error(f"argument --json: {file} is a folder, or in one that is not there")
    if folder is not None and folder.exists() and not folder.is_dir():
        parser.error(f"argument --plots: {folder} is no folder")
    if options.overwrite:
        return
    if file is not None and file.exists():
        parser.error(f"argument --json: {file} exists: choose another, or add --overwrite")
    if folder is not None and folder.exists() and any(folder.iterdir()):
        parser.error(f"argument --plots: {folder} is not empty: choose another, or add --overwrite")


def measure(part: str, s: Setting, options: argparse.Namespace, m: dict[str, Any], console: Console) -> list[Any]:
    """The rows of a part, which are also shown."""
    if part == "steps":
        of_step = flops(s)
        rows = steps(s, options.rounds, of_step)
        tables = [report.steps(rows, s, of_step, options.rounds)]
    elif part == "memory":
        rows = memory(s)
        tables = [report.memory(rows, s, m)]
    elif part == "capacity":
        rows = capacity(s, options.room * MIB)
        tables = [report.capacity(rows, s, options.room * MIB)]
    elif part == "rules":
        rows = rules(s)
        tables = report.rules(rows, s)
    else:
        rows = scaling(s)
        tables = report.scaling(rows, s)
    report.show(console, tables)
    return [{**asdict(s), **row} for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    # Not to a terminal: as wide as it needs.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    m = machine(options.device, options.dtypes)
    report.heading(console, m)
    if options.busy:
        console.print("another process keeps one core busy")
    if not has_kernels(options.device):
        console.print("manualbp runs by PyTorch's operations: it has no compiled kernels here")
    if not compiles(options.device):
        console.print(f"{COMPILED} is left out: it does not work here")
    parts: dict[str, list[Any]] = {part: [] for part in options.parts}
    with one_core_busy() if options.busy else nullcontext():
        for network in options.networks:
            for dtype in options.dtypes:
                s = setting(network, dtype, options.device, options.batch_size)
                for part in options.parts:
                    parts[part] += measure(part, s, options, m, console)
    if options.json is not None:
        chosen = {name: value for name, value in vars(options).items() if name not in ("json", "plots", "overwrite")}
        text = json.dumps({"machine": m, "options": chosen, **parts}, indent=1)
        options.json.write_text(text + "\n")
    if options.plots is not None:
        from benchmarks.plots import draw

        draw(parts, options.plots)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
