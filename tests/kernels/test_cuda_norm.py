"""Batch norm with ReLU in Triton against PyTorch's, and both against float64."""

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.cuda import calls, norm
from manualbp.kernels.layout import CHANNELS_LAST, maps_last
from tests.checks import distance, random_like
from tests.kernels.cards import on_a_card

pytestmark = on_a_card

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = {
    "matrix": (5, 3),
    "sequence": (3, 2, 4),
    "images": (2, 3, 4, 3),
    "volumes": (2, 2, 3, 1, 2),
    "one image": (1, 3, 5, 4),
    "many maps": (5, 70, 2, 2),
    "many positions": (7, 2, 23, 20),
    "three shares": (600, 30, 1, 2),
}
LAYOUTS = {
    "maps first": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=CHANNELS_LAST[x.ndim]) if x.ndim > 3 else x.mT.contiguous().mT,
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}
Given = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Given:
    """x, delta, w and b; the latter in every other place of memory."""
    x = (random_like(torch.empty(shape, dtype=torch.float64)) * 2 + 0.5).to(device, dtype)
    settings = random_like(torch.empty(2, shape[1], 2), 2).to(device)
    return x, random_like(x, 3), settings[0, :, 0], settings[1, :, 0]


def ours(x: Tensor, delta: Tensor, w: Tensor, b: Tensor, phi: str) -> list[Tensor]:
    """y, dx, dw, db, and the running mean and variance."""
    mean, var, none = torch.zeros_like(w), torch.ones_like(w), torch.zeros_like(w)
    y, mu, r = norm.forward(x, w, b, mean, var, 0.1, 1e-5, phi)
    dx, dw, db = norm.backward(delta, x, w, b, mu, r, none, none, True, phi)
    order = torch.empty_like(LAYOUTS["channels_last"](x) if maps_last(x) else x.contiguous())
    for t in (y, dx) if phi else (dx,):
        assert (t.dtype, t.stride()) == (x.dtype, order.stride())
    return [y, dx, dw, db, mean, var]


def torchs(x: Tensor, delta: Tensor, w: Tensor, b: Tensor, phi: str, dtype: torch.dtype) -> list[Tensor]:
    """The same by PyTorch, in dtype."""
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    x = x.to(dtype).requires_grad_()
    w, b = (t.to(kind, copy=True).requires_grad_() for t in (w, b))
    mean, var = w.new_zeros(w.shape).detach(), w.new_ones(w.shape).detach()
    y = T.batch_norm(x, mean, var, w, b, training=True)
    y = y.relu() if phi else y
    return [y.detach(), *torch.autograd.grad(y, (x, w, b), delta.to(dtype)), mean, var]


def compare(x: Tensor, delta: Tensor, w: Tensor, b: Tensor, phi: str) -> None:
    """Errors against float64 are at most twice PyTorch's own, or two roundings, or 2e-6."""
    made = ours(x, delta, w, b, phi)
    truth = torchs(x, delta, w, b, phi, torch.float64)
    for which, (t, own, exact) in enumerate(zip(made, torchs(x, delta, w, b, phi, x.dtype), truth, strict=True)):
        limit = max(2 * distance(own, exact), 2 * torch.finfo(t.dtype).eps, 2e-6)
        assert distance(t, exact) <= limit, (which, distance(t, exact), limit)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("phi", ["", "relu"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes(shape: tuple[int, ...], phi: str, layout: str, device: str) -> None:
    for dtype in DTYPES if sum(shape) < 60 else DTYPES[:1]:
        x, delta, w, b = inputs(shape, dtype, device)
        compare(LAYOUTS[layout](x), delta, w, b, phi)


@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
def test_deltas(layout: str, device: str) -> None:
    x, delta, w, b = inputs((3, 5, 4, 6), torch.float32, device)
    for d in (delta[:, :, :1, :1].expand(x.shape), delta.mT.contiguous().mT, LAYOUTS["channels_last"](delta)):
        compare(LAYOUTS[layout](x), d, w, b, "relu")


@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
def test_64_bit_offsets(layout: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FAR", 0)
    x, delta, w, b = inputs((3, 70, 4, 6), torch.float32, device)
    compare(LAYOUTS[layout](x), delta, w, b, "relu")


@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
@pytest.mark.parametrize("phi", ["", "relu"])
def test_not_finite(phi: str, layout: str, device: str) -> None:
    """What is no number or infinite reaches what it reaches in PyTorch."""
    x, delta, w, b = inputs((3, 6, 4, 5), torch.float32, device)
    x[1, 1, 2, 3], x[0, 2, 1, 1], delta[2, 3, 1, 1], delta[0, 4, 0, 0] = torch.nan, torch.inf, torch.nan, torch.inf
    both = ours(LAYOUTS[layout](x), delta, w, b, phi), torchs(x, delta, w, b, phi, torch.float32)
    for t, own in zip(*both, strict=True):
        assert torch.equal(t.isfinite(), own.isfinite())


@pytest.mark.parametrize("layout", ["maps first", "channels_last"])
def test_large_shares(layout: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "SHARES", 1)
    x, delta, w, b = inputs(SHAPES["many positions"], torch.float32, device)
    compare(LAYOUTS[layout](x), delta, w, b, "relu")


def test_by_the_statistics(device: str) -> None:
    """What is derived twice asks for dL/dmu and dL/dr as well, and a map may have no weight and no bias."""
    x, delta, by_mu, by_r = inputs((3, 4, 5, 2), torch.float32, device)
    leaf = x.double().requires_grad_()
    var, mu = torch.var_mean(leaf, (0, 2, 3), correction=0, keepdim=True)
    r = (var + 1e-5).rsqrt()
    outputs, deltas = [((leaf - mu) * r).relu(), mu, r], [delta, by_mu.view_as(mu), by_r.view_as(r)]
    (dx,) = torch.autograd.grad(outputs, leaf, [d.double() for d in deltas])
    given = mu.float().detach(), r.float().detach(), by_mu, by_r
    assert distance(norm.backward(delta, x, None, None, *given, True, "relu")[0], dx) < 2e-6
    assert norm.backward(delta, x, None, None, *given, False, "relu")[0].numel() == 0


def test_affine(device: str) -> None:
    x, _, s, t = inputs((3, 4, 5, 2), torch.float32, device)
    z = x * s.view(-1, 1, 1)
    assert distance(norm.affine(x, s, None), z) < 1e-6
    assert distance(norm.affine(x, s, t, "relu"), (z + t.view(-1, 1, 1)).relu()) < 1e-6


def test_deterministic(device: str) -> None:
    given = inputs((5, 4, 23, 21), torch.float32, device)
    for once, again in zip(ours(*given, phi="relu"), ours(*given, phi="relu"), strict=True):
        assert torch.equal(once, again)
