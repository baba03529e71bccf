"""fuse: a value that several layers take is computed again once for all of them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

import manualbp
from manualbp.fuse.recompute import Recipe
from tests.checks import distance
from tests.fusing import EXACT, fused, same

X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ROWS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class Heads(nn.Module):
    """A value that has a recipe, and the layers that take it, by a forward that is given."""

    def __init__(self, how: Callable[["Heads", Tensor], Tensor], make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm, self.how = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), how
        self.one, self.two, self.three = make(), make(), make()
        self.register_buffer("blur", torch.ones(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        a = T.relu(self.norm(self.first(x))) if not isinstance(self.one, nn.Linear) else T.gelu(x)
        return self.how(self, a)


def three(m: Heads, a: Tensor) -> Tensor:
    """What stands between them works in place."""
    y = T.relu(m.one(a), inplace=True)
    return y * m.two(a).sigmoid_() + m.three(a).mul_(2)


def behind_a_pooling(m: Heads, a: Tensor) -> Tensor:
    """Inception's: the third layer takes another value."""
    return torch.cat([m.one(a), m.two(a), m.three(T.avg_pool2d(a, 3, 1, 1))], 1)


def two_of_three_outputs(m: Heads, a: Tensor) -> Tensor:
    y = m.one(a)
    m.two(a)
    return y + m.three(a)


def shared(m: Heads, a: Tensor) -> Tensor:
    """One layer twice; two and three have one weight."""
    return m.one(a) + m.one(a) * m.two(a) + m.three(a)


def with_a_product(m: Heads, a: Tensor) -> Tensor:
    return m.two(a * m.one(a).mean((2, 3), keepdim=True).sigmoid()) + m.three(a)


def functions(m: Heads, a: Tensor) -> Tensor:
    """The third weight is made of what the first layer made."""
    y = T.conv2d(a, m.one.weight, m.one.bias, 1, 1)
    z = T.conv2d(a, weight=m.two.weight, padding=1)
    return y + z + T.conv2d(a, m.three.weight * y.mean(), padding=1)


def buffers(m: Heads, a: Tensor) -> Tensor:
    """The second weight is changed behind the first layer."""
    y = m.one(a)
    m.blur.mul_(0.5)
    return y + T.conv2d(a, m.blur, padding=1, groups=4) + m.two(a)


def convolution() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


# By name: the forward, the layers, x, and how often values are computed again for weights.
CASES: dict[str, tuple[Callable[[Heads, Tensor], Tensor], Callable[[], nn.Module], Tensor, int]] = {
    "in place between": (three, convolution, X, 1),
    "an odd pixel": (three, lambda: nn.Conv2d(4, 4, 2, padding="same"), X, 0),
    "transposed": (three, lambda: nn.ConvTranspose2d(4, 3, 2, 2), X, 1),
    "linear, rows": (three, lambda: nn.Linear(4, 6), ROWS, 1),
    "linear, a matrix": (three, lambda: nn.Linear(4, 6, bias=False), ROWS[0], 1),
    "behind a pooling": (behind_a_pooling, lambda: nn.Conv2d(4, 2, 1, bias=False), X, 1),
    "an output that nothing takes": (two_of_three_outputs, convolution, X, 1),
    "a layer twice, a weight shared": (shared, convolution, X, 1),
    "a product": (with_a_product, convolution, X, 3),
    "functions": (functions, convolution, X, 2),
    "a buffer": (buffers, convolution, X, 1),
}
FOLLOWED = (
    "in place between",
    "transposed",
    "linear, rows",
    "an output that nothing takes",
    "a layer twice, a weight shared",
)


def made(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A model, the same fused, and an input."""
    how, make, x, *_ = CASES[name]
    torch.manual_seed(0)
    model = Heads(how, make).double()
    if how is shared:
        model.three.weight = model.two.weight
    mine = fused(copy.deepcopy(model))
    return model, mine, x.clone()


def numbers(model: nn.Module, x: Tensor, f: Callable[..., Tensor] | None = None) -> list[Tensor]:
    """The output, the gradients of x and of the parameters, and the buffers."""
    x = x.clone().requires_grad_()
    y = (model if f is None else f)(x * 1)
    loss = (y * torch.arange(y.numel()).view(y.shape)).sum()
    gradients = torch.autograd.grad(loss, [x, *model.parameters()], allow_unused=True, materialize_grads=True)
    return [y.detach(), *gradients, *(b.clone() for b in model.buffers())]


@pytest.mark.parametrize("name", CASES)
def test_once_for_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, mine, x = made(name)
    times: list[Any] = []
    again = Recipe.again
    monkeypatch.setattr(Recipe, "again", lambda *args: times.append(args) or again(*args))
    assert same(numbers(mine, x), numbers(model, x))
    assert len(times) == CASES[name][-1]
    assert same(numbers(mine.eval(), x), numbers(model.eval(), x))


def test_the_report_says_which() -> None:
    rows = manualbp.fuse(Heads(three, convolution)).rows
    both = "keep what their input is made of: it is computed again once"
    assert [(row.path, row.remark) for row in rows][1] == ("one, two, three", both)


@pytest.mark.parametrize("name", FOLLOWED)
def test_under_transforms_and_compiled(name: str) -> None:
    """The gradients of each image, tangents, second derivatives, a gradient asked of one layer alone."""
    model, mine, x = made(name)
    torch._dynamo.reset()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    assert same(numbers(mine, x, compiled), numbers(model, x))
    models = mine.eval(), model.eval()
    weights = {key: p.detach() for key, p in model.named_parameters()}
    directions = {key: torch.randn_like(p) for key, p in weights.items()}

    def output(one: nn.Module) -> Callable[..., Tensor]:
        return lambda weights, x: functional_call(one, weights, (x,))

    def second(one: nn.Module) -> list[Tensor]:
        parameters = [*one.parameters()]
        gradients = torch.autograd.grad(one(x).square().sum(), parameters, create_graph=True, materialize_grads=True)
        return list(torch.autograd.grad(sum(g.sin().sum() for g in gradients), parameters, materialize_grads=True))

    def of_one(one: Any) -> list[Tensor]:
        return list(torch.autograd.grad(one(x).square().sum(), one.two.weight, allow_unused=True))

    def each(one: nn.Module) -> list[Tensor]:
        loss = grad(lambda weights, x: output(one)(weights, x[None]).square().sum())
        return list(vmap(loss, in_dims=(None, 0))(weights, x).values())

    def tangents(one: nn.Module) -> list[Tensor]:
        return [jvp(output(one), (weights, x), (directions, x.cos()))[1]]

    for f in (second, of_one, each, tangents):
        for a, b in zip(f(models[0]), f(models[1]), strict=True):
            assert (a is None) == (b is None)
            assert a is None or distance(a, b) <= 1e3 * EXACT
