"""The ways in which a network is trained here, all from the same weights and on the same batch."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor, nn

import manualbp
from benchmarks.networks import NETWORKS
from benchmarks.textbook import Textbook
from manualbp.kernels.cpu import calls as in_c
from manualbp.kernels.cuda import calls as in_triton
from manualbp.training import torch_layers

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # else torch.compile on a CPU misses CUDA

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """What is trained: a name in NETWORKS, one in DTYPES (bf16 by autocast), images a step, their side, where."""

    network: str
    dtype: str
    batch: int
    device: str
    side: int


def setting(network: str, dtype: str, device: str, batch: int | None = None, side: int | None = None) -> Setting:
    usual = NETWORKS[network]
    return Setting(network, dtype, batch or usual.batch, device, side or usual.side)


def compiled(network: nn.Module) -> nn.Module:
    torch.compiler.reset()  # else some eight shapes in one process are the last that are compiled
    network.compile()
    return network


def by_hand(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if type(module) is torch_layers.ConnectedConv2d:  # `convert` knows torch.nn's classes
            module.__class__ = manualbp.nn.ConnectedConv2d  # pyright: ignore[reportAttributeAccessIssue]
    manualbp.convert(network)
    return network


def fused(network: nn.Module) -> nn.Module:
    manualbp.fuse(by_hand(network))
    return network


def has_kernels(device: str) -> bool:
    """Whether the rules have compiled kernels of their own here: in C on a CPU, in Triton on CUDA."""
    return in_triton.works(torch.cuda.current_device()) if device == "cuda" else in_c.built()


@contextmanager
def torch_operations() -> Iterator[None]:
    """In here the rules take PyTorch's operations, as by MANUALBP_KERNELS=torch, which a process reads only once.

    To go in and out takes 10 microseconds.
    """
    with patch.object(in_c, "built", lambda: False), patch.object(in_triton, "works", lambda card: False):
        yield


@dataclass(frozen=True)
class Variant:
    change: Callable[[nn.Module], nn.Module]
    layout: torch.memory_format = torch.channels_last
    only: str | None = None  # the network that it is made for
    by_hand: bool = False
    compiled_kernels: bool = True  # where there are some


BASE, COMPILED, BY_HAND = "torch.nn, default", "torch.compile", "manualbp"
VARIANTS = {
    BASE: Variant(lambda network: network, torch.contiguous_format),
    "torch.nn, channels_last": Variant(lambda network: network),
    COMPILED: Variant(compiled),
    BY_HAND: Variant(by_hand, by_hand=True),
    "manualbp, fused": Variant(fused, by_hand=True),
    "manualbp, torch operations": Variant(by_hand, by_hand=True, compiled_kernels=False),
    "manualbp, fused, torch operations": Variant(fused, by_hand=True, compiled_kernels=False),
    "textbook": Variant(Textbook, torch.contiguous_format, only="lecture004"),
}
TORCH = [name for name in VARIANTS if name.startswith("torch")]


@cache
def compiles(device: str) -> bool:
    """Whether torch.compile finds what it needs here: a C++ compiler, on CUDA Triton."""
    x = torch.ones(8, device=device)
    try:
        torch.compile(lambda x: (x + 1).sin())(x)
    except Exception:  # each backend has its own
        return False
    return True


def variants_of(s: Setting) -> list[str]:
    """Those that can be told apart here."""
    names = [name for name, variant in VARIANTS.items() if variant.only in (None, s.network)]
    names = [name for name in names if VARIANTS[name].compiled_kernels or has_kernels(s.device)]
    return [name for name in names if name != COMPILED or compiles(s.device)]


class Training:
    """A variant of a network with a batch of noise: each call is a step (forward, loss, backward, update by SGD).

    Weights and batch depend on the setting alone. On CUDA the step is over when the device is done.
    """

    def __init__(self, name: str, s: Setting) -> None:
        variant, network = VARIANTS[name], NETWORKS[s.network]
        allow_tf32()
        torch.manual_seed(0)
        original = network.build(s.side)
        self.parameters = [p for p in original.parameters() if p.requires_grad]
        moved = original.to(s.device, memory_format=variant.layout)  # pyright: ignore[reportCallIssue]
        self.model = variant.change(moved)
        self.criterion = (manualbp.nn if variant.by_hand else nn).CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.01)
        self.kernels = nullcontext if variant.compiled_kernels else torch_operations
        self.autocast = torch.autocast(s.device, torch.bfloat16, enabled=s.dtype == "bf16")
        self.synchronize = torch.cuda.synchronize if s.device == "cuda" else _nothing
        self.network, self.shape, self.classes = s.network, (network.channels, s.side, s.side), network.classes
        self.device, self.layout = s.device, variant.layout
        self.draw(s.batch)

    def draw(self, batch: int) -> None:
        """Another batch, of so many images."""
        numbers = torch.Generator().manual_seed(1)
        x = torch.randn(batch, *self.shape, generator=numbers).to(self.device)
        self.x = x.contiguous(memory_format=self.layout)
        self.t = torch.randint(self.classes, (batch,), generator=numbers).to(self.device)

    def loss(self) -> Tensor:
        with self.kernels(), self.autocast:
            return self.criterion(self.model(self.x), self.t)

    def backward(self) -> None:
        self.optimizer.zero_grad()
        with self.kernels():
            self.loss().backward()

    def __call__(self) -> None:
        self.backward()
        self.optimizer.step()
        self.synchronize()

    def gradient(self) -> Tensor:
        """That of all parameters in one vector, from the weights as they are."""
        self.backward()
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])


def allow_tf32() -> None:
    """PyTorch lets cuDNN round the factors of float32 products to TF32, and matmul not: alike here, on both sides."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def _nothing() -> None:
    """A CPU is done when the call returns."""
