"""python -m benchmarks: one training step of lecture 004's network, by hand and by torch.nn, side by side.

All variants take turns in one process, warm, on the same batch of 32 x 32 colour images; printed are the median of each
and its ratio to torch.nn in its default memory format.
"""

import argparse
import statistics
from collections.abc import Callable
from types import ModuleType

import torch

import manualbp.nn
from benchmarks.timing import in_turns
from manualbp.training.networks import lecture004

VARIANTS: dict[str, tuple[ModuleType, torch.memory_format]] = {
    "torch.nn, default": (torch.nn, torch.contiguous_format),
    "torch.nn, channels_last": (torch.nn, torch.channels_last),
    "manualbp.nn, default": (manualbp.nn, torch.contiguous_format),
    "manualbp.nn, channels_last": (manualbp.nn, torch.channels_last),
}


def training_step(
    layers: ModuleType, layout: torch.memory_format, x: torch.Tensor, t: torch.Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """Forward, loss, backward and update of a network that starts from the same weights each time."""
    torch.manual_seed(0)
    network = lecture004(layers, (3, 32, 32), 10).to(x.device, memory_format=layout)
    criterion = layers.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    x = x.contiguous(memory_format=layout)

    def step() -> None:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss = criterion(network(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if x.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="images a step (default: 128)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="timed steps of each (default: 30)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    options = parser.parse_args()
    x = torch.randn(options.batch_size, 3, 32, 32, device=options.device)
    t = torch.randint(10, (options.batch_size,), device=options.device)
    print(f"lecture004, batch {options.batch_size}, torch {torch.__version__}, {options.device}", end=", ")
    print(f"{torch.get_num_threads()} threads, median of {options.rounds} steps")
    for dtype in (torch.float32, torch.bfloat16):
        steps = {name: training_step(*how, x, t, dtype) for name, how in VARIANTS.items()}
        times = in_turns(steps, options.rounds)
        base = statistics.median(times["torch.nn, default"])
        print("float32" if dtype == torch.float32 else "autocast to bfloat16")
        for name, taken in times.items():
            low, middle, high = statistics.quantiles(taken, n=4)
            print(f"  {name:28}{middle:8.1f} ms  (quartiles {low:.1f}, {high:.1f}){middle / base:8.2f}")


if __name__ == "__main__":
    main()
