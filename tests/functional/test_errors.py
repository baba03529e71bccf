"""Bad input is refused by a ValueError or TypeError that names the operation, the argument and both values."""

from typing import Any

import pytest
import torch

import manualbp.functional as F


def r(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


X, W = r(2, 4, 6, 5), r(6, 4, 3, 3)
o, c = torch.tensor([0, 1]), torch.tensor([1, 0])
T = torch.zeros(5, dtype=torch.int64)
Z = r(5, 4)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], list[str]]] = [
    ("conv2d", (r(4, 6), W), {}, ["input", "[4, 6]", "[N, C, H, W]"]),
    ("conv2d", (X, r(6, 4, 3)), {}, ["kernel", "[6, 4, 3]"]),
    ("conv2d", (X, r(6, 3, 3, 3)), {}, ["4 maps", "[6, 3, 3, 3]", "3;"]),
    ("conv2d", (X, r(6, 2, 3, 3)), {"groups": 4}, ["groups = 4", "6 output maps"]),
    ("conv2d", (X, r(6, 2, 3, 3)), {"groups": 3}, ["groups = 3", "6;"]),
    ("conv2d", (X, W), {"groups": 0}, ["groups = 0"]),
    ("conv2d", (X, W, r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]", "[O]"]),
    ("conv2d", (X, W), {"stride": 0}, ["stride = 0", "at least 1"]),
    ("conv2d", (X, W), {"stride": (1, 2, 3)}, ["stride = (1, 2, 3)", "one int or two"]),
    ("conv2d", (X, W), {"padding": -1}, ["padding = -1", "at least 0"]),
    ("conv2d", (X, W), {"padding": "full"}, ["padding = 'full'", "'same'"]),
    ("conv2d", (X, W), {"padding": "same", "stride": 2}, ["'same'", "stride = 2"]),
    ("conv2d", (X, W), {"dilation": 0}, ["dilation = 0"]),
    ("conv2d", (X, W), {"dilation": 3}, ["[7, 7]", "[6, 5]"]),
    ("conv2d", (X, W.double()), {}, ["float32", "float64"]),
    ("conv2d", (X.to(torch.complex64), W.to(torch.complex64)), {}, ["input", "complex64"]),
    ("conv2d", (X, W.to("meta")), {}, ["weight", "meta", "cpu"]),
    ("correlate", (r(4, 6, 5), W), {}, ["x", "[4, 6, 5]"]),
    ("full_convolve", (r(2, 6, 4, 3), W, (7, 5)), {}, ["delta", "[4, 3]", "[5, 3]"]),
    ("full_convolve", (r(2, 5, 4, 3), W, (6, 5)), {}, ["delta", "[2, 5, 4, 3]", "6"]),
    ("kernel_gradient", (X, r(3, 6, 4, 3), (3, 3)), {}, ["2 images", "3"]),
    ("kernel_gradient", (X, r(2, 6, 4, 3), (2, 3)), {}, ["delta", "[4, 3]", "[5, 3]"]),
    ("convolve", (X, r(6, 4, 3)), {}, ["kernel", "[6, 4, 3]"]),
    ("convolve", (X, W, r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]"]),
    ("convolve", (X, W), {"padding": "same", "stride": 2}, ["'same'", "stride = 2"]),
    ("convolve", (X.to(torch.complex64), W.to(torch.complex64)), {}, ["input", "complex64"]),
    ("rotate", (r(3),), {}, ["w", "[3]", "[..., P, Q]"]),
    ("scatter_kernels", (r(3, 2, 2), o, c, (2, 3)), {}, ["weight", "[3, 2, 2]", "[2]"]),
    ("scatter_kernels", (r(2, 2), o, c, (2, 3)), {}, ["weight", "[2, 2]", "[K, P, Q]"]),
    ("scatter_kernels", (r(2, 3, 3), o, c.float(), (2, 3)), {}, ["c is", "float32", "int64"]),
    ("scatter_kernels", (r(2, 3, 3), o, c[:1], (2, 3)), {}, ["o", "[2]", "c [1]", "[K]"]),
    ("scatter_kernels", (r(2, 3, 3), o + 2, c, (2, 3)), {}, ["o holds output maps", "2 to 3", "[2, 3]", "0 to 1"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c + 3, (6, 4)), {}, ["c holds input maps", "3 to 4", "[6, 4]", "0 to 3"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c, (6, 3)), {}, ["4 maps", "[6, 3, 3, 3]", "3;"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c, (6, 4), r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]"]),
    ("connected_conv2d", (X, r(2, 3, 3).double(), o, c, (6, 4)), {}, ["float32", "float64"]),
    ("gather_kernels", (r(2, 3, 3), o, c), {}, ["w", "[2, 3, 3]", "[O, C, P, Q]"]),
    ("gather_kernels", (r(2, 3, 3, 3), o - 4, c), {}, ["output maps", "-4 to -3", "0 to 1"]),
    ("max_pool2d", (r(6, 5), 2), {}, ["input", "[6, 5]"]),
    ("max_pool2d", (r(2, 0, 6, 5), 2), {}, ["input", "[2, 0, 6, 5]"]),
    ("max_pool2d", (X, 2), {"padding": 2}, ["padding = [2, 2]", "half"]),
    ("max_pool2d", (X, 7), {}, ["[7, 7]", "[6, 5]"]),
    ("max_pool2d", (X, 0), {}, ["kernel_size = 0"]),
    ("max_pool2d", (X.to(torch.complex64), 2), {}, ["input", "complex64"]),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}, ["divisor_override = 0"]),
    ("avg_pool2d", (X, (2, 2, 2)), {}, ["kernel_size = (2, 2, 2)"]),
    ("avg_pool2d", (X, 2), {"stride": -1}, ["stride = -1"]),
    ("pad", (X, (1, 2, 3)), {}, ["pad = [1, 2, 3]"]),
    ("pad", (X, (-3, -3)), {}, ["[-3, -3]", "[2, 4, 6, 5]"]),
    ("pad", (X, (5, 0, 0, 0)), {"mode": "reflect"}, ["margins 5 and 0", "5 pixels", "4"]),
    ("pad", (X, (6, 0, 0, 0)), {"mode": "circular"}, ["margins 6 and 0"]),
    ("pad", (X, (1, 1)), {"mode": "reflect"}, ["mode = 'reflect'", "[2, 4, 6, 5]"]),
    ("pad", (X, (1, 1)), {"mode": "mirror"}, ["mode = 'mirror'"]),
    ("pad", (X, (1, 1, 1, 1)), {"mode": "reflect", "value": 1.0}, ["value = 1.0"]),
    ("sigmoid", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("tanh", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("relu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("linear", (r(3, 4), r(5, 3)), {}, ["[3, 4]", "[5, 3]"]),
    ("linear", (r(3, 4), r(5, 4), r(4)), {}, ["bias", "[4]", "[5, 4]"]),
    ("linear", (r(3, 4), r(5, 4).double()), {}, ["float32", "float64"]),
    ("softmax", (r(3, 4), 2), {}, ["dim = 2", "[3, 4]", "-2 to 1"]),
    ("log_softmax", (r(3, 4, dtype=torch.complex64), 1), {}, ["complex64"]),
    ("cross_entropy", (Z, T[:3]), {}, ["[5, 4]", "[3]"]),
    ("cross_entropy", (Z, T + 4), {}, ["target", "0 to 3"]),
    ("cross_entropy", (Z, T - 1), {}, ["target", "0 to 3"]),
    ("cross_entropy", (Z, T.float()), {}, ["target", "float32", "int64"]),
    ("cross_entropy", (Z, Z.long()), {}, ["target", "int64", "probabilities"]),
    ("cross_entropy", (Z, T), {"weight": r(5)}, ["weight", "[5]", "[4]"]),
    ("cross_entropy", (Z, T), {"weight": r(4).requires_grad_()}, ["weight", "gradient"]),
    ("cross_entropy", (Z, T), {"label_smoothing": 1.5}, ["label_smoothing = 1.5"]),
    ("cross_entropy", (Z, T), {"reduction": "max"}, ["reduction = 'max'"]),
    ("cross_entropy", (Z, Z), {"ignore_index": 2}, ["ignore_index = 2"]),
    ("cross_entropy", (Z.long(), T), {}, ["input", "int64"]),
    ("nll_loss", (Z, T + 4), {}, ["target", "0 to 3"]),
    ("nll_loss", (Z, Z), {}, ["target", "[5, 4]", "classes"]),
    ("nll_loss", (Z, T), {"reduction": "avg"}, ["reduction = 'avg'"]),
    ("mse_loss", (Z, r(5, 4)), {"weight": r(4)}, ["weight", "[4]", "[5, 4]"]),
    ("mse_loss", (Z, r(5, 4)), {"reduction": ""}, ["reduction = ''"]),
    ("mse_loss", (Z, r(3, 4)), {}, ["[5, 4]", "[3, 4]", "broadcast"]),
]


@pytest.mark.parametrize(("op", "args", "kwargs", "words"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.filterwarnings("ignore:mse_loss")
def test_refused_by_name(op: str, args: Any, kwargs: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        getattr(F, op)(*args, **kwargs)
    for word in [op, *words]:
        assert word in str(info.value)


@pytest.mark.parametrize("op", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize(("flags", "name"), [((False, None), "sum"), ((None, False), "none"), ((True, True), "mean")])
def test_deprecated_flags_mean_what_they_meant(op: str, flags: Any, name: str) -> None:
    size_average, reduce = flags
    with pytest.warns(UserWarning, match=f"reduction='{name}'"):
        old = getattr(F, op)(Z, T, size_average=size_average, reduce=reduce)
    assert torch.equal(old, getattr(F, op)(Z, T, reduction=name))


def test_softmax_without_an_axis_warns_and_does_what_pytorch_does() -> None:
    for shape in [(3,), (3, 4), (2, 3, 4), (2, 3, 4, 5)]:
        x = torch.randn(shape)
        with pytest.warns(UserWarning, match="dim"):
            y = F.softmax(x)
        with pytest.warns(UserWarning, match="dim"):
            assert torch.equal(y, torch.nn.functional.softmax(x))


def test_mse_of_different_shapes_warns() -> None:
    with pytest.warns(UserWarning, match=r"\[5, 1\].*\[5, 4\]"):
        loss = F.mse_loss(torch.ones(5, 4), torch.zeros(5, 1))
    assert loss == 1


def test_relu_in_place() -> None:
    x = torch.randn(3, 4)
    leaf = x.clone().requires_grad_()
    twice = leaf * 2
    y = F.relu(twice, inplace=True)
    assert y is twice
    assert torch.equal(twice, (2 * x).relu())
    y.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, 2.0 * (x > 0))
