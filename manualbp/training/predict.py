"""What a trained network sees in images, as text or as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manualbp.training import UserError
from manualbp.training.checkpoint import load
from manualbp.training.classifier import Classifier
from manualbp.training.files import read_as

BATCH = 128  # images


def predict(checkpoint: str, images: Sequence[str], top: int, as_json: bool) -> None:
    """Print the `top` best classes of each image, of fewer classes all of them.

    Raises: UserError, before anything is printed, that names every image that cannot be read.
    """
    model = load(Path(checkpoint), "argument CKPT")
    pixels = read(model, images)
    with torch.inference_mode():
        z = torch.cat([model.scores(part) for part in pixels.split(BATCH)]).double()
    if not z.isfinite().all():
        raise UserError(f"argument CKPT: {checkpoint}: its scores are not finite: the training has failed")
    # The perceptron of lecture 003 learns by the squared error: nothing makes its outputs probabilities.
    kind = "score" if model.options["network"] == "mlp" else "probability"
    values = z if kind == "score" else z.softmax(1)
    best = values.argsort(dim=1, descending=True, stable=True)[:, :top].tolist()
    found = [
        {"image": image, "top": [{"class": model.classes[k], kind: float(row[k])} for k in chosen]}
        for image, row, chosen in zip(images, values, best, strict=True)
    ]
    print(json.dumps(found, indent=2) if as_json else "\n\n".join(block(each, kind) for each in found))


def read(model: Classifier, images: Sequence[str]) -> Tensor:
    """The images (n, channels, height, width) uint8, as the run read its own."""
    any_kind = model.options["data"] == "caltech101"
    read, unreadable = [], []
    for image in images:
        try:
            if Path(image).is_dir():
                raise UserError(f"{image}: is a folder: name the images in it")
            read.append(read_as(image, model.shape, any_kind))
        except UserError as error:
            unreadable.append(str(error))
    if unreadable:
        raise UserError(f"argument IMAGE: {'; '.join(unreadable)}")
    return torch.stack(read)


def block(found: dict[str, Any], kind: str) -> str:
    """An image, and below it a line a class."""
    best = found["top"]
    width = max(len(each["class"]) for each in best)
    shown = [f"{each[kind]:.4f}" if kind == "score" else f"{100 * each[kind]:.2f} %" for each in best]
    room = max(map(len, shown))
    lines = [f"  {each['class']:<{width}}  {text:>{room}}" for each, text in zip(best, shown, strict=True)]
    return "\n".join([found["image"], *lines])
