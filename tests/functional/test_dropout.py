"""Dropout: the noise of PyTorch for the same seed, and everything else that the other rules are tested for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.func import jacfwd, jacrev, jvp, vmap

import manualbp.functional as F
import manualbp.nn
from tests.checks import EXACT, Recorder, distance, random_like

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def seeded(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(3)
    return f(*args, **kwargs)


def images(device: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return random_like(torch.empty(2, 3, 5, 4, dtype=dtype, device=device)).requires_grad_()


def close(a: Tensor, b: Tensor) -> bool:
    """On CUDA PyTorch multiplies half precision by an unrounded 1 / (1 - p)."""
    assert a.dtype == b.dtype
    return torch.equal(a, b) if a.device.type == "cpu" else distance(a, b) <= torch.finfo(a.dtype).eps


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_and_gradients_are_pytorchs_for_the_same_seed(p: float, dtype: torch.dtype, device: str) -> None:
    x = images(device, dtype)
    with_gaps = [x[..., ::2]] if device == "cpu" else []  # PyTorch's CUDA kernel draws in another order there
    for t in (x, x.contiguous(memory_format=torch.channels_last), *with_gaps):
        ours, torchs = (seeded(f, t, p) for f in (F.dropout, T.dropout))
        assert close(ours, torchs)
        assert ours.stride() == torchs.stride()
        delta = random_like(ours)
        assert close(*(grad(y, x, delta, retain_graph=True)[0] for y in (ours, torchs)))


def test_integers_where_nothing_is_drawn() -> None:
    """All are dropped, or there are none."""
    for x, p in ((torch.arange(6), 1.0), (torch.arange(6).view(2, 3)[:0], 0.5)):
        ours, torchs = F.dropout(x, p), T.dropout(x, p)
        assert (ours.dtype, ours.shape) == (torchs.dtype, torchs.shape)
        assert torch.equal(ours, torchs)


def test_what_is_left_has_the_mean_of_the_input(device: str) -> None:
    ones = torch.ones(100_000, device=device)
    y = seeded(F.dropout, ones, 0.3)
    assert abs(y.mean().item() - 1) < 0.01
    assert abs((y == 0).float().mean().item() - 0.3) < 0.01


def test_without_training_it_is_the_input(device: str) -> None:
    x = images(device)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x


def test_in_place(device: str) -> None:
    leaf = images(device)
    x = leaf * 1
    y = seeded(F.dropout, x, 0.5, inplace=True)
    expected = seeded(T.dropout, leaf, 0.5)
    assert y is x
    assert torch.equal(x, expected)
    assert torch.equal(grad(y.square().sum(), leaf)[0], grad(expected.square().sum(), leaf)[0])


def test_gradcheck(device: str) -> None:
    def f(x: Tensor) -> Tensor:
        return seeded(F.dropout, x, 0.4)

    x = images(device)
    assert gradcheck(f, x, check_forward_ad=True, rtol=1e-6, atol=1e-7)
    assert gradgradcheck(f, x, check_fwd_over_rev=True, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("strided", [False, True])
def test_second_derivative_with_any_delta_and_no_backward_of_pytorch(strided: bool, device: str) -> None:
    x = images(device)
    delta = random_like(x.new_empty(*x.shape, 2))[..., 0] if strided else x.new_ones(()).expand(x.shape)
    delta = delta.requires_grad_()
    before = delta.detach().clone()
    results = []
    with Recorder() as recorder:
        y = seeded(F.dropout, x, 0.4)
        (dx,) = grad(y, x, delta, create_graph=True)
        results.append([y, dx, *grad(dx.square().sum(), delta)])
    assert not [name for name in recorder.names if "_backward" in name]
    assert torch.equal(delta, before)
    y = seeded(T.dropout, x, 0.4)
    (dx,) = grad(y, x, delta, create_graph=True)
    results.append([y, dx, *grad(dx.square().sum(), delta)])
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_vmap(randomness: str, device: str) -> None:
    x = images(device).detach()

    def batched(dropout: Callable[..., Tensor]) -> dict[str, Tensor]:
        def loss(x: Tensor) -> Tensor:
            return dropout(x, 0.5).square().sum()

        return {
            "value": seeded(vmap(lambda a: dropout(a, 0.5), randomness=randomness), x),
            "last axis": seeded(vmap(lambda a: dropout(a, 0.5), in_dims=-1, randomness=randomness), x),
            "grad": seeded(vmap(torch.func.grad(loss), randomness=randomness), x),
            "jvp": seeded(vmap(lambda a: jvp(lambda b: dropout(b, 0.5), (a,), (a,))[1], randomness=randomness), x),
        }

    ours, torchs = batched(F.dropout), batched(T.dropout)
    for name in ours:
        assert distance(ours[name], torchs[name]) <= EXACT, name
    kept = ours["value"] != 0
    assert torch.equal(kept[0], kept[1]) == (randomness == "same")


def test_vmap_without_a_word_on_randomness_is_refused_as_pytorchs(device: str) -> None:
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(F.dropout)(images(device).detach())


def test_hessian(device: str) -> None:
    x = images(device).detach()[0, 0]

    def of(dropout: Callable[..., Tensor]) -> Tensor:
        return seeded(jacfwd(jacrev(lambda x: dropout(x, 0.5).pow(3).sum()), randomness="same"), x)

    assert distance(of(F.dropout), of(T.dropout)) <= EXACT


def test_compile(device: str) -> None:
    """One graph; the same backend gives PyTorch's own function the same noise."""
    x = images(device)
    results = []
    for dropout in (F.dropout, T.dropout):
        torch._dynamo.reset()
        compiled = torch.compile(lambda x, f=dropout: f(x, 0.5) * 2, fullgraph=True, backend="aot_eager")
        y = seeded(compiled, x)
        results.append((y, *grad(y, x, random_like(y))))
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast(dtype: torch.dtype, device: str) -> None:
    x = images(device, dtype)
    with torch.autocast(device, torch.bfloat16):
        ours, torchs = (seeded(f, x, 0.5) for f in (F.dropout, T.dropout))
        assert close(ours, torchs)
        assert close(*(grad(y.sum(), x)[0] for y in (ours, torchs)))


def test_module(device: str) -> None:
    ours, torchs = manualbp.nn.Dropout(0.3), torch.nn.Dropout(0.3)
    x = images(device)
    assert distance(seeded(ours, x), seeded(torchs, x)) <= EXACT
    assert torch.equal(ours.eval()(x), x)
    assert not torch.equal(ours.train()(x), x)
