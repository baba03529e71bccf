"""python -m benchmarks.connections: a layer with a connection table beside the dense one, a training step of each.

The second convolution of the Caltech network (64 to 256 maps, 9x9, each map sees 16) and LeNet-5's C3 (6 to 16 maps,
5x5), on images of 14 x 14 in channels_last; a step is forward, backward and an update by SGD with momentum.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.timing import in_turns
from manualbp.nn import LENET5_C3, ConnectedConv2d, Conv2d, random_connections


def training_step(layer: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    delta = torch.randn_like(layer(x))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        x.grad = None
        optimizer.zero_grad()
        layer(x).backward(delta)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connections", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="timed steps at batch 128 (default: 30)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, medians")
    caltech = partial(ConnectedConv2d, 64, 256, 9, random_connections(64, 256, 16)), partial(Conv2d, 64, 256, 9)
    lenet = partial(ConnectedConv2d, 6, 16, 5, LENET5_C3), partial(Conv2d, 6, 16, 5)
    for name, maps, (connected, dense) in (("Caltech", 64, caltech), ("LeNet-5 C3", 6, lenet)):
        for batch, more in ((1, 10), (16, 4), (128, 1)):
            x = torch.randn(batch, maps, 14, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
            steps = {"dense": training_step(dense(), x), "connected": training_step(connected(), x)}
            times = in_turns(steps, more * options.rounds)
            one, other = (statistics.median(times[kind]) for kind in ("dense", "connected"))
            print(f"  {name:12}batch {batch:4}   dense {one:8.2f} ms   connected {other:8.2f} ms   {other / one:5.2f}")


if __name__ == "__main__":
    main()
