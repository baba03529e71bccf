"""A gradient lies in memory as what it is the gradient of, whatever order its delta came in."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from tests.checks import random_like

OPS = [F.sigmoid, F.tanh, F.relu, F.gelu, F.relu_bits, lambda x: F.relu(x * 1, inplace=True)]
POOLS = [lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 3, 2), lambda x: F.adaptive_max_pool2d(x, 2)]


@pytest.mark.parametrize("of_image", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("of_delta", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("op", [*OPS, *POOLS])
def test_layout(op: Callable[[Tensor], Tensor], of_delta: torch.memory_format, of_image: torch.memory_format) -> None:
    x = random_like(torch.empty(2, 3, 6, 8, dtype=torch.float64))
    y = op(x.requires_grad_())
    delta = random_like(y, 2)
    expected = grad(y, x, delta)[0]
    x = x.detach().contiguous(memory_format=of_image).requires_grad_()
    dx = grad(op(x), x, delta.contiguous(memory_format=of_delta))[0]
    assert torch.equal(dx, expected)
    if of_image == torch.channels_last:
        assert dx.is_contiguous(memory_format=torch.channels_last)
