"""python -m benchmarks.backward: an operation at a time, forward (y) and backward (dx, dw), beside PyTorch's own.

By hand with the compiled kernels, and with PyTorch's operations in their place, all in turns and in channels_last.
Times and errors by hand are over PyTorch's. An error is the largest, against float64, over the largest number.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from benchmarks.machine import cpu
from benchmarks.processes import one_core_busy
from benchmarks.timing import in_turns
from benchmarks.variants import DTYPES, has_kernels, torch_operations
from manualbp import functional as F

Kernels = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Convolution:
    """From C to O maps, kernel P x P, image side x side; padding: P // 2 where none is given."""

    C: int
    O: int
    P: int
    side: int
    stride: int = 1
    groups: int = 1
    padding: int | None = None
    batch: int = 128

    def __str__(self) -> str:
        more = [f"stride {self.stride}"] * (self.stride > 1) + [f"{self.groups} groups"] * (self.groups > 1)
        size = f"{self.P} x {self.P}", f"{self.side} x {self.side}"
        return ", ".join([f"convolution {self.C} -> {self.O}", *size, *more])


CONVOLUTIONS = [
    *[Convolution(3, 32, 5, 32), Convolution(32, 64, 5, 16)],  # lecture 004
    *[Convolution(1, 64, 9, 83, padding=0, batch=32), Convolution(64, 256, 9, 14, padding=0, batch=32)],  # Caltech
    *[Convolution(3, 64, 3, 32), Convolution(64, 64, 3, 32), Convolution(128, 128, 3, 16)],  # resnet18
    *[Convolution(256, 256, 3, 8), Convolution(512, 512, 3, 4)],
    *[Convolution(64, 128, 3, 32, stride=2), Convolution(128, 256, 3, 16, stride=2)],
    *[Convolution(256, 512, 3, 8, stride=2), Convolution(64, 128, 1, 32, stride=2)],
    *[Convolution(3, 24, 2, 32, padding=0), Convolution(24, 64, 3, 31), Convolution(64, 64, 3, 31)],  # airbench94
    *[Convolution(64, 64, 3, 15), Convolution(64, 256, 3, 15), Convolution(256, 256, 3, 7)],
    *[Convolution(3, 64, 7, 224, stride=2, batch=4), Convolution(64, 64, 3, 56, batch=8)],  # of large images
    *[Convolution(64, 64, 3, 224, batch=1), Convolution(96, 96, 3, 56, groups=96, batch=8)],
    *[Convolution(64, 256, 1, 56, batch=8), Convolution(256, 64, 1, 56, batch=8)],
]
NORMS = [(64, 32), (128, 16), (256, 8), (512, 4), (64, 15), (256, 7)]  # maps and side
MAXIMA = [(32, 32), (64, 16), (64, 31), (256, 15)]
MEANS = [(64, 75, 10, 5), (256, 6, 6, 6)]  # and window and stride: Caltech's
N, CALTECHS = 128, 32  # images


@dataclass(frozen=True)
class Operation:
    """What is computed in a namespace, T or F, of tensors by name; faces: y, and dx or dw, the gradient by x or w."""

    name: str
    compute: Callable[..., Tensor]
    shapes: dict[str, tuple[int, ...]]
    faces: tuple[str, ...] = ("y", "dx")

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Noise, a kernel's scaled so that y is like x; what belongs to maps stays float32, as under autocast."""
        torch.manual_seed(0)
        made = {}
        for name, shape in self.shapes.items():
            t = torch.randn(shape)
            if len(shape) == 4:
                t = t.to(dtype).contiguous(memory_format=torch.channels_last)
            made[name] = t / math.prod(shape[1:]) ** 0.5 if name == "w" else t
        return made


def convolve(namespace: Any, x: Tensor, w: Tensor, of: Convolution) -> Tensor:
    padding = of.P // 2 if of.padding is None else of.padding
    return namespace.conv2d(x, w, None, of.stride, padding, 1, of.groups)


def batch_norm(namespace: Any, x: Tensor, w: Tensor) -> Tensor:
    return namespace.batch_norm(x, None, None, w, None, True)


def batch_norm_relu(namespace: Any, x: Tensor, w: Tensor) -> Tensor:
    if namespace is F:
        return F.batch_norm_activation(x, None, None, w, None, True, activation="relu")
    return T.relu(T.batch_norm(x, None, None, w, None, True))


def maximum(namespace: Any, x: Tensor) -> Tensor:
    return namespace.max_pool2d(x, 2)


def maximum_of(namespace: Any, x: Tensor, activation: str) -> Tensor:
    if namespace is F:
        return F.activation_max_pool2d(x, activation, 2)
    return T.max_pool2d(getattr(T, activation)(x), 2)


def mean(namespace: Any, x: Tensor, size: int, stride: int) -> Tensor:
    return namespace.avg_pool2d(x, size, stride)


def operations(batch: int | None) -> Iterator[Operation]:
    for c in CONVOLUTIONS:
        shapes = {"x": (batch or c.batch, c.C, c.side, c.side), "w": (c.O, c.C // c.groups, c.P, c.P)}
        yield Operation(str(c), partial(convolve, of=c), shapes, ("y", "dx", "dw"))
    for C, side in NORMS:
        of, shapes = f"{C} maps, {side} x {side}", {"x": (batch or N, C, side, side), "w": (C,)}
        yield Operation(f"batch norm, {of}", batch_norm, shapes)
        yield Operation(f"batch norm + ReLU, {of}", batch_norm_relu, shapes)
    for C, side in MAXIMA:
        of, shapes = f"{C} maps, {side} x {side}", {"x": (batch or N, C, side, side)}
        yield Operation(f"max pooling 2 x 2, {of}", maximum, shapes)
        for activation in ("sigmoid", "relu"):
            compute = partial(maximum_of, activation=activation)
            yield Operation(f"{activation} + max pooling 2 x 2, {of}", compute, shapes)
    for C, side, size, stride in MEANS:
        name = f"average pooling {size} x {size}, stride {stride}, {C} maps, {side} x {side}"
        yield Operation(name, partial(mean, size=size, stride=stride), {"x": (batch or CALTECHS, C, side, side)})


def step(
    o: Operation, face: str, namespace: Any, kernels: Kernels, inputs: dict[str, Tensor], delta: Tensor
) -> Callable[[], Tensor]:
    """The computation of a face alone; of y as in training, where all inputs require their gradients."""
    leaves = {name: t.detach().requires_grad_(face in ("y", f"d{name}")) for name, t in inputs.items()}
    with kernels():
        y = o.compute(namespace, **leaves)

    def run() -> Tensor:
        with kernels():
            if face == "y":
                return o.compute(namespace, **leaves)
            return torch.autograd.grad(y, leaves[face[1:]], delta, retain_graph=True)[0]

    return run


def measure(o: Operation, dtype: torch.dtype, rounds: int) -> Iterator[dict[str, Any]]:
    """A row a face: quartiles of milliseconds, and the largest error, of each way."""
    inputs = o.inputs(dtype)
    doubles = {name: t.double() for name, t in inputs.items()}
    delta = torch.randn_like(o.compute(T, **inputs))
    ways: dict[str, tuple[Any, Kernels]] = {"PyTorch": (T, nullcontext), "by hand": (F, nullcontext)}
    if has_kernels("cpu"):
        ways["torch operations"] = F, torch_operations
    for face in o.faces:
        steps = {way: step(o, face, *of, inputs, delta) for way, of in ways.items()}
        exact = step(o, face, T, nullcontext, doubles, delta.double())().detach()
        error = {way: ((run() - exact).abs().max() / exact.abs().max()).item() for way, run in steps.items()}
        quartiles = {way: statistics.quantiles(ms, n=4) for way, ms in in_turns(steps, rounds).items()}
        yield {"operation": o.name, "shapes": o.shapes, "face": face, "quartiles": quartiles, "error": error}


def shown(row: dict[str, Any]) -> str:
    """Beside PyTorch's the others' over it; where PyTorch has no error, 1 says the same of another."""
    (_, theirs), *others = [(way, q[1]) for way, q in row["quartiles"].items()]
    error = row["error"]["PyTorch"]
    line = f"    {row['face']:2}   PyTorch {theirs:8.2f} ms, error {error:.0e}"
    for way, ms in others:
        over = row["error"][way] / error if error else 1 if row["error"][way] == 0 else math.inf
        line += f"   {way} {ms / theirs:5.2f}, error {over:5.2f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backward", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=20, metavar="N", help="timed steps, two at least (default: 20)")
    add("--dtype", choices=DTYPES, default="float32", help="default: float32")
    add("--batch", type=int, metavar="N", help="images of all operations (default: what their networks are given)")
    add("--only", default="", metavar="TEXT", help="the operations whose names have this in them")
    add("--busy", action="store_true", help="while another process keeps one core busy")
    add("--json", type=Path, metavar="FILE", help="also write all figures to a new FILE")
    options = parser.parse_args()
    if options.json is not None and options.json.exists():
        parser.error(f"argument --json: {options.json} exists")
    m = {"torch": torch.__version__, "cpu": cpu(), "threads": torch.get_num_threads()}
    print(
        f"torch {m['torch']}, {m['cpu']}, {m['threads']} threads, {options.dtype}, medians of {options.rounds} in turns"
    )
    rows = []
    with one_core_busy() if options.busy else nullcontext():
        for o in operations(options.batch):
            if options.only in o.name:
                print(f"  {o.name}, batch {o.shapes['x'][0]}")
                for row in measure(o, DTYPES[options.dtype], options.rounds):
                    print(shown(row), flush=True)
                    rows.append(row)
    if options.json is not None:
        chosen = {"dtype": options.dtype, "rounds": options.rounds, "busy": options.busy}
        options.json.write_text(json.dumps({"machine": m, "options": chosen, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
