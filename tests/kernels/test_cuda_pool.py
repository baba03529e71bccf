"""Max pooling in Triton against PyTorch's."""

from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp import functional as F
from manualbp.fuse.pool import activation_max_pool2d
from manualbp.kernels import pool as kernels
from manualbp.kernels.cuda import calls, pool
from manualbp.kernels.geometry import Geometry, pooling
from manualbp.kernels.layout import maps_last
from tests.cases import Case
from tests.cases.pool import MAX_POOL2D
from tests.kernels.cards import on_a_card

pytestmark = on_a_card

CASES = [case for case in MAX_POOL2D if "return_indices" not in case.kwargs]
PHI = {"none": lambda z: z, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
SLOPE = {
    "none": lambda delta, y: delta,
    "sigmoid": lambda delta, y: delta * (y - y * y),
    "tanh": lambda delta, y: delta * (1 - y * y),
    "relu": lambda delta, y: torch.where(y != 0, delta, 0),
}
LAYOUTS = {
    "maps first": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "every other row, columns first": lambda x: x.mT.repeat_interleave(2, 3)[..., ::2].mT,
}
OTHERS = [
    ("several programs", (3, 7, 19, 20), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("256 pixels", (1, 1, 17, 18), {"kernel_size": 16, "stride": 3, "padding": 8}),
    ("rows and columns unlike", (2, 3, 8, 11), {"kernel_size": (2, 5), "stride": (3, 2), "padding": (0, 2)}),
    (
        "these and dilation",
        (2, 3, 11, 8),
        {"kernel_size": (4, 3), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
    ),
    ("one map", (2, 1, 6, 5), {"kernel_size": 2}),
    ("no image", (0, 2, 4, 4), {"kernel_size": 2}),
]


def settings(kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False) -> Any:
    return kernel_size, stride or kernel_size, padding, dilation, ceil_mode


def pools(x: Tensor, how: Any, last: str = "maps first") -> tuple[Tensor, Geometry, Any]:
    return LAYOUTS[last](x), pooling("test", x.shape, *how), how


def image(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    """Small whole numbers, many of them equal, of which some are no numbers and some infinite."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-5, 3, shape, generator=g).float() / 2
    odd = torch.rand(shape, generator=g)
    x = x.masked_fill(odd < 0.03, torch.nan).masked_fill((odd > 0.9), -torch.inf).masked_fill(odd > 0.98, torch.inf)
    return x.to(device, dtype)


def index_of(byte: Tensor, g: Geometry) -> Tensor:
    """h W + k from p Q + q."""
    (s, t), (top, left), (d, e), Q = g.stride, g.padding, g.dilation, g.w_size[1]
    i, j = (torch.arange(n, device=byte.device) for n in g.y_size)
    p, q = byte.long() // Q, byte.long() % Q
    return (i[:, None] * s - top + p * d) * g.x_size[1] + j * t - left + q * e


def close(a: Tensor, b: Tensor, scale: float = 0.0) -> None:
    """Within two roundings, or 1e-6, and no number where b is none. The interpreter cuts bfloat16 off."""
    limit = max(2 * torch.finfo(a.dtype).eps, 1e-6)
    torch.testing.assert_close(a.double(), b.double(), rtol=limit, atol=limit * scale, equal_nan=True)


def compare(x: Tensor, g: Geometry, how: Any, phi: str) -> None:
    y, byte = pool.max_pool(x, g, phi)
    z, index = T.max_pool2d(x, *how, return_indices=True)
    assert torch.equal(index_of(byte, g), index)
    assert (y.dtype, y.stride(), byte.stride()) == (z.dtype, z.stride(), index.stride())
    if phi in ("none", "relu"):
        torch.testing.assert_close(y, PHI[phi](z), rtol=0, atol=0, equal_nan=True)
    else:
        close(y, PHI[phi](z.double()))

    order = torch.empty(x.shape, memory_format=torch.channels_last if maps_last(x) else torch.contiguous_format)
    delta = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    delta = delta.masked_fill(delta > 2, torch.inf)
    deltas = (delta, delta.mT.contiguous().mT) if phi == "tanh" else (delta[..., :1].expand(delta.shape),)
    for delta in deltas:
        zeta = SLOPE[phi](delta.double(), y.double())
        dx = pool.put(delta, byte, g, None if phi == "none" else y, phi)
        put = x.new_zeros(x.shape, dtype=torch.float64).flatten(2).scatter_add(2, index.flatten(2), zeta.flatten(2))
        assert (dx.dtype, dx.stride()) == (x.dtype, order.stride())
        close(dx, put.view_as(x), 4.0)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cases(case: Case, layout: str, device: str) -> None:
    (x,), how = case.inputs(), settings(**case.kwargs)
    for phi, dtype in zip(PHI, [torch.float32, torch.bfloat16, torch.float16, torch.float32], strict=True):
        compare(*pools(image(x.shape, dtype, device), how, layout), phi)


@pytest.mark.parametrize(("shape", "kwargs"), [other[1:] for other in OTHERS], ids=[other[0] for other in OTHERS])
@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
def test_more(shape: tuple[int, ...], kwargs: dict[str, Any], layout: str, device: str) -> None:
    compare(*pools(image(shape, torch.float32, device), settings(**kwargs), layout), "tanh")


@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
def test_64_bit_offsets(layout: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FAR", 0)
    compare(*pools(image((2, 3, 7, 6), torch.float32, device), settings(3, 2, 1), layout), "sigmoid")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("phi", ["sigmoid", "tanh"])
def test_activation(phi: str, dtype: torch.dtype, device: str) -> None:
    """Of numbers of every size. A card's exponential of what is far below 0 is less exact, in a number that is tiny."""
    z = torch.logspace(-30, 2, 1500, base=10.0, device=device)
    z = torch.cat([z, -z, z.new_tensor([0.0, torch.inf, -torch.inf, torch.nan])]).to(dtype).view(1, 1, 1, -1)
    y, _ = pool.max_pool(z, pooling("test", z.shape, 1, 1, 0, 1, False), phi)
    close(y, PHI[phi](z.double()), 1e-4 if phi == "sigmoid" else 0.0)


@pytest.mark.parametrize("phi", ["none", "tanh"])
def test_the_functions_go_there(phi: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_pool2d, and with its activation fuse's, forward and backward; interpreted, the CPU is taken for a card."""
    if device == "cpu":
        monkeypatch.setattr(kernels, "serves", lambda *tensors: False)
        monkeypatch.setattr(calls, "serves", lambda *tensors: not torch.is_grad_enabled())
    ran = []
    for name in ("max_pool", "put"):
        monkeypatch.setattr(pool, name, noting(ran, name, getattr(pool, name)))
    x = torch.randn(2, 3, 8, 9).to(device).requires_grad_()
    y = F.max_pool2d(x, 2) if phi == "none" else activation_max_pool2d(x, phi, 2)
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    expected = T.max_pool2d(PHI[phi](x), 2)
    (own,) = torch.autograd.grad(expected.square().sum(), x)
    close(y.detach(), expected.detach(), 1.0)
    close(dx, own, 4.0)
    assert ran == ["max_pool", "put"]


def noting(ran: list[str], name: str, f: Any) -> Any:
    def noted(*args: Any) -> Any:
        ran.append(name)
        return f(*args)

    return noted


def test_deterministic(device: str) -> None:
    x, g, _ = pools(torch.randn(2, 4, 9, 20).to(device), settings(3, 1, 1), "channels_last")
    y, byte = pool.max_pool(x, g)
    assert torch.equal(pool.put(y, byte, g), pool.put(y, byte, g))


def test_more_numbers_than_32_bits_tell(device: str) -> None:
    if device == "cpu" or torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("no card with 20 GB: no interpreter has the time")
    x = torch.zeros(2**15 + 1, 1, 2**8, 2**8, dtype=torch.bfloat16, device=device)
    x[-1].normal_()
    g = pooling("test", x.shape, 2, 2, 0, 1, False)
    y, byte = pool.max_pool(x, g)
    z, index = T.max_pool2d(x[-1:], 2, return_indices=True)
    assert torch.equal(y[-1:], z)
    assert torch.equal(index_of(byte[-1:], g), index)
    assert torch.equal(pool.put(y, byte, g)[-1:], pool.put(y[-1:], byte[-1:], g))
