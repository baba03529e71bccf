"""The classification networks of torchvision, as `train.py` offers them: by their names there, with fresh weights.

They are made of torch.nn's layers. `manualbp.convert` has them run on the rules.
"""

import copy
from difflib import get_close_matches
from inspect import signature

import torch
from jsonargparse import Namespace
from torch import Tensor
from torchvision import models

import manualbp
from manualbp.training import UserError
from manualbp.training.networks import NETWORKS, Shape

NAMES = models.list_models(module=models)
# Only these have outputs beside the scores. Without them the loss is that of all other networks.
OPTIONS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def network_of(name: str, shape: Shape, classes: int, stem: str | None = None) -> torch.nn.Module:
    """torchvision's network of that name, initialised as it is there; of `stem` "3x3" begins as `small_stem` says.

    Grey images are given to it as three equal channels (a kernel over these is its sum over one).

    Shapes: x (n, channels, height, width) float with 1 or 3 channels, z (n, classes).
    """
    network = models.get_model(name, weights=None, num_classes=classes, **OPTIONS.get(name, {}))
    if stem == "3x3":
        small_stem(network)
    if shape[0] == 1:
        network.register_forward_pre_hook(in_three_channels)
    return network


def has_stem(name: str) -> bool:
    """Whether the network is one of torchvision's ResNet: resnet, resnext and wide_resnet of any depth."""
    return name in NAMES and "resne" in name


def small_stem(network: torch.nn.Module) -> None:
    """A 3 x 3 convolution without pooling in place of a ResNet's 7 x 7 of stride 2 and the pooling after it.

    Those leave an eighth by an eighth of the image to the second half of the network: of 32 x 32 pixels 4 x 4, and in
    the end 1 x 1. Source: He et al. 2016, sec. 4.2, whose networks for CIFAR-10 begin so. Initialised as torchvision's.
    """
    conv = torch.nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    torch.nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = conv, torch.nn.Identity()


def in_three_channels(_: torch.nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def require_known(name: str) -> None:
    """UserError where no network has that name, with those that are close."""
    if name in NETWORKS or name in NAMES:
        return
    close = get_close_matches(name, [*NETWORKS, *NAMES], n=5)
    choice = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(NETWORKS)}"
    raise UserError(
        f"argument --network: {name} is unknown: {choice} (or any classification network of torchvision.models)"
    )


def require_options(options: Namespace) -> None:
    """UserError for an unknown network, and for an option that the network does not have."""
    name = options.network
    require_known(name)
    if name == "mlp" and options.label_smoothing:
        raise UserError("argument --label-smoothing: --network mlp has the squared error, without any: leave it out")
    for kind in ("activation", "pooling"):
        having = [of for of, network in NETWORKS.items() if kind in signature(network).parameters]
        if name not in having and options[kind] is not None:
            raise UserError(
                f"argument --{kind}: {options[kind]}, but --network {name} has its own or none: leave it out (it "
                f"is for {', '.join(having)})"
            )
    if options.stem is not None and not has_stem(name):
        raise UserError(
            f"argument --stem: {options.stem}, but --network {name} has no stem of 7 x 7 to replace: leave it out (it "
            "is for resnet, resnext and wide_resnet)"
        )


def require_size(network: torch.nn.Module, name: str, shape: Shape, smallest_batch: int) -> None:
    """UserError where a training step fails for the size of the images or of its smallest batch.

    Tried without computing anything, on PyTorch's meta device, with torch.nn's layers.
    """
    trial = copy.deepcopy(network).to("meta")
    size = f"{shape[1]} x {shape[2]}"
    try:
        trial(torch.empty(2, *shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"--network {name}: images of {size} are too small, or no size that it takes: {error}"
        ) from error
    if smallest_batch > 1:
        return
    try:
        trial(torch.empty(1, *shape, device="meta"))
    except ValueError as error:
        raise UserError(
            f"argument --batch-size: leaves a batch of a single image, which of {size} has no variance in a batch "
            f"normalisation of --network {name}: choose another"
        ) from error


def left_to_pytorch(network: torch.nn.Module, shape: Shape) -> list[str]:
    """The names of the backward nodes of a converted network that are PyTorch's own, sums and views apart."""
    with torch.random.fork_rng(devices=[]):
        z = copy.deepcopy(network)(torch.rand(2, *shape))
    return sorted(manualbp.coverage(z).layers)
