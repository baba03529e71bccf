"""A trained network for programs that do not have this package: as ONNX, as torch.export's file, or its weights."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from manualbp.training import UserError
from manualbp.training.checkpoint import load
from manualbp.training.classifier import Classifier
from manualbp.training.torch_layers import ConnectedConv2d, TrueConv2d

NEEDED = {"onnx": ("onnx", "onnxscript")}


class Scores(nn.Module):
    """The network with what comes before it: images (n, C, H, W) float32, pixels 0 ... 255 -> scores (n, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def export(checkpoint: str, to: str, file: Path) -> None:
    """Write the network of a checkpoint into a new file, which appears under its name when all of it is written.

    Raises: UserError for what is no checkpoint, a package that is missing, and a file that cannot be written.
    """
    absent = [name for name in NEEDED.get(to, ()) if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f'argument --to: {to} needs {" and ".join(absent)}: pip install "manualbp[export]"')
    model = load(Path(checkpoint), "argument CKPT", "torch").float()
    plain(model.network)
    write, what = {"onnx": as_onnx, "pt2": as_pt2, "torch": as_weights}[to](model)
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("xb") as opened:
            try:
                write(opened)
                opened.close()
                os.rename(part, file)
            except BaseException:
                part.unlink()
                raise
    except FileExistsError as error:
        raise UserError(f"argument FILE: {part}, which is to become {file}, exists already: remove it") from error
    except OSError as error:
        raise UserError(f"argument FILE: {file}: cannot be written ({error.strerror})") from error
    print(f"{file} is written: {what}")


def plain(network: nn.Module) -> None:
    """The lectures' two layers that torch.nn lacks become its Conv2d: of a rotated kernel, and of a dense one."""
    for layer in network.modules():
        if isinstance(layer, TrueConv2d):
            w = layer.weight.flip(-2, -1)
        elif isinstance(layer, ConnectedConv2d):
            w = layer.weight.new_zeros(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
            w = w.index_put((layer.output_map, layer.input_map), layer.weight)
            del layer.output_map, layer.input_map
        else:
            continue
        layer.weight = nn.Parameter(w.detach())
        layer.__class__ = nn.Conv2d  # pyright: ignore[reportAttributeAccessIssue]
    network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def exported(model: Classifier) -> torch.export.ExportedProgram:
    """The graph of `Scores`, for any number of images."""
    whole = Scores(model.network, model.mean, model.std).eval()
    n = torch.export.Dim("n", min=1)
    return torch.export.export(whole, (torch.zeros(2, *model.shape),), dynamic_shapes=({0: n},))


def as_onnx(model: Classifier) -> tuple[Callable[[IO[bytes]], Any], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            exported(model), dynamo=True, verbose=False, input_names=["images"], output_names=["scores"]
        )
    if program is None:
        raise UserError("argument --to: torch.onnx.export made no program of the network")
    return lambda file: file.write(program.model_proto.SerializeToString()), takes(model)


def as_pt2(model: Classifier) -> tuple[Callable[[IO[bytes]], Any], str]:
    program = exported(model)
    return lambda file: torch.export.save(program, file), takes(model)


def as_weights(model: Classifier) -> tuple[Callable[[IO[bytes]], Any], str]:
    state = dict(model.network.state_dict())
    mean, std = (", ".join(f"{number:.9g}" for number in t.flatten().tolist()) for t in (model.mean, model.std))
    what = f"the state_dict of {model.options['network']}; its input is (pixels - {mean}) / {std}"
    return lambda file: torch.save(state, file), what


def takes(model: Classifier) -> str:
    shape = ", ".join(map(str, model.shape))
    return f"images float32 (n, {shape}), pixels 0 to 255 -> scores (n, {len(model.classes)})"
