"""What `python -m manualbp explain` does: it writes pages, with the numbers of the code that trains."""

import argparse
import re
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manualbp.commands.explain import LARGEST, OUT, sizes
from manualbp.explain import Page, book, trained_page, with_questions
from manualbp.explain.examples import EXAMPLES, OPTIONS, SEVERAL, example, gallery_page, random
from manualbp.explain.questions import asked_of
from manualbp.explain.subjects import class_of, of_checkpoint, of_model
from manualbp.explain.trained import look


def run(options: argparse.Namespace) -> None:
    if options.book is not None:
        return _book(options)
    out: Path = options.out
    if out.exists() and not options.force:
        raise ValueError(f"argument --out: {out} exists already; --force writes over it")
    if not out.parent.is_dir():
        raise ValueError(f"argument --out: {out.parent} is no folder")
    text = _of_layers(options).html() if options.checkpoint is options.model is None else _of_network(options)
    with out.open("w" if options.force else "x", encoding="utf-8") as file:
        file.write(text)
    print(f"{out} is written")
    if options.open:
        webbrowser.open(out.resolve().as_uri())


def _book(options: argparse.Namespace) -> None:
    for name, value in vars(options).items():
        if name not in ("command", "run", "book", "open") and value is not None and value is not False and value != OUT:
            raise ValueError(f"argument --book: it goes alone, without {'KIND' if name == 'kind' else '--' + name}")
    first = book.write(options.book, gallery())
    print(f"{first} is written")
    if options.open:
        webbrowser.open(first.resolve().as_uri())


def _of_layers(options: argparse.Namespace) -> Page:
    for name in ("weights", "target"):
        if getattr(options, name) is not None:
            goes = "--model" if name == "weights" else "--checkpoint or --model"
            raise ValueError(f"argument --{name}: it goes with {goes}")
    image: str | None = options.image
    if image is not None:
        try:
            options.image = sizes(1, LARGEST)(image)
        except argparse.ArgumentTypeError as error:
            what = "" if re.fullmatch("[0-9x]+", image) else "; a picture goes with --checkpoint or --model"
            raise ValueError(f"argument --image: {error}{what}") from error
    if options.kind is not None:
        return _asked(options)
    if given := _given(options):
        raise ValueError(f"argument --{next(iter(given))}: it goes with a KIND, as conv2d")
    return gallery()


def _of_network(options: argparse.Namespace) -> str:
    """The page of --checkpoint or --model, as text."""
    whose = "--checkpoint" if options.model is None else "--model"
    if options.kind is not None:
        raise ValueError(f"argument KIND: {options.kind}; {whose} takes none")
    for name in _given(options):
        if name != "image":
            raise ValueError(f"argument --{name}: it goes with a KIND, as conv2d, not with {whose}")
    if options.image is None:
        raise ValueError(f"argument --image: {whose} needs the file of a picture")
    image = Path(options.image)
    if options.model is None:
        if options.weights is not None:
            raise ValueError("argument --weights: it goes with --model; a checkpoint has its own")
        subject = of_checkpoint(options.checkpoint, image)
    elif options.checkpoint is not None:
        raise ValueError("argument --model: it does not go with --checkpoint, which has its own network")
    else:
        subject = of_model(options.model, options.weights, image)
    target = None if options.target is None else class_of(options.target, subject.classes)
    try:
        seen = look(subject.network, subject.x, target, subject.loss)
    except ValueError as error:
        if str(error).startswith("argument"):
            raise
        raise ValueError(f"argument {whose}: {options.model or options.checkpoint}: {error}") from error
    return trained_page.html(subject, seen, image.name)


def gallery() -> Page:
    """A page a subject, with the examples of the lectures, and all questions."""
    return Page([gallery_page(id) for id in EXAMPLES], asked_of(None))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = ("image", "kernel", "stride", "padding", "dilation", "groups", "channels", "batch", "values", "seed")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _asked(options: argparse.Namespace) -> Page:
    kind, given = options.kind, _given(options)
    values, seed = given.pop("values", None), given.pop("seed", None)
    for name in given:
        if name not in OPTIONS[kind]:
            raise ValueError(
                f"argument --{name}: {kind} has none; it takes {', '.join('--' + o for o in OPTIONS[kind])}"
            )
    if seed is not None and values != "random":
        raise ValueError("argument --seed: it goes with --values random")
    if kind not in SEVERAL and len({*given.get("channels", ())}) > 1:
        raise ValueError(
            f"argument --channels: {written(given['channels'])}; {kind} gives as many as it gets: one number"
        )
    if kind in ("max_pool2d", "avg_pool2d") and given.get("padding") == "same":
        raise ValueError(f"argument --padding: same; {kind} takes numbers")
    draw = random(seed or 0) if values == "random" else None
    picture = _picture(Path(values)) if values not in (None, "random", "symbols") else None
    if picture and "image" not in OPTIONS[kind]:
        raise ValueError(f"argument --values: {values}; {kind} takes no image")
    try:
        return with_questions(example(kind, draw, picture, values == "symbols", id="own", **given))
    except ValueError as error:
        if str(error).startswith("argument"):
            raise
        raise ValueError(f"argument {', '.join('--' + name for name in given) or kind}: {error}") from error


def _picture(path: Path) -> Callable[[Sequence[int]], Tensor]:
    """Reads the file as grey numbers of one map or red, green and blue ones of three, from 0 to 1, in hundredths."""

    def read(shape: Sequence[int]) -> Tensor:
        try:
            from PIL import Image
        except ImportError as error:
            raise ValueError("argument --values: a picture needs Pillow: pip install pillow") from error
        _, C, H, W = shape
        if C not in (1, 3):
            raise ValueError(f"argument --channels: {C} for a picture; it must be 1 (grey) or 3 (red, green, blue)")
        try:
            with Image.open(path) as file:
                image = file.convert("L" if C == 1 else "RGB").resize((W, H))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"argument --values: {path} cannot be read as a picture: {error}") from error
        pixels = torch.tensor([*image.tobytes()], dtype=torch.float64).view(H, W, C).movedim(2, 0)
        return (pixels / 2.55).round().div(100).expand(*shape).clone()

    return read


def written(pair: Sequence[int]) -> str:
    return "x".join(map(str, pair))
