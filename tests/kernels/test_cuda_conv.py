"""The kernel gradient in Triton against PyTorch's, and both against float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.cuda import calls, conv
from manualbp.kernels.geometry import Geometry, convolution
from tests.checks import distance, random_like
from tests.kernels.cards import on_a_card

pytestmark = on_a_card

# Triton's interpreter multiplies the bit patterns of bfloat16.
DTYPES = {"cpu": [torch.float32, torch.float16], "cuda": [torch.float32, torch.float16, torch.bfloat16]}
CASES: dict[str, Any] = {
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), ()),
    "1x1": ((2, 3, 4, 5), (4, 3, 1, 1), ()),
    "everything": ((2, 4, 9, 8), (6, 2, 3, 2), ((2, 3), (1, 2), (2, 1), 2)),
    "depthwise": ((2, 3, 5, 6), (6, 1, 2, 3), (1, 1, 1, 3)),
    "stride leaves pixels over": ((2, 2, 8, 7), (3, 2, 3, 3), ((3, 2),)),
    "padding > kernel": ((1, 2, 3, 3), (2, 2, 2, 2), (1, (3, 2))),
    "several tiles": ((2, 17, 6, 7), (70, 17, 2, 3), (1, 1)),
    "several tiles and groups": ((2, 34, 4, 5), (130, 17, 2, 2), (1, 1, 1, 2)),
    "a position more than two shares": ((19, 2, 3, 9), (3, 2, 1, 1), ()),
    "no image": ((0, 2, 4, 4), (3, 2, 2, 2), ()),
}
LAYOUTS = {
    "maps first": lambda t: t,
    "channels_last": lambda t: t.to(memory_format=torch.channels_last),
    "every other": lambda t: t.repeat_interleave(2, 3)[..., ::2],
}


def inputs(case: Any, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Geometry, Any]:
    """x, delta, the geometry, and a function that is PyTorch's dw in a dtype."""
    x, w, steps = case
    s, p, d, groups = (*steps, *(1, 0, 1, 1)[len(steps) :])
    g = convolution("test", x, w, s, p, d, groups)
    image = random_like(torch.empty(x, dtype=dtype, device=device))
    delta = random_like(image.new_empty(x[0], w[0], *g.y_size), 2)

    def by_pytorch(image: Tensor, delta: Tensor, dtype: torch.dtype) -> Tensor:
        kernel = torch.zeros(w, dtype=dtype, requires_grad=True)
        y = T.conv2d(image.to("cpu", dtype), kernel, None, s, p, d, groups)
        return torch.autograd.grad(y, kernel, delta.to("cpu", dtype))[0].to(device)

    return image, delta, g, by_pytorch


def compare(x: Tensor, delta: Tensor, g: Geometry, by_pytorch: Any) -> None:
    """The error against float64 is at most twice PyTorch's, or a rounding, or 2e-6."""
    dw, truth = conv.kernel_gradient(x, delta, g), by_pytorch(x, delta, torch.float64)
    limit = max(2 * distance(by_pytorch(x, delta, x.dtype), truth), torch.finfo(x.dtype).eps, 2e-6)
    assert dw.dtype == x.dtype
    assert distance(dw, truth) <= limit, (distance(dw, truth), limit)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cases(case: Any, layout: str, device: str) -> None:
    for dtype in DTYPES[device] if layout == "channels_last" else [torch.float32]:
        x, delta, g, by_pytorch = inputs(case, dtype, device)
        compare(LAYOUTS[layout](x), LAYOUTS[layout](delta), g, by_pytorch)


def test_expanded_delta(device: str) -> None:
    x, delta, g, by_pytorch = inputs(CASES["everything"], torch.float32, device)
    compare(x, delta[..., :1, :1].expand(delta.shape), g, by_pytorch)


def test_64_bit_offsets(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FAR", 0)
    compare(*inputs(CASES["everything"], torch.float32, device))


def test_not_finite(device: str) -> None:
    """What is no number in x reaches the taps that see it."""
    x, delta, g, by_pytorch = inputs(((3, 3, 5, 6), (4, 3, 3, 3), (2, 1)), torch.float32, device)
    x[1, 1, 0, 1], x[2, 2, 4, 5] = torch.nan, torch.inf
    dw = conv.kernel_gradient(x, delta, g)
    assert torch.equal(dw.isfinite(), by_pytorch(x, delta, torch.float32).isfinite())
    assert not dw[:, 1:].isfinite().all()


def test_deterministic(device: str) -> None:
    x, delta, g, _ = inputs(CASES["a position more than two shares"], torch.float32, device)
    assert torch.equal(conv.kernel_gradient(x, delta, g), conv.kernel_gradient(x, delta, g))
