"""Tests of the tests: mistakes that people make, planted into the rules. Each must be caught by a named check."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from manualbp.functional import loss_of_numbers
from manualbp.functional.activation.sigmoid import Sigmoid
from manualbp.functional.conv import Correlate, FullConvolve
from manualbp.functional.norm import Normalise, gradients
from manualbp.fuse import conv_pool
from manualbp.fuse.norm import NormaliseActivate
from manualbp.fuse.recompute import Recipe
from manualbp.kernels import activation, adaptive, bits, conv, loss, pool, resize
from manualbp.kernels.adaptive import Windows
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.resize import Resize
from tests import checks
from tests.cases import Case
from tests.cases.activation import ELEMENTWISE
from tests.cases.conv import CONV2D, TRANSPOSED
from tests.cases.fused import (
    ACTIVATION_CONV2D,
    BATCH_NORM_ACTIVATION,
    BATCH_NORM_ACTIVATION_CONV2D,
    CONV2D_AVG_POOL2D,
    RELU_BITS,
)
from tests.cases.loss import BINARY_CROSS_ENTROPY, SMOOTH_L1_LOSS
from tests.cases.norm import BATCH_NORM
from tests.cases.pool import AVG_POOL2D, MAX_POOL2D
from tests.cases.resize import ADAPTIVE_AVG_POOL2D, INTERPOLATE

right = {name: getattr(module, name) for module, name in [
    (conv, "correlate"),
    (conv, "full_convolve"),
    (conv, "kernel_gradient"),
    (pool, "window_spread"),
    (conv_pool, "_spread"),
    (activation, "sigmoid_slope"),
    (activation, "gelu_slope"),
    (bits, "unpacked"),
    (bits, "beyond"),
]}  # fmt: skip
right_backward, right_transposed = Correlate.backward, FullConvolve.backward
right_jvp = Correlate.eager.jvp
right_normalise = Normalise.backward
right_sum = Recipe.sum


def not_rotated(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """Full convolution with the kernel as it stands."""
    return right["full_convolve"](delta, w.flip(2, 3), b, g)


def not_divided(delta: Tensor, g: Geometry, count_include_pad: bool, override: int | None) -> Tensor:
    """Average pooling's adjoint without 1/m^2."""
    return right["window_spread"](delta, g, count_include_pad, 1)


def resized_back(delta: Tensor, x_size: tuple[int, ...], r: Resize) -> Tensor:
    """The adjoint of an interpolation taken for the interpolation the other way."""
    s = delta[0, 0].numel() / math.prod(x_size)
    return T.interpolate(delta, list(x_size), mode=r.mode, align_corners=r.align_corners) * s


def start_forgotten(byte: Tensor, g: Geometry, start: Tensor | None = None) -> Tensor:
    """The place in the window taken for the position in the image."""
    return byte.long()


def exchanged_steps(w: Tensor, g: Geometry, windows: Geometry) -> Geometry:
    """Stride and dilation of the convolution exchanged on an axis, where kernel and window are of one extent."""
    folded = right["_spread"](w, g, windows)
    (*strides, stride), (*dilations, dilation) = folded.stride, folded.dilation
    return replace(folded, stride=(*strides, dilation), dilation=(*dilations, stride))


def equal_tiles(delta: Tensor, windows: Windows) -> Tensor:
    """Windows that overlap taken for ones side by side."""
    (H, W), (I, J) = windows.x_size, windows.y_size
    return T.interpolate(delta, windows.x_size, mode="nearest") * (I * J / (H * W))


def no_slope(ctx: Any, delta: Tensor) -> Tensor:
    """phi' forgotten."""
    return delta.clone()


def bias_not_summed(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of the bias of one image only."""
    dx, dw, db, _ = right_backward(ctx, delta)
    return dx, dw, delta[:1].sum((0, 2, 3)) if db is not None else None, None


def axes_exchanged(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """The kernel with its rows for columns: what goes back through a transposed convolution."""
    return right["correlate"](x, w.mT, b, replace(g, w_size=g.w_size[::-1], dilation=g.dilation[::-1]))


def bias_of_one_row(ctx: Any, eps: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of the bias over the last axis only, as if the image had one axis."""
    dx, dw, db, _ = right_transposed(ctx, eps)
    return dx, dw, eps[:, :, 0].sum((0, -1)) if db is not None else None, None


def statistics_not_derived(ctx: Any, delta: Tensor, eps: Tensor, rho: Tensor) -> tuple[Tensor | None, ...]:
    """Right once, wrong twice: the errors that reach the mean and the deviation are forgotten."""
    return right_normalise(ctx, delta, torch.zeros_like(eps), torch.zeros_like(rho))


def tangent_of_one_factor(ctx: Any, dx: Tensor, dw: Tensor, *more: Any) -> Tensor:
    """Forward mode only: the second half of the product rule forgotten."""
    return right_jvp(ctx, dx, torch.zeros_like(dw), *more)


def in_float32(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """Double precision lost on the way."""
    return right["kernel_gradient"](x.float(), delta.float(), g).to(x.dtype)


def a_little_off(delta: Tensor, y: Tensor) -> Tensor:
    """A relative error of 1e-9."""
    return right["sigmoid_slope"](delta, y) * (1 + 1e-9)


def ends_included(t: Tensor, low: float, high: float) -> Tensor:
    """The whole of the real line is one piece."""
    return right["beyond"](t.clamp(low + 1e-3, high - 1e-3), low, high)


def no_density(delta: Tensor, x: Tensor) -> Tensor:
    """Phi alone, without x phi."""
    return delta * torch.special.ndtr(x)


def linear_from_the_start(delta: Tensor, x: Tensor, t: Tensor, beta: float) -> Tensor:
    """The slope of the absolute error, where the smooth one is still a parabola."""
    return delta * (x - t).sign()


def as_if_not_rare(x: Tensor, p: Tensor) -> Tensor:
    """dL/dt = -x, which holds without pos_weight only."""
    return -x


def slope_at_x(ctx: Any, delta: Tensor, eps: Tensor, rho: Tensor) -> tuple[Tensor | None, ...]:
    """phi' at what batch norm was given, instead of what it made of it."""
    x, w, _, mu, r = ctx.saved_tensors
    return *gradients(ctx, ctx.phi.sloped(delta, x), eps, rho, x, w, mu, r), *[None] * 4


def no_shift(recipe: Recipe, *sources: Tensor) -> Tensor:
    """s x, without t."""
    x, s, _ = sources
    return x * s.view(-1, *[1] * (x.ndim - 2))


def not_activated(recipe: Recipe, *sources: Tensor) -> Tensor:
    """The convolution's factor is z instead of phi(z)."""
    return recipe.sum(*sources)


def constant_scale(recipe: Recipe, *sources: Tensor) -> Tensor:
    """Right once, wrong twice: what z is made of does not depend on x."""
    return right_sum(recipe, *(source.detach() for source in sources))


def in_the_other_order(packed: Tensor, shape: torch.Size, last: bool) -> Tensor:
    """Bits written in one order of memory and read in the other."""
    return right["unpacked"](packed, shape, not last and len(shape) > 2)


def writes_into_delta(delta: Tensor, y: Tensor) -> Tensor:
    """The right numbers, and delta changed wherever PyTorch lets that happen: not where many numbers share a place."""
    return right["sigmoid_slope"](delta, y) if 0 in delta.stride() else delta.mul_(y) * (1 - y)


def contiguous_only(delta: Tensor, y: Tensor) -> Tensor:
    """Reads delta's memory in order, whatever its strides."""
    storage = delta.as_strided((min(y.numel(), delta.untyped_storage().nbytes() // delta.element_size()),), (1,))
    return right["sigmoid_slope"](storage.repeat(y.numel())[: y.numel()].view(y.shape), y)


def by_pytorch(delta: Tensor, y: Tensor) -> Tensor:
    """PyTorch's own backward: right, and not by hand."""
    return torch.ops.aten.sigmoid_backward(delta, y)


CONV, SPREAD = CONV2D[0], next(case for case in TRANSPOSED if case.name == "stride > kernel")
AVERAGE, WIDE = AVG_POOL2D[2], next(case for case in MAX_POOL2D if "257" in case.name)
RESIZED = INTERPOLATE[6]
OVERLAPPING = ADAPTIVE_AVG_POOL2D[2]
SIGMOID = ELEMENTWISE[0]
RELU6, GELU = (next(case for case in ELEMENTWISE if case.op == op) for op in ("relu6", "gelu"))
BINARY = BINARY_CROSS_ENTROPY[-1]
NORM = BATCH_NORM[2]
NORM_RELU, NORM_RELU_CONV, GELU_CONV = BATCH_NORM_ACTIVATION[0], BATCH_NORM_ACTIVATION_CONV2D[0], ACTIVATION_CONV2D[0]
BITS = RELU_BITS[3]
PLANTED: list[tuple[Any, str, Callable[..., Any], Case, set[Callable[..., None]]]] = [
    (conv, "full_convolve", not_rotated, CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (pool, "window_spread", not_divided, AVERAGE, {checks.equals_pytorch, checks.passes_gradcheck}),
    (pool, "in_image", start_forgotten, WIDE, {checks.equals_pytorch}),
    (conv_pool, "_spread", exchanged_steps, CONV2D_AVG_POOL2D[3], {checks.equals_pytorch}),
    (resize, "interpolate_adjoint", resized_back, RESIZED, {checks.equals_pytorch, checks.passes_gradcheck}),
    (adaptive, "spread", equal_tiles, OVERLAPPING, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Sigmoid, "backward", staticmethod(no_slope), SIGMOID, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Correlate, "backward", staticmethod(bias_not_summed), CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Correlate.eager, "jvp", staticmethod(tangent_of_one_factor), CONV, {checks.passes_gradcheck}),
    (conv, "correlate", axes_exchanged, SPREAD, {checks.equals_pytorch, checks.passes_gradcheck}),
    (FullConvolve, "backward", staticmethod(bias_of_one_row), SPREAD, {checks.equals_pytorch, checks.passes_gradcheck}),
    (
        Normalise,
        "backward",
        staticmethod(statistics_not_derived),
        NORM,
        {checks.equals_pytorch, checks.passes_gradcheck},
    ),
    (conv, "kernel_gradient", in_float32, CONV, {checks.equals_pytorch}),
    (activation, "sigmoid_slope", a_little_off, SIGMOID, {checks.equals_pytorch}),
    (loss, "smooth_slope", linear_from_the_start, SMOOTH_L1_LOSS[0], {checks.equals_pytorch, checks.passes_gradcheck}),
    (loss_of_numbers, "_by_probability", as_if_not_rare, BINARY, {checks.equals_pytorch}),
    (activation, "sigmoid_slope", writes_into_delta, SIGMOID, {checks.takes_any_delta}),
    (activation, "sigmoid_slope", contiguous_only, SIGMOID, {checks.takes_any_delta}),
    (activation, "sigmoid_slope", by_pytorch, SIGMOID, {checks.is_by_hand}),
    (bits, "beyond", ends_included, RELU6, {checks.equals_pytorch, checks.passes_gradcheck}),
    (activation, "gelu_slope", no_density, GELU, {checks.equals_pytorch, checks.passes_gradcheck}),
    (
        NormaliseActivate,
        "backward",
        staticmethod(slope_at_x),
        NORM_RELU,
        {checks.equals_pytorch, checks.passes_gradcheck},
    ),
    (Recipe, "sum", no_shift, NORM_RELU_CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Recipe, "value", not_activated, GELU_CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (Recipe, "sum", constant_scale, NORM_RELU_CONV, {checks.equals_pytorch, checks.passes_gradcheck}),
    (bits, "unpacked", in_the_other_order, BITS, {checks.equals_pytorch, checks.passes_gradcheck}),
]


@pytest.mark.parametrize(("where", "name", "wrong", "case", "catchers"), PLANTED)
def test_caught(
    where: Any,
    name: str,
    wrong: Any,
    case: Case,
    catchers: set[Callable[..., None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each check, which the case passes without the mistake (test_rules.py), finds it; a crash does not count."""
    planted, ran = wrong.__func__ if isinstance(wrong, staticmethod) else wrong, []

    def watched(*args: Any) -> Any:
        ran.append(planted)
        return planted(*args)

    monkeypatch.setattr(where, name, staticmethod(watched) if isinstance(wrong, staticmethod) else watched)
    for check in catchers:
        ran.clear()
        with pytest.raises((AssertionError, GradcheckError)):
            check(case)
        assert ran


def test_the_recorder_sees_backward_operators() -> None:
    """On PyTorch's own conv2d, sigmoid and pooling the recorder does find what is_by_hand forbids."""
    for case in (CONV, AVERAGE, SIGMOID):
        assert any("_backward" in name for name in checks.operators(case.torchs, case))


def test_the_oracle_is_not_ours() -> None:
    """The comparison is with PyTorch's function, not with the rule itself."""
    x, w, b = CONV.inputs()
    ours, torchs = (type(f(x, w, b).grad_fn).__name__ for f in (CONV.ours, CONV.torchs))
    assert (ours, torchs) == ("CorrelateBackward", "ConvolutionBackward0")
