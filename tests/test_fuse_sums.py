"""fuse: the sums of residual networks, and what is kept of them."""

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import manualbp
from tests.fusing import X, fused, results, same


class Sums(nn.Module):
    """What is kept of a sum must not be what the sum is written into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.conv2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        y = self.conv(x)
        z = self.norm(x)
        y += z
        return OrderedDict(y=self.conv2(torch.relu_(y)))


def test_a_sum_that_is_written_into_what_is_kept() -> None:
    torch.manual_seed(0)
    model = Sums().double()
    expected = copy.deepcopy(model)
    fused(model)
    assert "FactorAgain" in manualbp.coverage(model(X)).by_hand
    assert type(model(X)) is OrderedDict
    expected(X)
    expected(X)
    assert same(results(model, lambda x: model(x)["y"]), results(expected, lambda x: expected(x)["y"]))


class Sum(nn.Module):
    """Sums whose terms are norms, images, numbers of another shape, and sums of their own."""

    def __init__(self, how: Callable[["Sum", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.norm2, self.how = nn.BatchNorm2d(4), nn.BatchNorm2d(4), how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def of_two_norms(m: Sum, x: Tensor) -> Tensor:
    y = torch.relu(m.norm(x) + m.norm2(2 * x))
    return m.conv(y) + y


def of_many(m: Sum, x: Tensor) -> Tensor:
    """More terms than a recipe may have."""
    y = torch.relu(m.norm(x) + x)
    for _ in range(3):
        y = torch.relu(m.norm2(m.conv(y)) + y)
        y = torch.relu(y + m.norm(m.conv2(y)))
    return m.conv(y)


def with_a_column(m: Sum, x: Tensor) -> Tensor:
    return m.conv(torch.relu(m.norm(x) + x[:, :1]))


def with_a_parameter(m: Sum, x: Tensor) -> Tensor:
    return m.conv(torch.relu(m.conv2.bias.view(-1, 1, 1) + m.norm(x)))


def with_a_norm_of_one_pixel(m: Sum, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.conv2(torch.relu(m.norm(y.mean((2, 3), keepdim=True)) + y))


def with_itself(m: Sum, x: Tensor) -> Tensor:
    y = m.norm(x)
    return m.conv(torch.relu(y + y))


@pytest.mark.parametrize(
    "how", [of_two_norms, of_many, with_a_column, with_a_parameter, with_a_norm_of_one_pixel, with_itself]
)
def test_sums(how: Callable[[Sum, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Sum(how).double()
    expected = copy.deepcopy(model)
    manualbp.convert(model)
    report = manualbp.fuse(model)
    assert bool(report.converted) == (how is not with_itself)
    assert same(results(model), results(expected))
    assert same(results(model.eval()), results(expected.eval()))
