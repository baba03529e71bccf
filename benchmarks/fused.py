"""python -m benchmarks.fused: what `manualbp.fuse` costs when it is called, and what each step pays for it.

A fused forward looks whether the model is as it was when it was traced. Printed for each network of torchvision: how
many modules that look is at, its time, and its share of a training step (forward and backward, 8 images of 64 x 64).
"""

import time
from collections.abc import Callable

import torch
import torchvision

import manualbp
from manualbp.fuse.written import WRITTEN

NETWORKS = "resnet18", "mobilenet_v2", "densenet121"


def seconds(f: Callable[[], object], times: int) -> float:
    """The shortest of 5 means of so many calls."""

    def mean() -> float:
        start = time.perf_counter()
        for _ in range(times):
            f()
        return (time.perf_counter() - start) / times

    return min(mean() for _ in range(5))


def main() -> None:
    print("network        places  modules  fuse, s  look, ms  step, ms  share")
    x = torch.randn(8, 3, 64, 64)
    for name in NETWORKS:
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(weights=None)
        manualbp.convert(model)
        start = time.perf_counter()
        report = manualbp.fuse(model)
        fusing = time.perf_counter() - start
        written = model.__dict__[WRITTEN][True]
        model(x).sum().backward()
        look = seconds(lambda written=written, model=model: written.holds(model), 100)
        step = seconds(lambda model=model: model(x).sum().backward(), 1)
        columns = (
            f"{len(report.converted):6}  {len(written.parts):7}  {fusing:7.2f}  {1e3 * look:8.3f}  {1e3 * step:8.1f}"
        )
        print(f"{name:13}  {columns}  {look / step:.2%}")


if __name__ == "__main__":
    main()
