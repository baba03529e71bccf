"""What is kept for backward: only what the formula needs, and only where needs_input_grad calls for it."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import manualbp.functional as F
from manualbp.functional.activation.table import relu
from manualbp.fuse.norm import correlation
from manualbp.fuse.recompute import Recipe, factor_again
from manualbp.kernels.geometry import convolution


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


def in_place(f: Callable[..., Tensor], x: Tensor) -> Tensor:
    """f on what is no leaf."""
    return f(x * 1, inplace=True)


def inputs(*shapes: tuple[int, ...], needed: str) -> list[Tensor]:
    return [torch.randn(s, requires_grad=flag == "1") for s, flag in zip(shapes, needed, strict=True)]


CONV, LINEAR = ((2, 3, 6, 6), (4, 3, 3, 3), (4,)), ((2, 3), (4, 3), (4,))
SMALL, LARGE = ((2, 3, 6), (4, 3, 3), (4,)), ((2, 3, 4, 3, 3), (4, 3, 3, 2, 2), (4,))
TRANSPOSED = ((2, 4, 4, 4), (4, 3, 3, 3), (3,))
PRODUCTS = [
    (F.conv2d, CONV),
    (F.conv1d, SMALL),
    (F.conv3d, LARGE),
    (F.conv_transpose2d, TRANSPOSED),
    (F.linear, LINEAR),
]


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
    assert [(t.dtype, t.shape) for t in saved] == [(torch.uint8, (2, 3, 3, 3))]
    _, saved = kept(lambda x: F.max_pool2d(x, 2, return_indices=True)[0], x)
    assert [(t.dtype, t.shape) for t in saved] == [(torch.int64, (2, 3, 3, 3))]
    _, saved = kept(lambda x: F.max_pool2d(x, 17), torch.randn(2, 3, 17, 17, requires_grad=True))
    assert [(t.dtype, t.shape) for t in saved] == [(torch.int64, (2, 3, 1, 1))]
    for mean in (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), lambda x: F.pad(x, (1, 1), "circular")):
        assert kept(mean, x[0])[1] == []
    _, saved = kept(lambda x: F.adaptive_max_pool2d(x, 4), x)
    assert [(t.dtype, t.shape) for t in saved] == [(torch.int64, (2, 3, 4, 4))]
    index = torch.arange(36).expand(2, 3, 36).view(2, 3, 6, 6)
    assert data(*kept(lambda x: F.max_unpool2d(x, index, 2), x)[1]) == data(index)
    for linear in (lambda x: F.adaptive_avg_pool2d(x, 4), lambda x: F.interpolate(x, 4, mode="bilinear")):
        assert kept(linear, x)[1] == []


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_activation_and_pooling_keep_a_byte_beside_the_output(activation: str) -> None:
    (x,) = inputs((2, 3, 6, 6), needed="1")
    y, saved = kept(lambda x: F.activation_max_pool2d(x, activation, 2), x)
    assert sorted((str(t.dtype), t.shape) for t in saved) == [("torch.float32", y.shape), ("torch.uint8", y.shape)]
    assert data(*[t for t in saved if t.dtype == y.dtype]) == data(y)


@pytest.mark.parametrize(("needed", "which"), [("111", "xw"), ("100", "w"), ("010", "x"), ("001", "")])
def test_convolution_and_mean_keep_the_input_and_the_folded_kernel(needed: str, which: str) -> None:
    x, w, b = inputs(*CONV, needed=needed)
    _, saved = kept(F.conv2d_avg_pool2d, x, w, b)
    shapes = {"x": x.shape, "w": (4, 3, 4, 4)}  # and the box, if the gradient of w is asked for
    assert [t.shape for t in saved if t.shape != (3, 1, 2, 2)] == [shapes[name] for name in which]


def test_the_gradient_of_a_global_average_is_one_number_a_map() -> None:
    (x,) = inputs((2, 3, 6, 6), needed="1")
    (dx,) = torch.autograd.grad(F.adaptive_avg_pool2d(x, 1).sum(), x)
    assert dx.untyped_storage().nbytes() == 2 * 3 * dx.element_size()
    assert torch.equal(dx, torch.full_like(x, 1 / 36))


@pytest.mark.parametrize(
    "f",
    [
        F.sigmoid,
        F.tanh,
        F.relu,
        lambda x: F.softmax(x, 1),
        lambda x: F.log_softmax(x, 1),
        *[partial(in_place, f) for f in (F.relu, F.leaky_relu, F.elu, F.selu, F.celu)],
    ],
)
def test_activations_keep_their_output(f: Any) -> None:
    """Those alone of which PyTorch keeps it, too: it may not be changed then."""
    (x,) = inputs((4, 5), needed="1")
    y, saved = kept(f, x)
    assert data(*saved) == data(y)


STRAIGHT = [F.relu6, F.hardtanh, F.hardsigmoid, partial(F.leaky_relu, negative_slope=-0.2)]
STRAIGHT = [*STRAIGHT, partial(F.threshold, threshold=0.1, value=2.0)]


@pytest.mark.parametrize(
    "f",
    [F.relu_bits, F.leaky_relu, F.hardshrink, F.softshrink, *STRAIGHT, *[partial(in_place, f) for f in STRAIGHT]],
)
@pytest.mark.parametrize("shape", [(), (1,), (8,), (4, 5), (2, 3, 5, 7)])
def test_a_straight_piece_is_a_bit_a_number(f: Any, shape: tuple[int, ...]) -> None:
    """Not the output, which may be changed, and not the input, which is 32 times as large."""
    (x,) = inputs(shape, needed="1")
    _, (bits,) = kept(f, x)
    assert bits.dtype == torch.uint8
    assert bits.untyped_storage().nbytes() == -(-x.numel() // 8)


ACTIVATIONS = ["relu", "relu6", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "hardswish"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_norm_activation_and_convolution_keep_the_input_of_the_first(activation: str) -> None:
    """And weights, and numbers a map: neither z nor a, of any storage."""
    x, gamma, beta, w, b = inputs((2, 3, 6, 6), (3,), (3,), (4, 3, 3, 3), (4,), needed="11111")
    how = {"training": True, "activation": activation}

    def norm(x: Tensor, *weights: Tensor) -> Tensor:
        return F.batch_norm_activation(x, None, None, *weights, **how)

    def norm_and_convolution(x: Tensor, *weights: Tensor) -> Tensor:
        return F.batch_norm_activation_conv2d(x, None, None, *weights, **how)

    for f, weights in ((norm, (gamma, beta)), (norm_and_convolution, (gamma, beta, w, b))):
        _, saved = kept(f, x, *weights)
        own = data(x, *weights) - data(b)
        assert own < data(*saved)
        numbers = {t.data_ptr(): t.numel() for t in saved if t.data_ptr() not in own}
        assert set(numbers.values()) == {3}
        assert len(numbers) <= 4  # mean and deviation, s and t
    _, saved = kept(lambda x, w, b: F.activation_conv2d(x, activation, w, b), x, w, b)
    assert data(*saved) == data(x, w)


def test_a_convolution_that_computes_again_keeps_the_factor_that_is_asked_for() -> None:
    """The kernel frozen: no source; what it is given frozen: no kernel."""
    x, a, s, t, w = inputs((2, 3, 6, 6), (2, 3, 6, 6), (3,), (3,), (4, 3, 3, 3), needed="00000")
    recipe, g = Recipe(relu(), ("affine",)), convolution("conv2d", a.shape, w.shape, 1, 0, 1, 1)
    for needed, expected in (("11", data(x, s, t, w)), ("10", data(w)), ("01", data(x, s, t))):
        a.requires_grad_(needed[0] == "1")
        w.requires_grad_(needed[1] == "1")
        _, saved = kept(lambda: factor_again(a, [correlation(a, w, None, g)], recipe, (x, s, t))[0])
        assert data(*saved) == expected


@pytest.mark.parametrize("f", [F.gelu, lambda x: F.gelu(x, "tanh"), F.silu, F.elu, F.softplus, F.hardswish])
def test_activations_that_keep_their_input(f: Any) -> None:
    (x,) = inputs((4, 5), needed="1")
    _, saved = kept(f, x)
    assert data(*saved) == data(x)


def test_dropout_keeps_the_noise_alone() -> None:
    (x,) = inputs((4, 5), needed="1")
    y, (noise,) = kept(lambda x: F.dropout(x, 0.5), x)
    assert noise.unique().tolist() == [0, 2]
    assert torch.equal(y, x * noise)
    assert kept(lambda x: F.dropout(x, 0.5, training=False), x)[1] == []


def test_losses_keep_their_inputs() -> None:
    (z,) = inputs((4, 5), needed="1")
    t = torch.tensor([0, 1, 4, 2])
    sizes = {s.numel() for s in kept(lambda z: F.cross_entropy(z, t), z)[1]}
    assert sizes <= {20, 4, 1}  # the scores, the classes and their weights; no softmax beside the scores
    large = [s for s in kept(lambda z: F.cross_entropy(z, t), z)[1] if s.numel() == 20]
    assert data(*large) == data(z)
    assert all(s.numel() <= 4 for s in kept(lambda z: F.nll_loss(z, t), z)[1])


@pytest.mark.parametrize(
    "f", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.binary_cross_entropy_with_logits], ids=lambda f: f.__name__
)
def test_losses_of_numbers_keep_both_sides_and_no_difference(f: Any) -> None:
    x, t = inputs((4, 5), (4, 5), needed="10")
    assert data(*[s for s in kept(f, x, t)[1] if s.numel() > 1]) == data(x, t)


NORMS = [
    (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (3,), 3),
    (lambda x, w, b: F.layer_norm(x, (4, 5), w, b), (4, 5), 6),
    (lambda x, w, b: F.group_norm(x, 3, w, b), (3,), 6),
]


@pytest.mark.parametrize(("f", "shape", "means"), NORMS)
@pytest.mark.parametrize(("needed", "which"), [("111", "xw"), ("100", "xw"), ("010", "x"), ("011", "x"), ("001", "")])
def test_normalisation_keeps_its_input_and_two_numbers_a_mean(
    f: Any, shape: Any, means: int, needed: str, which: str
) -> None:
    x, w, b = inputs((2, 3, 4, 5), shape, shape, needed=needed)
    _, saved = kept(f, x, w, b)
    own = data(*({"x": x, "w": w}[name] for name in which))
    assert own <= data(*saved)
    assert [t.numel() for t in saved if t.data_ptr() not in own] == ([means, means] if which else [])


def test_given_statistics_keep_the_input_for_the_weight_only() -> None:
    """And numbers of their own: the running statistics may have changed before backward."""
    mean, var = torch.zeros(3), torch.ones(3)
    for needed, which, numbers in (("111", "xw", 6), ("100", "w", 3), ("011", "x", 6), ("001", "", 0)):
        x, w, b = inputs((2, 3, 4), (3,), (3,), needed=needed)
        _, saved = kept(lambda x, w, b: F.batch_norm(x, mean, var, w, b), x, w, b)
        own = data(*({"x": x, "w": w}[name] for name in which))
        others = [t for t in saved if t.data_ptr() not in own]
        assert own <= data(*saved)
        assert sum(t.numel() for t in others) == numbers
        assert not data(*others) & data(mean, var)


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
        w = torch.randn(4, 3, 3, 3).to(memory_format=layout).requires_grad_()  # as nn.Module.to does it
        v = torch.randn(4, 3, 1, 1).to(memory_format=layout).requires_grad_()
        x = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout)
        (F.conv2d(x, w).sum() + F.conv2d(x, v).sum()).backward()
        for p in (w, v):
            assert p.grad is not None
            assert p.grad.stride() == p.stride()
