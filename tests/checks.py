"""The checks that every rule must pass, as functions of a case, so that the tests can be tested with wrong rules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cases.make import Case, leaf

EXACT = 1e-12


def first(y: Any) -> Tensor:
    """The differentiable output."""
    return y[0] if isinstance(y, tuple) else y


def wanted(inputs: Sequence[Any]) -> list[Tensor]:
    return [a for a in inputs if isinstance(a, Tensor) and a.requires_grad]


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|; shapes must be equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    if a.numel() == 0:
        return 0.0
    difference = (a.double() - b.double()).norm().item()
    return difference / max(b.double().norm().item(), 1e-300) if difference else 0.0


def largest(a: Tensor, b: Tensor) -> float:
    """The largest error of a over the largest number of b."""
    return ((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def random_like(t: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(t.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(t)


def derivatives(f: Callable[..., Any], case: Case, device: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The output, its gradients, and the gradients of a random combination of these."""
    inputs = case.inputs(device, dtype)
    y = first(f(*inputs, **case.settings(device, dtype)))
    delta = random_like(y).requires_grad_()
    gradients = grad(y, wanted(inputs), delta, create_graph=True)
    combination = sum((g * random_like(g, seed=i + 2)).sum() for i, g in enumerate(gradients))
    assert isinstance(combination, Tensor)
    second = grad(combination, [delta, *wanted(inputs)], allow_unused=True, materialize_grads=True)
    return [y.detach(), *(g.detach() for g in gradients), *second]


def equals_pytorch(case: Case, device: str = "cpu") -> None:
    """Value, first and second derivatives in float64."""
    ours, torchs = derivatives(case.ours, case, device), derivatives(case.torchs, case, device)
    for which, (a, b) in enumerate(zip(ours, torchs, strict=True)):
        assert distance(a, b) <= EXACT, f"{case}: number {which} is off by {distance(a, b):.1e}"


def passes_gradcheck(case: Case, device: str = "cpu") -> None:
    """First and second derivatives against finite differences, backward and forward mode."""
    settings = case.settings(device)

    def f(*inputs: Any) -> Tensor:
        return first(case.ours(*inputs, **settings))

    inputs = case.inputs(device)
    tolerance = {"rtol": 1e-6, "atol": 1e-7}
    assert gradcheck(f, inputs, check_forward_ad=True, **tolerance)
    assert gradgradcheck(f, inputs, check_fwd_over_rev=True, **tolerance)


def takes_any_delta(case: Case, device: str = "cpu") -> None:
    """The gradient is right for an expanded and for a non-contiguous delta, and delta is not written to."""
    inputs, settings = case.inputs(device), case.settings(device)
    y = first(case.ours(*inputs, **settings))
    expected = first(case.torchs(*inputs, **settings))
    expanded = torch.full((), 0.5, dtype=y.dtype, device=device).expand(y.shape)
    strided = random_like(y.new_empty(*y.shape, 2))[..., 0]
    transposed = random_like(y.new_empty(y.shape[::-1])).permute(tuple(range(y.ndim))[::-1])
    for delta in (expanded, strided, transposed):
        before = delta.clone()
        ours = grad(y, wanted(inputs), delta, retain_graph=True)
        torchs = grad(expected, wanted(inputs), delta, retain_graph=True)
        assert torch.equal(delta, before), f"{case}: backward wrote into its gradient"
        for a, b in zip(ours, torchs, strict=True):
            cancelled = (a - b).norm() <= EXACT * delta.norm()  # a constant delta gives 0 where means are subtracted
            assert cancelled or distance(a, b) <= EXACT, (
                f"{case}: off by {distance(a, b):.1e} for strides {delta.stride()}"
            )


class Recorder(TorchDispatchMode):
    """The names of the operators that were dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operators(f: Callable[..., Any], case: Case, device: str = "cpu") -> list[str]:
    """The operators dispatched in the backward pass and in that of the backward pass."""
    inputs = case.inputs(device)
    y = first(f(*inputs, **case.settings(device)))
    delta = random_like(y).requires_grad_()
    with Recorder() as recorder:
        gradients = grad(y, wanted(inputs), delta, create_graph=True)
        grad([g.sum() for g in gradients], [delta, *wanted(inputs)], allow_unused=True)
    return recorder.names


def is_by_hand(case: Case, device: str = "cpu") -> None:
    """No operator of the backward passes is one of PyTorch's own backward passes."""
    foreign = {name for name in operators(case.ours, case, device) if "_backward" in name}
    assert not foreign, f"{case}: {sorted(foreign)}"


def errors(case: Case, dtype: torch.dtype, device: str, seed: int) -> list[tuple[float, float]]:
    """(ours, PyTorch's): distances of the value and the gradients in `dtype` from float64's on the same numbers."""
    rounded, settings = case.inputs(device, dtype, seed), case.settings(device, dtype)

    def run(f: Callable[..., Any], to: torch.dtype) -> list[Tensor]:
        inputs = [leaf(a, device, to) for a in rounded]
        y = first(f(*inputs, **{k: to if k == "dtype" else leaf(a, device, to) for k, a in settings.items()}))
        assert y.dtype == to, (y.dtype, to)
        delta = random_like(y, seed).to(dtype).to(to)
        return [y.detach(), *grad(y, wanted(inputs), delta)]

    truth = run(case.torchs, torch.float64)
    ours, torchs = run(case.ours, dtype), run(case.torchs, dtype)
    return [(distance(a, c), distance(b, c)) for a, b, c in zip(ours, torchs, truth, strict=True)]


def as_precise(case: Case, dtype: torch.dtype, device: str = "cpu") -> None:
    """The error in a lower precision is at most twice PyTorch's own, or that of correct rounding.

    Both as root mean squares over some inputs: a single small one is a matter of luck.
    """
    runs = [errors(case, dtype, device, seed) for seed in range(24)]
    for which, pairs in enumerate(zip(*runs, strict=True)):
        ours, torchs = (sum(e**2 for e in side) ** 0.5 / len(runs) ** 0.5 for side in zip(*pairs, strict=True))
        limit = max(2 * torchs, torch.finfo(dtype).eps / 2)
        assert ours <= limit, f"{case}: number {which} in {dtype} is off by {ours:.1e}, PyTorch's by {torchs:.1e}"
