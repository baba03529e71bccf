"""A rule that is wrong on purpose, and the ways to a gradient that must not get around it.

Importable without pytest, as the processes of DistributedDataParallel start with a fresh interpreter.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import manualbp
import manualbp.nn
from manualbp.kernels import activation, conv
from manualbp.kernels.geometry import Geometry

Gradients = dict[str, Tensor]
right_slope, right_kernel_gradient = activation.sigmoid_slope, conv.kernel_gradient


def twice_the_slope(delta: Tensor, y: Tensor) -> Tensor:
    """2 delta y (1 - y)."""
    return 2 * right_slope(delta, y)


def twice_the_kernel(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dL/dw doubled."""
    return 2 * right_kernel_gradient(x, delta, g)


WRONG = {
    "slope": (activation, "sigmoid_slope", twice_the_slope),
    "kernel": (conv, "kernel_gradient", twice_the_kernel),
}
# How many times its gradient each parameter then gets: a slope doubles all that is before it.
TIMES = {
    "slope": {"0.weight": 4, "0.bias": 4, "3.weight": 2, "3.bias": 2, "7.weight": 1, "7.bias": 1},
    "kernel": {"0.weight": 2, "0.bias": 1, "3.weight": 2, "3.bias": 1, "7.weight": 1, "7.bias": 1},
}


def network(layers: ModuleType = manualbp.nn) -> nn.Sequential:
    """Layers that see no other image of the batch."""
    torch.manual_seed(0)
    return nn.Sequential(
        layers.Conv2d(2, 4, 3, padding=1),
        layers.Sigmoid(),
        layers.MaxPool2d(2),
        layers.Conv2d(4, 4, 2),
        layers.Sigmoid(),
        layers.AvgPool2d(2, 1),
        nn.Flatten(),
        layers.Linear(16, 3),
    ).double()


def images() -> Tensor:
    return torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss(y: Tensor) -> Tensor:
    """The mean over the images."""
    return y.square().sum(1).mean()


def by_backward(forward: Callable[[nn.Module, Tensor], Tensor], layers: ModuleType = manualbp.nn) -> Gradients:
    """The parameters' gradients after loss(forward(model, x)).backward()."""
    model = network(layers)
    loss(forward(model, images().requires_grad_())).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def plainly(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def compiled(backend: str) -> Gradients:
    torch._dynamo.reset()
    try:
        return by_backward(lambda model, x: torch.compile(model, fullgraph=True, backend=backend)(x))
    finally:
        torch._dynamo.reset()  # else a graph with the wrong rule in it would be found again


def fused(model: nn.Module, x: Tensor) -> Tensor:
    assert manualbp.fuse(model).converted
    return model(x)


def under_autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model.float()(x.float())


def functional(whole: bool, compile: bool = False) -> Gradients:
    """torch.func.grad of the loss, compiled or not, or the mean of each image's own by vmap."""
    model, x = network(), images()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def of_one(p: Gradients, x: Tensor) -> Tensor:
        return loss(functional_call(model, p, (x,)))

    if compile:
        torch._dynamo.reset()
        return torch.compile(grad(of_one), backend="aot_eager")(parameters, x)
    if whole:
        return grad(of_one)(parameters, x)
    each = vmap(grad(of_one), in_dims=(None, 0))(parameters, x[:, None])
    return {name: g.mean(0) for name, g in each.items()}


def distributed(wrong: str | None, folder: Path) -> Gradients:
    """DistributedDataParallel in two processes with half of the images each."""
    torch.multiprocessing.spawn(_process, (wrong, str(folder)), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    return first


def _process(rank: int, wrong: str | None, folder: str) -> None:
    """One of the two; the wrong rule is put in here, where it is to run."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", f"file://{folder}/together", rank=rank, world_size=2)
    if wrong is not None:
        setattr(*WRONG[wrong])
    model = network()
    parallel = DistributedDataParallel(model)  # alive until after backward: it is what sums
    loss(parallel(images()[2 * rank : 2 * rank + 2])).backward()
    torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # PyTorch's threads that are still there can abort a process that tidies up


WAYS: dict[str, Callable[[], Gradients]] = {
    "eager": lambda: by_backward(plainly),
    "torch.compile, aot_eager": lambda: compiled("aot_eager"),
    "torch.compile, inductor": lambda: compiled("inductor"),
    "torch.func.grad": lambda: functional(whole=True),
    "torch.compile of torch.func.grad": lambda: functional(whole=True, compile=True),
    "torch.func.vmap of grad": lambda: functional(whole=False),
    "checkpoint": lambda: by_backward(lambda model, x: checkpoint(model, x, use_reentrant=False)),
    "reentrant checkpoint": lambda: by_backward(lambda model, x: checkpoint(model, x, use_reentrant=True)),
    "fused": lambda: by_backward(fused),
    "autocast": lambda: by_backward(under_autocast),
}
