"""python -m benchmarks.connections: a layer with a connection table beside the dense one, a training step of each.

LeNet-5's C3 (6 to 16 maps, 5x5) and the second convolution of the Caltech network (64 to 256 maps, 9x9, each map sees
16), alone on images of 14 x 14; and the Caltech network in whole (ReLU, maximum), with the one layer or the other. In
channels_last; a step is forward, backward and an update by SGD with momentum.
"""

import argparse
import statistics
from collections.abc import Callable

import torch

import manualbp.nn as nn
from benchmarks.timing import in_turns
from manualbp.training.networks import caltech

BATCHES = {1: 50, 16: 10, 128: 1}  # and how many times the rounds


def training_step(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    delta = torch.randn_like(model(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        x.grad = None
        optimizer.zero_grad()
        model(x).backward(delta)
        optimizer.step()

    return step


def lenet(dense: bool) -> torch.nn.Module:
    return nn.Conv2d(6, 16, 5) if dense else nn.ConnectedConv2d(6, 16, 5, nn.LENET5_C3)


def second(dense: bool) -> torch.nn.Module:
    return nn.Conv2d(64, 256, 9) if dense else nn.ConnectedConv2d(64, 256, 9, nn.random_connections(64, 256, 16))


def network(dense: bool) -> torch.nn.Module:
    whole = caltech(nn, (1, 83, 83), 101, "relu", "max")
    whole.conv2 = second(dense)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connections", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="timed steps at batch 128 (default: 30)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, medians")
    kinds = (
        ("LeNet-5's C3", lenet, (6, 14, 14)),
        ("Caltech's 2nd", second, (64, 14, 14)),
        ("Caltech, all", network, (1, 83, 83)),
    )
    for name, build, shape in kinds:
        for batch, more in BATCHES.items():
            x = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last).requires_grad_(shape[0] > 1)
            steps = {kind: training_step(build(kind == "dense"), x) for kind in ("dense", "connected")}
            times = in_turns(steps, more * options.rounds)
            one, other = (statistics.median(times[kind]) for kind in ("dense", "connected"))
            print(f"  {name:14}batch {batch:4}   dense {one:8.2f} ms   connected {other:8.2f} ms   {other / one:5.2f}")


if __name__ == "__main__":
    main()
