"""Running statistics: updated as PyTorch's are, wherever a batch is normalised."""

from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F
import manualbp.nn
from tests.checks import EXACT, distance, random_like


def eager(f: Any, x: Tensor, *rest: Tensor) -> None:
    f(x.clone().requires_grad_(), *rest).sum().backward()


def without_grad(f: Any, *inputs: Tensor) -> None:
    with torch.no_grad():
        f(*inputs)


def in_torch_func(f: Any, x: Tensor, *rest: Tensor) -> None:
    torch.func.grad(lambda x: f(x, *rest).sum())(x)


def compiled(f: Any, x: Tensor, *rest: Tensor) -> None:
    torch._dynamo.reset()
    eager(torch.compile(f, fullgraph=True, backend="aot_eager"), x, *rest)


def compiled_without_grad(f: Any, *inputs: Tensor) -> None:
    torch._dynamo.reset()
    without_grad(torch.compile(f, fullgraph=True, backend="aot_eager"), *inputs)


WAYS = [eager, without_grad, in_torch_func, compiled, compiled_without_grad]


def running(f: Any, way: Any, x: Tensor, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Running statistics after two batches; a map of x is constant, its variance 0."""
    mean, var = (torch.tensor(v, dtype=dtype, device=device) for v in ([0.5, -1, 2], [1, 0.25, 3]))

    def step(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return f(x, mean, var, None, None, True, 0.3)

    way(step, x, mean, var)
    way(step, 2 * x + 1, mean, var)
    return mean, var


@pytest.mark.parametrize("way", WAYS)
def test_running_statistics(way: Any, device: str) -> None:
    x = random_like(torch.empty(4, 3, 2, 5, dtype=torch.float64, device=device))
    x[:, 1] = 2
    theirs = running(T.batch_norm, eager, x, torch.float64, device)
    for a, b in zip(running(F.batch_norm, way, x, torch.float64, device), theirs, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_running_statistics_of_half_precision(dtype: torch.dtype, device: str) -> None:
    x = random_like(torch.empty(4, 3, 2, 5, dtype=torch.bfloat16, device=device))
    ours, theirs = (running(f, eager, x, dtype, device) for f in (F.batch_norm, T.batch_norm))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert distance(a, b) <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_with_float32_weights(training: bool, device: str) -> None:
    """As under autocast, behind a convolution."""
    x = random_like(torch.empty(4, 3, 2, 5, dtype=torch.bfloat16, device=device))
    results = []
    for f, dtype in ((F.batch_norm, None), (T.batch_norm, None), (T.batch_norm, torch.float64)):
        inputs = [x, random_like(torch.empty(3, device=device)), random_like(torch.empty(3, device=device), 2)]
        x_, w, b = (t.to(dtype or t.dtype).detach().requires_grad_() for t in inputs)
        mean, var = (torch.full((3,), v, dtype=w.dtype, device=device) for v in (0.1, 0.7))
        y = f(x_, mean, var, w, b, training)
        gradients = torch.autograd.grad(y, (x_, w, b), random_like(x).to(y.dtype))
        results.append([y, *gradients])
    for ours, torchs, truth in zip(*results, strict=True):
        assert ours.dtype == torchs.dtype
        assert distance(ours, truth) <= max(2 * distance(torchs, truth), torch.finfo(ours.dtype).eps)


def test_no_sample_does_not_count(device: str) -> None:
    mean, var = torch.ones(3, device=device), torch.ones(3, device=device)
    F.batch_norm(torch.zeros(0, 3, 2, device=device), mean, var, training=True)
    assert torch.equal(mean, torch.ones_like(mean))
    assert torch.equal(var, torch.ones_like(var))


@pytest.mark.parametrize("kwargs", [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}], ids=str)
def test_layers_in_training_and_evaluation(kwargs: dict[str, Any], device: str) -> None:
    layers = [n.BatchNorm2d(3, **kwargs).to(device, torch.float64) for n in (manualbp.nn, torch.nn)]
    x = random_like(torch.empty(3, 4, 3, 2, 5, dtype=torch.float64, device=device))
    for training in (True, True, False, True, False):
        a, b = (layer.train(training)(x[int(training)] * 2) for layer in layers)
        assert distance(a, b) <= EXACT
        for s, t in zip(*(layer.state_dict().values() for layer in layers), strict=True):
            assert distance(s, t) <= EXACT


def test_a_stack_of_layers_under_vmap(device: str) -> None:
    """Each model's own statistics, normalised and updated."""
    x = random_like(torch.empty(2, 4, 3, dtype=torch.float64, device=device))
    results = []
    for f in (F.batch_norm, T.batch_norm):
        mean, var = (torch.full((2, 3), v, dtype=torch.float64, device=device) for v in (0.0, 1.0))
        y = torch.func.vmap(lambda x, mean, var, f=f: f(x, mean, var, training=True))(x, mean, var)
        results.append((y, mean, var))
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"])
def test_layers_refuse_what_torchs_refuse(name: str) -> None:
    for layers in (manualbp.nn, torch.nn):
        with pytest.raises(ValueError, match="expected"):
            getattr(layers, name)(3)(torch.zeros(3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "w", [torch.arange(32, dtype=torch.float64).view(16, 2)[:, 0], torch.ones((), dtype=torch.float64).expand(16)]
)
def test_a_weight_is_read_whatever_its_strides(w: Tensor, training: bool) -> None:
    """PyTorch's backward pass in channels_last reads it as if it were contiguous."""
    x = random_like(torch.empty(4, 16, 3, 3, dtype=torch.float64)).contiguous(memory_format=torch.channels_last)
    x, delta = x.requires_grad_(), random_like(x, 2).contiguous(memory_format=torch.channels_last)
    running = torch.zeros(16).double(), torch.ones(16).double()
    ours = torch.autograd.grad(F.batch_norm(x, *running, w, None, training), x, delta)[0]
    theirs = torch.autograd.grad(T.batch_norm(x, *running, w.contiguous(), None, training), x, delta)[0]
    assert distance(ours, theirs) <= EXACT
