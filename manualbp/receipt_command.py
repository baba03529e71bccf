"""What `python -m manualbp memory` does: the receipt of a network that stands in a module, printed, written, drawn."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manualbp.commands import UserError, require_new_files
from manualbp.memory import memory
from manualbp.receipt import WAYS, Receipt, name_of

MIB = 2**20
COLOURS = ("#b0b0b0", "#1f5fa8", "#d9822b")
HEADER, LAYER = 1.5, 0.24  # inches of the picture


def run(options: argparse.Namespace) -> None:
    require_new_files(options.json, options.plot)
    receipt = receipt_of(model_of(options.model), options.input)
    print(receipt.wide() if options.wide else receipt, flush=True)
    if options.json is not None:
        with options.json.open("x") as file:
            file.write(json.dumps(receipt.as_dict(), indent=2) + "\n")
    if options.plot is not None:
        plot(receipt, f"{options.model}, input {written(options.input)}", options.plot)


def written(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


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
