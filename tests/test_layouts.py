"""Where torch.nn's output and image gradient are channels_last, so are these: every rule, any image, any delta."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F
from tests.cases.activation import IN_PLACE
from tests.cases.make import ORACLES
from tests.checks import EXACT, first, random_like

Call = Callable[[Any, Tensor], Any]
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def r(*shape: int, seed: int = 3) -> Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


def op(name: str, *args: Any, **kwargs: Any) -> Call:
    """name(x, *args, **kwargs), by hand for our namespace and by PyTorch for its own."""
    return lambda M, x: (getattr(F, name) if M is F else ORACLES.get(name) or getattr(T, name))(x, *args, **kwargs)


def unpooled(M: Any, x: Tensor) -> Tensor:
    index = (torch.arange(x[0, 0].numel()) * 2).view(x.shape[2:]).expand_as(x)
    return M.max_unpool2d(x, index, (1, 2), output_size=(x.shape[2], 2 * x.shape[3]))


def of_mean(name: str, *args: Any, **kwargs: Any) -> Call:
    """A loss of images, number by number, so that its output is an image."""
    return lambda M, x: getattr(M, name)(x, torch.full_like(x, 0.3), *args, reduction="none", **kwargs)


def of_classes(M: Any, x: Tensor) -> Tensor:
    return M.cross_entropy(x, torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.int64))


C = 3  # maps of the images
w, wide, box = r(4, C, 3, 3), r(C, 4, 3, 2), r(C, 1, 3, 3)
scale, shift = r(C).abs() + 0.5, r(C)
maps = torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1])
names = "sigmoid tanh relu relu6 hardtanh leaky_relu gelu silu elu selu celu softplus mish hardsigmoid hardswish "
NUMBER_BY_NUMBER = (names + "hardshrink softshrink logsigmoid softsign").split()

# For every rule of images, what is called on images [N, 3, 6, 6], or [N, 3, 4, 6, 6] where the rule asks for volumes.
ROWS: dict[str, list[Call]] = {
    "conv2d": [
        op("conv2d", w, None, 1, 1),
        op("conv2d", w, r(4), 2),
        op("conv2d", box, None, 1, 1, 1, C),  # depthwise
        op("conv2d", r(4, C, 1, 1)),
        op("conv2d", r(1, C, 3, 3)),  # one map is in either order
        op("conv2d", r(4, C, 6, 6)),  # and so is one pixel a map
        op("conv2d", w.contiguous(memory_format=torch.channels_last), None, 1, "same"),
        op("conv2d", r(4, C, 4, 2), None, 1, "same"),
        op("conv2d", r(1, C, 1, 1), None, 6),  # one number an image
        op("conv2d", box, None, 6, 0, 1, C),  # one number a map, each by itself
    ],
    "conv3d": [op("conv3d", r(4, C, 3, 2, 3)), op("conv3d", r(1, C, 4, 6, 6), r(1))],
    "conv_transpose2d": [op("conv_transpose2d", wide), op("conv_transpose2d", r(C, 2, 3, 3), None, 2, 1, 1)],
    "conv_transpose3d": [op("conv_transpose3d", r(C, 2, 2, 2, 2))],
    "correlate": [op("correlate", w, 1, 1)],
    "full_convolve": [op("full_convolve", r(C, 2, 3, 3), (8, 8))],
    "convolve": [op("convolve", w, None, padding=1)],
    "connected_conv2d": [op("connected_conv2d", r(3, 3, 3), *maps, (4, C))],
    "max_pool2d": [
        *[op("max_pool2d", 2), op("max_pool2d", 3, 1), op("max_pool2d", 6), op("max_pool2d", 5, 1, 2)],
        *[op("max_pool2d", window) for window in ((2, 6), (6, 2))],  # one column, one row of windows
    ],
    "avg_pool2d": [
        *[op("avg_pool2d", 2), op("avg_pool2d", 3, 1), op("avg_pool2d", 6), op("avg_pool2d", 3, 2, 1, True)],
        op("avg_pool2d", (3, 5), (6, 7)),
    ],
    "adaptive_avg_pool2d": [op("adaptive_avg_pool2d", size) for size in (1, 2, 4, (1, 6), (None, 6))],
    "adaptive_max_pool2d": [op("adaptive_max_pool2d", size) for size in (1, 3, 4)],
    "max_unpool2d": [unpooled],
    "interpolate": [
        op("interpolate", scale_factor=2),
        op("interpolate", size=(9, 7), mode="bilinear"),
        op("interpolate", size=(1, 1)),
        op("interpolate", size=(5, 13), mode="nearest-exact"),
        *[op("interpolate", size=size, mode="area") for size in ((4, 3), (3, 12))],
    ],
    "pad": [
        op("pad", (1, 2, 0, 1)),
        op("pad", (-1, 2, 0, -1), value=2.0),
        *[op("pad", (1, 1, 2, 1), mode=mode) for mode in ("reflect", "replicate", "circular")],
        op("pad", (-5, 0, -5, 0), mode="replicate"),
    ],
    "batch_norm": [
        op("batch_norm", None, None, scale, shift, training=True),
        op("batch_norm", shift, scale, scale, shift),
    ],
    "group_norm": [op("group_norm", 1), op("group_norm", 3, scale, shift)],
    "layer_norm": [op("layer_norm", (6,)), op("layer_norm", (C, 6, 6))],
    "softmax": [op("softmax", 1), op("softmax", 3)],
    "log_softmax": [op("log_softmax", 1), op("log_softmax", 3)],
    "dropout": [op("dropout", 0.5), op("dropout", 0.5, training=False)],
    "prelu": [op("prelu", r(1)), op("prelu", r(C))],
    "threshold": [op("threshold", 0.5, -2.0)],
    **{name: [op(name)] for name in NUMBER_BY_NUMBER},
    **{name: [of_mean(name)] for name in ("mse_loss", "l1_loss", "smooth_l1_loss")},
    "binary_cross_entropy_with_logits": [
        of_mean("binary_cross_entropy_with_logits", pos_weight=p) for p in (None, r(6).abs(), r(C, 6, 6).abs())
    ],
    "cross_entropy": [of_classes],
    "linear": [op("linear", r(4, 6))],
    "activation_max_pool2d": [op("activation_max_pool2d", "relu", 2)],
    "conv2d_avg_pool2d": [op("conv2d_avg_pool2d", w, padding=1)],
    "batch_norm_activation": [op("batch_norm_activation", shift, scale, scale, shift)],
    "batch_norm_activation_conv2d": [op("batch_norm_activation_conv2d", shift, scale, scale, shift, w, None)],
    "activation_conv2d": [op("activation_conv2d", "relu", w, None, padding=1)],
    "relu_bits": [op("relu_bits")],
}
# kernel_gradient's output is a kernel. PyTorch's nll_loss of images has no gradient in channels_last: an error.
NO_IMAGES = {"conv1d", "conv_transpose1d", "rotate", "scatter_kernels", "gather_kernels"}
NO_IMAGES |= {"kernel_gradient", "nll_loss"}
CALLS = [pytest.param(name, call, id=f"{name} {k}") for name, calls in ROWS.items() for k, call in enumerate(calls)]


def sliced(t: Tensor) -> Tensor:
    """The same numbers, every second column of something wider."""
    if t.ndim == 0:
        return t
    room = t.new_zeros(*t.shape[:-1], 2 * t.shape[-1])
    room = room.contiguous(memory_format=LAST[t.ndim]) if t.ndim in LAST else room
    room[..., ::2] = t
    return room[..., ::2]


def backwards(t: Tensor) -> Tensor:
    return t.permute(tuple(range(t.ndim))[::-1])


def last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=LAST[t.ndim]) if t.ndim in LAST else t


# How the numbers of an image or of a delta may lie.
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": last,
    "contiguous": Tensor.contiguous,
    "transposed": lambda t: last(t.mT).mT,
    "reversed": lambda t: backwards(backwards(t).contiguous()),  # of one image as in channels_last, almost
    "sliced": sliced,
    "expanded": lambda t: t.new_ones(()).expand(t.shape),
}


def in_channels_last(t: Tensor) -> bool:
    return t.ndim in LAST and t.is_contiguous(memory_format=LAST[t.ndim]) and not t.is_contiguous()


def test_every_rule_has_a_row() -> None:
    assert not (ROWS.keys() & NO_IMAGES)
    assert set(F.__all__) == ROWS.keys() | NO_IMAGES


@pytest.mark.parametrize("order", ["channels_last", "sliced", "contiguous", "reversed"])
@pytest.mark.parametrize("N", [1, 2])
@pytest.mark.parametrize(("name", "call"), CALLS)
def test_where_pytorchs_are_channels_last_so_are_these(name: str, call: Call, N: int, order: str) -> None:
    image = r(N, C, 4, 6, 6) if name.endswith("3d") else r(N, C, 6, 6)
    (x, y), (own_x, own_y) = (called(M, call, ORDERS[order](image)) for M in (T, F))
    assert in_channels_last(own_y) or not in_channels_last(y), own_y.stride()
    for of_delta, shaped in ORDERS.items():
        delta = shaped(random_like(y))
        theirs, ours = (torch.autograd.grad(b, a, delta, retain_graph=True)[0] for a, b in ((x, y), (own_x, own_y)))
        torch.testing.assert_close(ours, theirs, rtol=EXACT, atol=EXACT)
        assert in_channels_last(ours) or not in_channels_last(theirs), (of_delta, ours.stride())


def weighted(M: Any, x: Tensor) -> Tensor:
    """Scores in one order, their targets in channels_last."""
    return M.binary_cross_entropy_with_logits(x, last(torch.full_like(x, 0.3)), pos_weight=r(5).abs(), reduction="none")


@pytest.mark.parametrize("order", ["channels_last", "contiguous"])
@pytest.mark.parametrize(("shape", "call"), [((1, C, 1, 5), op("linear", r(4, 5))), ((2, C, 4, 5), weighted)])
def test_where_another_operand_decides(shape: tuple[int, ...], call: Call, order: str) -> None:
    """One row of an image is a matrix by columns; a product with targets lies as these do."""
    (x, y), (own_x, own_y) = (called(M, call, ORDERS[order](r(*shape))) for M in (T, F))
    assert in_channels_last(own_y) or not in_channels_last(y)
    theirs, ours = (torch.autograd.grad(b, a, random_like(y))[0] for a, b in ((x, y), (own_x, own_y)))
    torch.testing.assert_close(ours, theirs, rtol=EXACT, atol=EXACT)
    assert in_channels_last(theirs) == in_channels_last(ours)


OF_NUMBERS = [pytest.param(call, id=name) for name in [*NUMBER_BY_NUMBER, "prelu", "dropout"] for call in ROWS[name]]
OF_NUMBERS += [pytest.param(op(name, inplace=True), id=f"{name} in place") for name in IN_PLACE]
OF_NUMBERS += [pytest.param(op("threshold", 0.5, -2.0, True), id="threshold in place")]
OF_NUMBERS += [pytest.param(op("dropout", 0.5, inplace=True), id="dropout in place")]


@pytest.mark.parametrize("call", OF_NUMBERS)
def test_number_by_number_at_any_extents(call: Call) -> None:
    """Axes of one place, and volumes; in and out of place, in each order."""
    for shape in ((2, C, 4, 1), (1, C, 1, 4), (2, C, 4, 3, 2)):
        for shaped in ORDERS.values():
            image = shaped(r(*shape))
            (x, y), (own_x, own_y) = (called(M, lambda M, x: call(M, x.clone()), image) for M in (T, F))
            assert in_channels_last(own_y) or not in_channels_last(y), (image.stride(), own_y.stride())
            for of_delta in ORDERS.values():
                delta = of_delta(random_like(y))
                theirs, ours = (
                    torch.autograd.grad(b, a, delta, retain_graph=True)[0] for a, b in ((x, y), (own_x, own_y))
                )
                torch.testing.assert_close(ours, theirs, rtol=EXACT, atol=EXACT)
                assert in_channels_last(ours) or not in_channels_last(theirs), (image.stride(), delta.stride())


def called(M: Any, call: Call, image: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf of the image and what is made of it, with the same noise every time."""
    torch.manual_seed(0)
    x = image.detach().requires_grad_()
    return x, first(call(M, x))
