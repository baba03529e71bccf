"""python -m manualbp explain: pages that step through gradients."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any

from manualbp.commands import WIDTH, new_command

BELOW = "  "
OUT = Path("explain.html")
MAPS = 16  # channels, or images of a batch
LARGEST = 12  # rows and columns of an image or a kernel
KINDS = (
    *("conv2d", "true_conv2d", "max_pool2d", "avg_pool2d", "sigmoid", "relu", "linear", "cross_entropy", "batch_norm"),
    *("block", "network"),
)
EXAMPLE = """\
examples:
  python -m manualbp explain
  python -m manualbp explain conv2d --image 5x5 --kernel 3x3 --stride 2 --open
  python -m manualbp explain --checkpoint runs/best.ckpt --image digit.png"""


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "explain",
        "a page that steps through a gradient, product by product",
        "Write a page that steps through the forward and the backward pass of a layer with numbers: every cell as the "
        "sum of products that it is. Without KIND, a gallery of all kinds, with the examples of the lectures. With "
        "--book, all derivations beside their code.",
        f"kinds:\n{fill(', '.join(KINDS), WIDTH - 2, initial_indent=BELOW, subsequent_indent=BELOW)}\n{EXAMPLE}",
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add("kind", metavar="KIND", nargs="?", choices=KINDS, help="of the layer, as conv2d")
    add("--image", metavar="HxW", help=f"rows and columns, at most {LARGEST}x{LARGEST}; or a FILE that a network sees")
    add("--kernel", metavar="PxQ", type=sizes(1, LARGEST), help="of the kernel, or of the window that is pooled")
    add("--stride", metavar="S", type=sizes(1, LARGEST), help="one number, or as 2x1")
    add("--padding", metavar="N", type=padding, help='one number, as 1x0, or "same"')
    add("--dilation", metavar="D", type=sizes(1, LARGEST), help="one number, or as 2x1")
    add("--groups", metavar="G", type=count, help="into which the channels fall")
    add("--channels", metavar="CxO", type=channels, help="of input and output; inputs, or classes")
    add("--batch", metavar="N", type=count, help=f"images, at most {MAPS}")
    add("--values", metavar="HOW", help="random, symbols, or the file of a picture; small numbers if it is not given")
    add("--seed", type=int, metavar="N", help="of the random numbers (default: 0)")
    add("--checkpoint", metavar="CKPT", type=Path, help="of train.py: what its layers make of the --image FILE")
    add("--model", metavar="MODULE:NAME", help="the same for a network, as torchvision.models:resnet18")
    add("--weights", metavar="FILE", type=Path, help="of the --model, a state_dict of torch.save")
    add("--target", metavar="CLASS", help="the label, a name or a number (default: the network's prediction)")
    add("--book", metavar="DIR", type=Path, help="all derivations beside their code, as pages in a new folder")
    add("--out", metavar="FILE", type=Path, default=OUT, help=f"that is written (default: {OUT})")
    add("--open", action="store_true", help="open it in a browser")
    add("--force", action="store_true", help="write over a FILE that is there")


def run(options: argparse.Namespace) -> None:
    from manualbp.explain.command import run

    run(options)


def sizes(least: int, most: int | None = None) -> Callable[[str], tuple[int, int]]:
    """One number for both axes, or two with x between them."""

    def parse(text: str) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text)
        pair = (int(found[1]), int(found[2] or found[1])) if found else (least - 1, least - 1)
        if min(pair) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: it must be a number or two as 3x3, at least {least}")
        if most is not None and max(pair) > most:
            raise argparse.ArgumentTypeError(f"{text}: it must be at most {most}x{most}")
        return pair

    return parse


def padding(text: str) -> tuple[int, int] | str:
    return "same" if text == "same" else sizes(0, LARGEST)(text)


def channels(text: str) -> tuple[int, int]:
    return sizes(1, MAPS)(text)


def count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAPS:
        raise argparse.ArgumentTypeError(f"{text!r}: it must be a number from 1 to {MAPS}")
    return int(text)
