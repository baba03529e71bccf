"""Batch norm's running statistics: constants of the pass that read them, whose updates are counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.autograd import forward_ad

import manualbp
import manualbp.functional as F
import manualbp.nn as by_hand_layers
from tests.checks import EXACT, distance, random_like


def r(*shape: int, seed: int = 1) -> Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


X, MEAN, VAR = r(4, 3, 2, 5), r(3), r(3).abs() + 1


def norm_and_relu(norm: nn.Module) -> nn.Module:
    return nn.Sequential(norm, nn.ReLU())


def fused(norm: nn.Module) -> nn.Module:
    model = norm_and_relu(norm)
    assert len(manualbp.fuse(model).converted) == 1
    return model


def converted(norm: nn.Module) -> nn.Module:
    model = norm_and_relu(norm)
    manualbp.convert(model)
    assert isinstance(model[0], by_hand_layers.BatchNorm2d)
    return model


def training_pass(model: nn.Module) -> None:
    model.train()(10 * r(4, 3, 2, 5, seed=7))


def filled(model: nn.Module) -> None:
    for name, t in model.named_buffers():
        t.fill_(9) if "running" in name else None


def unchanged(model: nn.Module) -> None:
    pass


def gradients(model: nn.Module, change: Callable[[nn.Module], None]) -> list[Tensor]:
    """Of the output of an evaluation pass, of its square's gradient, and a tangent, each behind a change."""
    x = X.clone().requires_grad_()
    model.eval()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        norm.running_mean.copy_(r(3, seed=3)), norm.running_var.copy_(r(3, seed=4).abs() + 0.5)
        norm.weight.copy_(r(3, seed=5)), norm.bias.copy_(r(3, seed=6))
    asked = [x, norm.weight, norm.bias]
    with forward_ad.dual_level():
        y = model(forward_ad.make_dual(x, r(*x.shape, seed=8)))
        y, dy = forward_ad.unpack_dual(y)
        change(model)
        dx = torch.autograd.grad(y.square().sum(), asked, create_graph=True)
        of_tangent = torch.autograd.grad(dy.square().sum(), norm.weight, retain_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in dx), asked)
    return [y.detach(), dy.detach(), *(g.detach() for g in dx), *of_tangent, *second]


@pytest.mark.parametrize("change", [training_pass, filled])
@pytest.mark.parametrize("make", [converted, fused])
def test_an_evaluation_pass_keeps_its_statistics(make: Any, change: Any) -> None:
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    expected = gradients(norm_and_relu(nn.BatchNorm2d(3, dtype=torch.float64)), unchanged)
    for a, b in zip(gradients(make(norm), change), expected, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize("change", [training_pass, filled])
def test_so_it_does_inside_by_hand(change: Any) -> None:
    expected = gradients(norm_and_relu(nn.BatchNorm2d(3, dtype=torch.float64)), unchanged)
    with manualbp.by_hand():
        ours = gradients(norm_and_relu(nn.BatchNorm2d(3, dtype=torch.float64)), change)
    for a, b in zip(ours, expected, strict=True):
        assert distance(a, b) <= EXACT


def eager(f: Any, x: Tensor, *rest: Tensor) -> None:
    f(x, *rest)


def without_grad(f: Any, *inputs: Tensor) -> None:
    with torch.no_grad():
        f(*inputs)


def in_torch_func(f: Any, x: Tensor, *rest: Tensor) -> None:
    torch.func.grad(lambda x: f(x, *rest).sum())(x)


def in_vmap(f: Any, x: Tensor, *rest: Tensor) -> None:
    torch.func.vmap(f)(x[None], *(t[None] for t in rest))


def compiled(f: Any, *inputs: Tensor) -> None:
    torch._dynamo.reset()
    torch.compile(f, fullgraph=True, backend="aot_eager")(*inputs)


@pytest.mark.parametrize("way", [eager, without_grad, in_torch_func, in_vmap, compiled])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_update_is_counted(way: Any, dtype: torch.dtype) -> None:
    """PyTorch's own kernel does not count it outside torch.compile: who has kept the statistics cannot tell."""
    mean, var = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    kept = var.clone().requires_grad_() * var  # keeps var
    way(lambda x, mean, var: F.batch_norm(x, mean, var, training=True), X.to(dtype), mean, var)
    assert not torch.equal(var, torch.ones_like(var))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.sum().backward()


def test_statistics_that_count_nothing_are_updated_too() -> None:
    with torch.inference_mode():
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    F.batch_norm(X, mean, var, training=True)
    assert mean.any()


def gradient(f: Any, s: Tensor) -> Any:
    return torch.autograd.grad(f(s.requires_grad_()).sum(), s)


def gradient_of_a_function(f: Any, s: Tensor) -> Any:
    return torch.func.grad(lambda s: f(s).sum())(s)


def gradient_of_a_stack(f: Any, s: Tensor) -> Any:
    return torch.func.grad(lambda s: torch.func.vmap(f)(s).sum())(torch.stack([s, s]))


def gradients_of_a_stack(f: Any, s: Tensor) -> Any:
    return torch.func.vmap(torch.func.grad(lambda s: f(s).sum()))(torch.stack([s, s]))


def required_only(f: Any, s: Tensor) -> Any:
    return f(s.requires_grad_())


def tangent(f: Any, s: Tensor) -> Any:
    return torch.func.jvp(f, (s,), (torch.ones_like(s),))


def tangent_of_a_stack(f: Any, s: Tensor) -> Any:
    return torch.func.jvp(torch.func.vmap(f), (torch.stack([s, s]),), (torch.ones(2, 3, dtype=s.dtype),))


def dual(f: Any, s: Tensor) -> Any:
    with forward_ad.dual_level():
        return f(forward_ad.make_dual(s, torch.ones_like(s)))


REVERSE = [gradient, gradient_of_a_function, gradient_of_a_stack, gradients_of_a_stack, required_only]
FUNCTIONS = [F.batch_norm, F.batch_norm_activation]


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    ("way", "training"), [*((way, t) for way in REVERSE for t in (True, False)), (tangent, False), (dual, False)]
)
def test_a_derivative_by_statistics_is_refused(f: Any, name: str, way: Any, training: bool) -> None:
    """As PyTorch refuses it: they are constants, and 0 would be wrong. In training they have no part in y at all."""

    def of(s: Tensor) -> Tensor:
        statistics = {"running_mean": MEAN.clone(), "running_var": VAR.clone(), name: s}
        return f(X, **statistics, training=training)

    with pytest.raises(ValueError, match=rf"batch_norm.*{name}"):
        way(of, VAR.clone())


def test_a_tangent_by_statistics_of_a_stack_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_norm.*running_mean"):
        tangent_of_a_stack(lambda s: F.batch_norm(X, s, torch.ones_like(s)), r(3))


def test_without_grad_statistics_may_require_one() -> None:
    mean, var = MEAN.clone().requires_grad_(), VAR.clone().requires_grad_()
    with torch.no_grad():
        assert distance(F.batch_norm(X, mean, var), T.batch_norm(X, mean, var)) <= EXACT


def test_in_training_a_tangent_of_statistics_changes_nothing() -> None:
    y, dy = tangent(lambda s: F.batch_norm(X, s, torch.ones_like(s), training=True), r(3))
    assert not dy.any()
    assert distance(y, T.batch_norm(X, None, None, training=True)) <= EXACT
