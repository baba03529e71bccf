"""The trained networks that a page can look into, each with its image: of a checkpoint of train.py, or any by its name.

What trains a network also loads it here (manualbp.training), and needs what the extra `train` installs.
"""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

USUAL = "resnet18"  # whose images a network that is none of torchvision's is given


@dataclass(frozen=True)
class Subject:
    """x: the image as the network takes it, [1, ...]; pixels: as it is shown, [C, H, W] uint8, C 1 or 3.

    loss: None for the cross-entropy of plain scores. note: what a reader should know of the numbers.
    """

    name: str
    network: nn.Module
    x: Tensor
    pixels: Tensor
    classes: list[str]
    loss: Callable[[Tensor, Tensor], Tensor] | None
    probabilities: bool
    note: str


def of_checkpoint(path: Path, image: Path) -> Subject:
    """The network of a checkpoint of train.py, and the image as its run read images.

    Raises ValueError for another file, an image that cannot be read, and without the extra `train`.
    """
    try:
        from manualbp.training.checkpoint import load
        from manualbp.training.files import read_as

        model = load(path, "argument --checkpoint", "manualbp").float()
    except ImportError as error:
        raise missing("--checkpoint", error) from error
    C, H, W = model.shape
    try:
        pixels = read_as(str(image), (C, H, W), any_kind=model.options["data"] == "caltech101")
    except ValueError as error:
        raise ValueError(f"argument --image: {error}") from error
    given: list[Tensor] = []
    hook = model.network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]), prepend=True)
    with torch.no_grad():
        model(pixels[None])
    hook.remove()
    data, network, epochs = model.options["data"], model.options["network"], len(model.history)
    note = f"Trained by train.py with --data {data} for {epochs} epoch{'s' * (epochs > 1)}."
    return Subject(network, model.network, given[0], pixels, model.classes, model.loss, network != "mlp", note)


def of_model(name: str, weights: Path | None, image: Path) -> Subject:
    """The network that MODULE:NAME is or makes, with the weights of a file, and the image as torchvision prepares it.

    Raises ValueError for what is no network, a file that does not fit, and an image that cannot be read.
    """
    try:
        from torchvision import models

        from manualbp.training.files import decode
        from manualbp.training.vision import NAMES
    except ImportError as error:
        raise missing("--model", error) from error
    from manualbp.receipt_command import model_of

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            network = model_of(name)
        except ValueError as error:
            raise ValueError(str(error).replace("MODULE:NAME", "--model", 1)) from error
    module, _, own = name.partition(":")
    theirs = own if module == "torchvision.models" and own in NAMES else None
    published: Any = models.get_model_weights(theirs or USUAL)
    file = weights.name if weights is not None else ""
    known = next((each for each in published if each.url.endswith(f"/{file}")), published.DEFAULT)
    prepare = known.transforms()
    try:
        picture = decode(str(image)).image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"argument --image: {image}: not a readable image ({error})") from error
    x = prepare(picture)
    pixels = x * torch.tensor(prepare.std).view(-1, 1, 1) + torch.tensor(prepare.mean).view(-1, 1, 1)
    pixels = (255 * pixels).round().clamp(0, 255).to(torch.uint8)
    if weights is not None:
        load(network, weights, name)
        note = f"Weights of {weights.name}."
    else:
        note = "No weights were given: these are the numbers that the network is made with, and it knows nothing yet."
    like = next((p for p in network.parameters() if p.is_floating_point()), x)
    classes = known.meta["categories"] if theirs else []
    return Subject(name, network.cpu(), x.to(like.dtype)[None], pixels, classes, None, True, note)


def load(network: nn.Module, path: Path, name: str) -> None:
    """Give the network the weights of a file of torch.save: a state_dict, or a dict with one under that name."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state) if isinstance(state, dict) else {}
    except OSError as error:
        raise ValueError(f"argument --weights: {path}: cannot be read ({error.strerror})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"argument --weights: {path}: not a file of torch.save, or a damaged one") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"argument --weights: {path}: not the weights of {name}") from error


def class_of(text: str, classes: list[str]) -> int:
    """A class by its name, or by its number."""
    if text in classes:
        return classes.index(text)
    if not text.isdecimal():
        some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise ValueError(f"argument --target: {text}; " + (f"the classes are {some}" if classes else "give its number"))
    return int(text)


def missing(option: str, error: ImportError) -> ValueError:
    return ValueError(f'argument {option}: {error}; it needs what trains networks: pip install "manualbp[train]"')
