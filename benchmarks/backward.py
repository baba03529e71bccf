"""python -m benchmarks.backward: one backward pass at a time, by hand beside PyTorch's own, in turns.

The kernel gradient of the convolutions of the measured networks, batch norm's backward, and that of max pooling; batch
128, float32, channels_last.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from benchmarks.timing import in_turns
from manualbp import functional as F

N = 128
KERNELS = [  # maps in and out, side of the kernel and of the image
    *[(3, 32, 5, 32), (32, 64, 5, 16), (3, 64, 3, 32), (24, 64, 3, 31)],
    *[(64, 64, 3, 32), (64, 256, 3, 15), (128, 128, 3, 16), (256, 256, 3, 8), (256, 256, 3, 7), (512, 512, 3, 4)],
]
NORMS = [(64, 32), (128, 16), (256, 8), (64, 15), (256, 7)]
POOLS = [(32, 32), (64, 16), (64, 31), (256, 15)]


def image(C: int, side: int) -> Tensor:
    return torch.randn(N, C, side, side).contiguous(memory_format=torch.channels_last)


def kernel_gradient(namespace: Any, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """y, and what its gradient is asked of."""
    return namespace.conv2d(x, w, padding=w.shape[2] // 2), w


def batch_norm(namespace: Any, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return namespace.batch_norm(x, None, None, w, None, True), x


def max_pool(namespace: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return namespace.max_pool2d(x, 2), x


def cases() -> Iterator[tuple[str, Callable[[Any], tuple[Tensor, Tensor]]]]:
    """A name, and what is computed in a namespace: T or F."""
    for C, O, P, side in KERNELS:
        w = (torch.randn(O, C, P, P) / (C * P * P) ** 0.5).requires_grad_()
        name = f"kernel gradient, {C} -> {O}, {P} x {P}, {side} x {side}"
        yield name, partial(kernel_gradient, x=image(C, side), w=w)
    for C, side in NORMS:
        yield (
            f"batch norm, {C} maps, {side} x {side}",
            partial(batch_norm, x=image(C, side).requires_grad_(), w=torch.rand(C, requires_grad=True)),
        )
    for C, side in POOLS:
        yield (
            f"max pooling 2 x 2, {C} maps, {side} x {side}",
            partial(max_pool, x=image(C, side).requires_grad_()),
        )


def both(compute: Callable[[Any], tuple[Tensor, Tensor]]) -> tuple[dict[str, Callable[[], Tensor]], float]:
    """The backward passes of the same delta, and how far by hand is from PyTorch's."""
    y, inputs = compute(T)
    mine, _ = compute(F)
    delta = torch.randn_like(y)
    steps = {
        "PyTorch": lambda: torch.autograd.grad(y, inputs, delta, retain_graph=True)[0],
        "by hand": lambda: torch.autograd.grad(mine, inputs, delta, retain_graph=True)[0],
    }
    expected, found = (step() for step in steps.values())
    return steps, ((found - expected).norm() / expected.norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backward", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="timed steps (default: 20)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch {N}, medians, ms")
    for name, compute in cases():
        steps, distance = both(compute)
        times = in_turns(steps, options.rounds)
        one, other = (statistics.median(times[kind]) for kind in steps)
        print(f"  {name:44}PyTorch {one:7.2f}   by hand {other:7.2f}   {other / one:5.2f}   differs {distance:.0e}")


if __name__ == "__main__":
    main()
