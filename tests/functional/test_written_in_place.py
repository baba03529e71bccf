"""Activations and dropout in place: what they keep, under transforms, in graphs, and what is refused."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import manualbp
from tests.checks import random_like
from tests.test_in_place import INPLACE, same


class Calls(nn.Module):
    """A function in place of a layer."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


BEHIND = [  # what a network may have between two convolutions
    *[lambda name=name: getattr(nn, name)(inplace=True) for name, _ in INPLACE if name != "Threshold"],
    *[lambda f=f: Calls(f) for f in (torch.sigmoid_, torch.tanh_)],
    *[lambda: nn.LeakyReLU(0.2, True), lambda: nn.Threshold(0.1, -1.0, True), lambda: nn.Dropout(0.5, True)],
    lambda: nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.2, True)),
    lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ELU(inplace=True)),
    lambda: nn.Sequential(nn.LeakyReLU(0.2, True), nn.Dropout(0.2, True)),
    *[nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Softshrink],
]


@pytest.mark.parametrize("behind", BEHIND)
def test_between_convolutions_no_more_is_kept_than_by_pytorch(behind: Callable[[], nn.Module]) -> None:
    """What the next convolution keeps counts once. Bits are a 32nd more than an output that it keeps anyway."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), behind(), nn.Conv2d(8, 8, 3))
    totals = manualbp.memory(model, torch.randn(2, 3, 10, 10)).totals
    assert max(totals["by_hand"], totals["fused"]) <= totals["pytorch"]


ALL = [getattr(nn, name)(*args, inplace=True) for name, args in INPLACE] + [nn.Dropout(0.0, inplace=True)]
every_one_in_place = pytest.mark.parametrize("layer", ALL, ids=repr)


@every_one_in_place
def test_transforms(layer: nn.Module) -> None:
    """Behind a convolution by hand, under every transform of torch.func, inside and outside of vmap."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), layer).double()
    parameters = dict(model.named_parameters())
    x, t = (random_like(torch.empty(2, 2, 4, 4, dtype=torch.float64), seed) for seed in (1, 2))

    def f(x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x * 2,))

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, p, (x,)).square().sum()

    def everything() -> list[Tensor]:
        with torch.no_grad():
            plain = f(x)
        return [
            plain,
            *vmap(grad(loss), in_dims=(None, 0), randomness="different")(parameters, x).values(),
            *grad(loss)(parameters, x).values(),
            jacrev(f)(x[0]),
            *jvp(f, (x,), (t,)),
            vmap(lambda t: jvp(f, (x[0],), (t,))[1], randomness="same")(x),
            vmap(f, randomness="different")(x),
        ]

    expected = everything()
    with manualbp.by_hand():
        ours = everything()
    assert all(map(same, ours, expected))


@every_one_in_place
def test_second_derivative_and_checkpoint(layer: nn.Module) -> None:
    x = random_like(torch.empty(3, 4, dtype=torch.float64)).requires_grad_()

    def gradients(f: Callable[[Tensor], Tensor]) -> list[Tensor]:
        (dx,) = torch.autograd.grad(f(x).pow(3).sum(), x, create_graph=True)
        return [dx, *torch.autograd.grad(dx.pow(2).sum(), x)]

    def f(x: Tensor) -> Tensor:
        return layer(x * 2)

    by_hand = manualbp.by_hand()(f)

    def again(x: Tensor) -> Tensor:
        return checkpoint(by_hand, x, use_reentrant=False)

    expected = gradients(f if not isinstance(layer, nn.Hardsigmoid) else lambda x: T.relu6(x * 2 + 3) / 6)
    for way in (by_hand, again):
        assert all(map(same, gradients(way), expected))


@every_one_in_place
def test_a_leaf_and_its_views_are_refused_before_they_are_changed(layer: nn.Module) -> None:
    if isinstance(layer, nn.Dropout):
        pytest.skip("without noise it hands its input on")
    mine = manualbp.convert(layer) and layer
    for part in (lambda x: x, lambda x: x[1:]):
        x = random_like(torch.empty(3, 4)).requires_grad_()
        before = x.detach().clone()
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad is being used in an in-place"):
            mine(part(x))
        assert torch.equal(x, before)
        with torch.no_grad():
            mine(part(x))
        assert not torch.equal(x, before)
    manualbp.restore(layer)


class Plus(nn.Module):
    """Between two that keep their output."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1


def test_compiled_code() -> None:
    """All of them behind a convolution, in one graph."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), *[part for one in copy.deepcopy(ALL) for part in (one, Plus())]).double()
    x = random_like(torch.empty(2, 2, 4, 4, dtype=torch.float64))

    def results(f: Callable[[Tensor], Tensor]) -> list[Tensor]:
        y = f(x)
        return [y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))]

    expected = results(model)
    manualbp.convert(model)
    torch._dynamo.reset()
    assert all(map(same, results(torch.compile(model, fullgraph=True, backend="aot_eager")), expected))
