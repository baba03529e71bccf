"""What is kept for backward: only what the formula needs, and only where needs_input_grad calls for it."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import manualbp.functional as F


def kept(f: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """f's output and the tensors with elements in it that its graph keeps."""
    saved: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        if t.numel():
            saved.append(t)
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        y = f(*inputs)
    return y, saved


def inputs(*shapes: tuple[int, ...], needed: str) -> list[Tensor]:
    return [torch.randn(s, requires_grad=flag == "1") for s, flag in zip(shapes, needed, strict=True)]


CONV, LINEAR = ((2, 3, 6, 6), (4, 3, 3, 3), (4,)), ((2, 3), (4, 3), (4,))
PRODUCTS = [(F.conv2d, CONV), (F.linear, LINEAR)]


@pytest.mark.parametrize(("f", "shapes"), PRODUCTS)
@pytest.mark.parametrize(
    ("needed", "which"),
    [("111", "xw"), ("110", "xw"), ("100", "w"), ("010", "x"), ("011", "x"), ("101", "w"), ("001", ""), ("000", "")],
)
def test_products(f: Any, shapes: Any, needed: str, which: str) -> None:
    x, w, b = inputs(*shapes, needed=needed)
    _, saved = kept(f, x, w, b)
    assert {t.data_ptr() for t in saved} == {{"x": x, "w": w}[name].data_ptr() for name in which}


def data(*tensors: Tensor) -> set[int]:
    return {t.data_ptr() for t in tensors}


def test_pooling_keeps_no_image() -> None:
    (x,) = inputs((2, 3, 6, 6), needed="1")
    _, saved = kept(lambda x: F.max_pool2d(x, 2), x)
    assert [(t.dtype, t.shape) for t in saved] == [(torch.int64, (2, 3, 3, 3))]
    for mean in (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), lambda x: F.pad(x, (1, 1), "circular")):
        assert kept(mean, x[0])[1] == []


@pytest.mark.parametrize("f", [F.sigmoid, F.tanh, F.relu, lambda x: F.softmax(x, 1), lambda x: F.log_softmax(x, 1)])
def test_activations_keep_their_output(f: Any) -> None:
    (x,) = inputs((4, 5), needed="1")
    y, saved = kept(f, x)
    assert data(*saved) == data(y)


def test_losses_keep_their_inputs() -> None:
    (z,) = inputs((4, 5), needed="1")
    t = torch.tensor([0, 1, 4, 2])
    sizes = {s.numel() for s in kept(lambda z: F.cross_entropy(z, t), z)[1]}
    assert sizes <= {20, 4, 1}  # the scores, the classes and their weights; no softmax beside the scores
    large = [s for s in kept(lambda z: F.cross_entropy(z, t), z)[1] if s.numel() == 20]
    assert data(*large) == data(z)
    assert all(s.numel() <= 4 for s in kept(lambda z: F.nll_loss(z, t), z)[1])


@pytest.mark.parametrize(("f", "shapes"), PRODUCTS)
def test_forward_mode_keeps_nothing_alive(f: Any, shapes: Any) -> None:
    """What only forward mode would need is gone when nothing else holds it."""
    x, w, b = inputs(*shapes, needed="100")
    held = x * 2
    x_gone = weakref.ref(held)
    y = f(held, w, b)
    del held
    assert x_gone() is None
    y.sum().backward()


def test_nothing_is_kept_without_grad() -> None:
    with torch.no_grad():
        y, saved = kept(F.conv2d, *inputs(*CONV, needed="111"))
    assert saved == []
    assert y.grad_fn is None


def test_parameters_get_gradients_in_their_own_strides() -> None:
    """Else DistributedDataParallel copies them, with a warning."""
    for layout in (torch.contiguous_format, torch.channels_last):
        w = torch.randn(4, 3, 3, 3).contiguous(memory_format=layout).requires_grad_()
        v = torch.randn(4, 3, 1, 1).contiguous(memory_format=layout).requires_grad_()
        x = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout)
        (F.conv2d(x, w).sum() + F.conv2d(x, v).sum()).backward()
        for p in (w, v):
            assert p.grad is not None
            assert p.grad.stride() == p.stride()
