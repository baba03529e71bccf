"""python -m benchmarks.zoo: torchvision's classification networks by hand beside PyTorch, in float64.

Random weights, training mode, small images. The network as it is, inside `by_hand()`, after `convert`, and after
`fuse` as well: the largest relative distance of the outputs, and of the gradients of the parameters, from PyTorch's;
and the nodes of the graph.
PyTorch's hardsigmoid takes 1/6 in float32 in its backward pass, 3e-8 from the truth: beside it stands relu6(x + 3) / 6.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import manualbp

SIZES = {  # pixels a side: the least that the network takes, or that leaves batch norm something to average
    "alexnet": 64,
    "vgg11_bn": 32,
    "resnet18": 64,
    "resnet50": 64,
    "squeezenet1_1": 64,
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "shufflenet_v2_x1_0": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mnasnet1_0": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
}
IMAGES = 3


@dataclass(frozen=True)
class Comparison:
    """Relative distances from PyTorch's numbers, and what the graph is made of."""

    outputs: float
    gradients: float
    coverage: manualbp.Coverage


def network(name: str) -> nn.Module:
    """With random weights, ten classes, in training mode and double precision."""
    torch.manual_seed(0)
    more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **more).double()


def outputs(y: Any) -> list[Tensor]:
    """What a network returns: scores, those of auxiliary classifiers beside them, or a dict of images."""
    return [y] if isinstance(y, Tensor) else list(y.values() if isinstance(y, dict) else y)


def numbers(f: Callable[[Tensor], Any], model: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """f's outputs, and the gradients of the parameters for errors that are the same in every run."""
    torch.manual_seed(1)  # dropout
    ys = outputs(f(x))
    deltas = [torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype) for y in ys]
    gradients = torch.autograd.grad(ys, list(model.parameters()), deltas, retain_graph=True)
    return ys, list(gradients)


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative distance of a tensor. One that is zero but for rounding is measured by the size of all:

    so is the gradient of a bias before batch norm, which subtracts it again.
    """
    floor = 1e-6 * max(b.norm().item() for b in theirs)
    return max((a - b).norm().item() / max(b.norm().item(), floor) for a, b in zip(ours, theirs, strict=True))


def compare(model: nn.Module, x: Tensor) -> dict[str, Comparison]:
    """The model `by_hand`, `convert`ed, and `fuse`d as well, beside itself; and its buffers after that one step."""
    converted, inside = copy.deepcopy(model), copy.deepcopy(model)
    manualbp.convert(converted)
    fused = copy.deepcopy(converted)
    manualbp.fuse(fused)
    for module in model.modules():
        if type(module) is nn.Hardsigmoid:
            module.forward = lambda x: nn.functional.relu6(x + 3) / 6
    ys, gradients = numbers(model, model, x)
    results = {}
    inside_by_hand = manualbp.by_hand()(inside)
    ways = {"by_hand": (inside_by_hand, inside), "convert": (converted, converted), "fuse": (fused, fused)}
    for way, (f, other) in ways.items():
        mine, my_gradients = numbers(f, other, x)
        buffers = [b.double() for b in other.buffers()]
        expected = [b.double() for b in model.buffers()]
        results[way] = Comparison(
            distance([*mine, *buffers], [*ys, *expected]), distance(my_gradients, gradients), manualbp.coverage(mine)
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument(
        "networks", nargs="*", default=list(SIZES), help=f"by their names there (default: {', '.join(SIZES)})"
    )
    names = parser.parse_args().networks
    unknown = [name for name in names if name not in torchvision.models.list_models(module=torchvision.models)]
    if unknown:
        parser.error(f"torchvision.models has no network {unknown[0]}")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, float64, {IMAGES} images")
    for name in names:
        size = SIZES.get(name, 64)
        model, x = network(name), torch.randn(IMAGES, 3, size, size, dtype=torch.float64)
        for way, result in compare(model, x).items():
            hand, layers = sum(result.coverage.by_hand.values()), sum(result.coverage.layers.values())
            print(
                f"  {name:20}{size:4}  {way:8}outputs {result.outputs:.0e}   gradients {result.gradients:.0e}   "
                f"nodes by hand {hand:4}   PyTorch's layers {layers}"
            )


if __name__ == "__main__":
    main()
