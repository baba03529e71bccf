"""python -m benchmarks.zoo: other people's networks by hand beside PyTorch, in float64.

Random weights, training mode, small images. The network as it is, inside `by_hand()`, after `convert`, after `fuse`,
and after both: the largest relative distance of the outputs (and of the buffers after that step), and of the gradients
of the parameters, from PyTorch's; the nodes of the graph, and PyTorch's layers among them, by name. Then what `fuse`
took together, and the bytes that are kept for the backward pass, by hand and fused, over PyTorch's.
PyTorch's hardsigmoid takes 1/6 in float32 in its backward pass, 3e-8 from the truth: in PyTorch's run stands
relu6(x + 3) / 6.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

import manualbp
from benchmarks.zoo_networks import GROUPS


@dataclass(frozen=True)
class Comparison:
    """Relative distances from PyTorch's numbers, and what the graph is made of."""

    outputs: float
    gradients: float
    coverage: manualbp.Coverage


def outputs(y: Any) -> list[Tensor]:
    """What a network returns: scores, those of auxiliary classifiers beside them, or a dict of images or losses."""
    return [y] if isinstance(y, Tensor) else list(y.values() if isinstance(y, dict) else y)


def numbers(f: Callable[..., Any], model: nn.Module, inputs: tuple[Any, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """f's outputs, and the gradients of the parameters for errors that are the same in every run."""
    torch.manual_seed(1)  # dropout
    ys = outputs(f(*inputs))
    deltas = [torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype) for y in ys]
    weights = [w for w in model.parameters() if w.requires_grad]
    # A network may hold weights that it does not use.
    unused = {"allow_unused": True, "materialize_grads": True}
    return ys, list(torch.autograd.grad(ys, weights, deltas, retain_graph=True, **unused))


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative distance of a tensor. One that is zero but for rounding is measured by the size of all:

    so is the gradient of a bias before batch norm, which subtracts it again. A loss in float32 (torchvision's of
    labels in float32) may differ in its last place.
    """
    floor = 1e-6 * max(b.norm().item() for b in theirs) or 1.0  # a network may begin with outputs of 0

    def apart(a: Tensor, b: Tensor) -> float:
        last = 0.0 if b.dtype == torch.float64 else torch.finfo(b.dtype).eps * b.norm().item()
        return max((a - b).norm().item() - last, 0.0) / max(b.norm().item(), floor)

    return max(apart(a, b) for a, b in zip(ours, theirs, strict=True))


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return nn.functional.relu6(x + 3) / 6


def compare(model: nn.Module, *inputs: Any) -> dict[str, Comparison]:
    """The model `by_hand`, `convert`ed, `fuse`d, and both, beside itself; and its buffers after that one step."""
    inside, converted, fused, both = (copy.deepcopy(model) for _ in range(4))
    manualbp.convert(converted)
    manualbp.convert(both)
    manualbp.fuse(both)
    manualbp.fuse(fused)
    with patch("torch.nn.functional.hardsigmoid", hardsigmoid):
        ys, gradients = numbers(model, model, inputs)
    expected = [b.double() for b in model.buffers()]
    ways = {"by_hand": (manualbp.by_hand()(inside), inside), "convert": (converted, converted)}
    ways |= {"fuse": (fused, fused), "convert, fuse": (both, both)}
    results = {}
    for way, (f, other) in ways.items():
        with patch("torch.nn.functional.hardsigmoid", hardsigmoid if way == "fuse" else nn.functional.hardsigmoid):
            mine, my_gradients = numbers(f, other, inputs)
        buffers = [b.double() for b in other.buffers()]
        results[way] = Comparison(
            distance([*mine, *buffers], [*ys, *expected]), distance(my_gradients, gradients), manualbp.coverage(mine)
        )
    return results


def kept(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Bytes kept for the backward pass, each way, in float32."""
    return manualbp.memory(copy.deepcopy(model).float(), x.float()).totals


def places(model: nn.Module) -> tuple[int, int]:
    """How many places `fuse` takes together, and among how many."""
    report = manualbp.fuse(copy.deepcopy(model))
    return len(report.converted), len(report.rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("networks", nargs="*", help="by their names there (default: those of docs/zoo.md)")
    parser.add_argument("--timm", action="store_true", help="networks of timm, which must be installed")
    parser.add_argument(
        "--others", action="store_true", help="torchvision's segmentation, detection and video; DCGAN's discriminator"
    )
    parser.add_argument("--bytes", action="store_true", help="only what is fused and kept: minutes instead of an hour")
    args = parser.parse_args()
    groups = [group for group in ("timm", "others") if getattr(args, group)] or ["torchvision"]
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, float64; bytes in float32")
    taken, ratios = [], []
    for group in groups:
        names, make = GROUPS[group]
        for name in args.networks or names:
            try:
                model, inputs = make(name)
            except (ImportError, ValueError, RuntimeError, KeyError) as error:
                parser.error(f"{group} has no network {name}: {str(error).splitlines()[0]}")
            if not args.bytes:
                for way, result in compare(model, *inputs).items():
                    hand, layers = sum(result.coverage.by_hand.values()), result.coverage.layers
                    print(
                        f"  {name:32}{way:15}outputs {result.outputs:.0e}   gradients {result.gradients:.0e}   "
                        f"nodes by hand {hand:4}   PyTorch's layers {layers or 0}"
                    )
            done, of = places(model)
            taken.append(done > 0)
            line = f"  {name:32}fused {done:3} of {of:3} places"
            if len(inputs) == 1:  # a detection network takes lists, of which there is no receipt
                totals = kept(model, *inputs)
                by_hand, fused = (totals[way] / totals["pytorch"] for way in ("by_hand", "fused"))
                ratios.append((by_hand, fused))
                line += (
                    f"   kept {totals['pytorch'] / 2**20:7.1f} MiB by PyTorch, by hand {by_hand:.2f}, fused {fused:.2f}"
                )
            print(line, flush=True)
    print(f"fused on {sum(taken)} of {len(taken)} networks", end="")
    if ratios:
        by_hand, fused = (statistics.median(some) for some in zip(*ratios, strict=True))
        print(f"; median of {len(ratios)} kept: by hand {by_hand:.2f}, fused {fused:.2f} of PyTorch's")


if __name__ == "__main__":
    main()
