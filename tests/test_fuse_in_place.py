"""fuse: what PyTorch lets one do in place behind a fused part is allowed behind it, and the numbers are the same."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from tests.fusing import same

X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(model: nn.Module, then: Callable[[Any], Any] | None = None) -> list[Tensor] | str:
    """The output and all gradients, or what PyTorch says in backward; `then`: what the caller does to the output."""
    x = X.clone().requires_grad_()
    try:
        y = model(x * 1)
        y = y if then is None else then(y)
        parts = [y] if isinstance(y, Tensor) else list(y)
        loss = sum((part * torch.arange(part.numel()).view(part.shape)).sum() for part in parts)
        return [parts[0].detach(), *torch.autograd.grad(loss, [x, *model.parameters()], materialize_grads=True)]
    except RuntimeError:
        return "refused"


def allowed_alike(model: nn.Module, then: Callable[[Any], Any] | None = None) -> None:
    """What PyTorch allows is allowed, with PyTorch's numbers; what it refuses may be."""
    torch.manual_seed(0)
    model = model.double()
    mine = copy.deepcopy(model)
    theirs = gradients(model, then)
    manualbp.fuse(mine)
    ours = gradients(mine, then)
    assert isinstance(theirs, str) or (not isinstance(ours, str) and same(ours, theirs))


BEFORE: dict[str, list[nn.Module]] = {
    "relu, pool": [nn.ReLU(), nn.MaxPool2d(2)],
    "sigmoid, pool": [nn.Sigmoid(), nn.MaxPool2d(2)],
    "tanh, pool": [nn.Tanh(), nn.MaxPool2d(3, 1)],
    "leaky_relu, pool": [nn.LeakyReLU(0.2, True), nn.MaxPool2d(2)],
    "relu6, pool": [nn.ReLU6(), nn.MaxPool2d(2)],
    "norm, relu, pool": [nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2)],
    "norm, relu": [nn.BatchNorm2d(4), nn.ReLU()],
    "norm, silu": [nn.BatchNorm2d(4), nn.SiLU(True)],
    "norm, sigmoid": [nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 4, 1)],
    "silu, convolution": [nn.SiLU(), nn.Conv2d(4, 4, 1)],
    "convolution, pool": [nn.Conv2d(4, 4, 3), nn.AvgPool2d(2)],
}
FOLLOWERS: dict[str, nn.Module] = {
    "hardtanh": nn.Hardtanh(-1, 1, True),
    "silu": nn.SiLU(True),
    "relu": nn.ReLU(True),
    "leaky_relu": nn.LeakyReLU(0.2, True),
    "dropout": nn.Dropout(0.0, True),
}


@pytest.mark.parametrize(("before", "after"), itertools.product(BEFORE, FOLLOWERS))
def test_a_layer_in_place_behind(before: str, after: str) -> None:
    layers = [nn.Conv2d(4, 4, 1), *copy.deepcopy(BEFORE[before]), copy.deepcopy(FOLLOWERS[after])]
    allowed_alike(nn.Sequential(*layers))
    allowed_alike(nn.Sequential(*copy.deepcopy(layers), nn.Conv2d(4, 2, 1)))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "add_": lambda y: y.add_(1),
    "mul_": lambda y: y.mul_(y.detach() + 2),
    "of a view": lambda y: (y.view(-1)[:3].zero_(), y)[1],
    "relu_": lambda y: torch.relu_(y),
}


@pytest.mark.parametrize(("before", "change"), itertools.product(BEFORE, CHANGES))
def test_the_caller_changes_the_output(before: str, change: str) -> None:
    allowed_alike(nn.Sequential(nn.Conv2d(4, 4, 1), *copy.deepcopy(BEFORE[before])), CHANGES[change])


class Block(nn.Module):
    """A residual block, by a forward that is given."""

    def __init__(self, how: Callable[["Block", Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.conv2, self.conv3 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.norm2, self.how = nn.BatchNorm2d(4), nn.BatchNorm2d(4), how

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def the_term_leaves(m: Block, x: Tensor) -> Any:
    """Nothing in PyTorch keeps y."""
    y = m.conv(x)
    return m.conv2(torch.relu(m.norm(x) + y)), y


def a_view_of_the_term_leaves(m: Block, x: Tensor) -> Any:
    y = m.conv(x)
    return m.conv2(torch.relu(m.norm(x) + y)), y.flatten(1)


def the_argument_is_a_term(m: Block, x: Tensor) -> Any:
    return m.conv2(torch.relu(m.norm(m.conv(x)) + x)), x


def a_part_of_a_concatenation_leaves(m: Block, x: Tensor) -> Any:
    y, z = m.conv(x), torch.relu(m.norm(x))
    return torch.cat([m.conv2(z), T.conv2d(torch.cat([y, z], 1), m.conv3.weight.repeat(1, 2, 1, 1))]), y


def the_sum_leaves(m: Block, x: Tensor) -> Any:
    y = m.norm(m.conv(x)) + m.norm2(x)
    return m.conv2(torch.relu(y)), y


def the_activation_leaves(m: Block, x: Tensor) -> Any:
    y = T.silu(m.norm(m.conv(x)))
    return m.conv2(y), y


def the_norm_leaves(m: Block, x: Tensor) -> Any:
    y = m.norm(m.conv(x))
    return m.conv2(T.leaky_relu(y)), y


def pooled_twice(m: Block, x: Tensor) -> Any:
    y = T.max_pool2d(torch.relu(m.norm(m.conv(x))), 2)
    return m.conv2(torch.relu(m.norm2(y))), y


BLOCKS = [
    the_term_leaves,
    a_view_of_the_term_leaves,
    the_argument_is_a_term,
    a_part_of_a_concatenation_leaves,
    the_sum_leaves,
    the_activation_leaves,
    the_norm_leaves,
    pooled_twice,
]


@pytest.mark.parametrize("how", BLOCKS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("convert", [True, False])
def test_the_caller_changes_what_leaves(how: Callable[[Block, Tensor], Any], convert: bool) -> None:
    model = Block(how)
    if convert:
        manualbp.convert(model)
    allowed_alike(model, lambda both: (both[0], both[1].add_(1)))
    allowed_alike(model)


def test_a_sum_in_place_behind_what_was_made_of_the_value() -> None:
    """mean has made something else of it; a second look at the value behind the change is refused."""

    def before(m: Block, x: Tensor) -> Tensor:
        y = torch.relu(m.norm(m.conv(x)))
        gate = y.mean((2, 3), keepdim=True).sigmoid()
        y *= gate
        return m.conv2(y)

    def behind(m: Block, x: Tensor) -> Tensor:
        y = torch.relu(m.norm(m.conv(x)))
        z = y * 1
        y += 1
        return m.conv2(y + z * y.mean())

    allowed_alike(Block(before))
    assert "changes in place what others may use" not in str(manualbp.fuse(Block(before)))
    assert "changes in place what others may use" in str(manualbp.fuse(Block(lambda m, x: x.add_(1) + m.conv(x))))
    allowed_alike(Block(behind))
