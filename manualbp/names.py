"""PyTorch's functions, and the rule that answers each of them inside `by_hand()`.

Where a function of PyTorch has other arguments than the rule, or in another order, a function here has them and calls
the rule. PyTorch reads the arguments by its own signature first, so what that does not have never comes here. What the
rule cannot do is refused; `by_hand()` then runs PyTorch's own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp import functional as F
from manualbp.functional.activation.in_place import InPlace, write
from manualbp.functional.activation.sigmoid import Sigmoid, SigmoidInPlace, Tanh, TanhInPlace
from manualbp.functional.rule import Rule


def refuse_out(out: Any) -> None:
    if out is not None:
        raise ValueError("out = a tensor to write into; a rule makes a new one")


def or_out(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule, for a function of PyTorch that takes `out=` as well."""

    def with_out(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        refuse_out(out)
        return rule(*args, **kwargs)

    return with_out


def in_place(rule: type[InPlace], apart: type[Rule]) -> Callable[[Tensor], Tensor]:
    """The rule that writes into its input, as PyTorch's functions do that end in an underscore."""

    def of(input: Tensor) -> Tensor:
        if not input.is_floating_point():
            raise TypeError(f"input is {input.dtype}; to be written into it must be floating point")
        return write(rule, apart, input)

    return of


def elu_(input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    if (scale, input_scale) != (1, 1):
        raise ValueError(f"elu_: scale = {scale} and input_scale = {input_scale}; both must be 1")
    return F.elu(input, alpha, inplace=True)


def softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None, *, out: Tensor | None = None) -> Tensor:
    """That of torch and Tensor: the third argument is dtype, not _stacklevel."""
    refuse_out(out)
    return F.softmax(input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None, *, out: Tensor | None = None) -> Tensor:
    refuse_out(out)
    return F.log_softmax(input, dim, dtype=dtype)


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return F.dropout(input, p, train)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    return F.dropout(input, p, train, inplace=True)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    return F.group_norm(input, num_groups, weight, bias, eps)


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """That of torch: weight and bias before the statistics."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """Where torch.nn.functional's dispatch by return_indices ends."""
    return F.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    return F.adaptive_max_pool2d(input, output_size, return_indices=True)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    return F.pad(input, pad, "constant", value)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 0
) -> Tensor:
    """That of torch: reduction is a number, and 0 where none is given."""
    if reduction not in (0, 1, 2):
        raise ValueError(f"reduction = {reduction}; it must be 0, 1 or 2")
    how = ("none", "mean", "sum")[reduction]
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=how, pos_weight=pos_weight)


RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    T.conv1d: F.conv1d,
    T.conv2d: F.conv2d,
    T.conv3d: F.conv3d,
    T.conv_transpose1d: F.conv_transpose1d,
    T.conv_transpose2d: F.conv_transpose2d,
    T.conv_transpose3d: F.conv_transpose3d,
    T.linear: or_out(F.linear),
    T.pad: F.pad,
    torch.constant_pad_nd: constant_pad_nd,
    T.max_pool2d: F.max_pool2d,
    T.max_pool2d_with_indices: max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d,
    T.max_unpool2d: F.max_unpool2d,
    T.avg_pool2d: or_out(F.avg_pool2d),
    T.adaptive_avg_pool2d: F.adaptive_avg_pool2d,
    T.adaptive_max_pool2d: F.adaptive_max_pool2d,
    T.adaptive_max_pool2d_with_indices: adaptive_max_pool2d_with_indices,
    T.interpolate: F.interpolate,
    T.upsample: upsample,
    T.batch_norm: F.batch_norm,
    torch.batch_norm: batch_norm,
    T.layer_norm: F.layer_norm,
    torch.layer_norm: layer_norm,
    T.group_norm: F.group_norm,
    torch.group_norm: group_norm,
    T.dropout: F.dropout,
    torch.dropout: dropout,
    torch.dropout_: dropout_,
    T.softmax: F.softmax,
    torch.softmax: softmax,
    Tensor.softmax: softmax,
    torch.special.softmax: softmax,
    T.log_softmax: F.log_softmax,
    torch.log_softmax: log_softmax,
    Tensor.log_softmax: log_softmax,
    torch.special.log_softmax: log_softmax,
    T.sigmoid: F.sigmoid,
    torch.sigmoid: or_out(F.sigmoid),
    torch.special.expit: or_out(F.sigmoid),
    Tensor.sigmoid: F.sigmoid,
    torch.sigmoid_: in_place(SigmoidInPlace, Sigmoid),
    Tensor.sigmoid_: in_place(SigmoidInPlace, Sigmoid),
    T.tanh: F.tanh,
    torch.tanh: or_out(F.tanh),
    Tensor.tanh: F.tanh,
    torch.tanh_: in_place(TanhInPlace, Tanh),
    Tensor.tanh_: in_place(TanhInPlace, Tanh),
    T.relu: F.relu,
    torch.relu: F.relu,
    Tensor.relu: F.relu,
    torch.relu_: partial(F.relu, inplace=True),
    Tensor.relu_: partial(F.relu, inplace=True),
    T.relu6: F.relu6,
    T.hardtanh: F.hardtanh,
    T.hardtanh_: partial(F.hardtanh, inplace=True),
    T.leaky_relu: F.leaky_relu,
    T.leaky_relu_: partial(F.leaky_relu, inplace=True),
    T.elu: F.elu,
    T.elu_: elu_,
    T.selu: F.selu,
    torch.selu: F.selu,
    torch.selu_: partial(F.selu, inplace=True),
    T.celu: F.celu,
    torch.celu: F.celu,
    torch.celu_: partial(F.celu, inplace=True),
    T.gelu: or_out(F.gelu),
    T.silu: F.silu,
    T.mish: F.mish,
    T.softplus: or_out(F.softplus),
    T.softsign: F.softsign,
    T.logsigmoid: or_out(F.logsigmoid),
    T.hardsigmoid: F.hardsigmoid,
    T.hardswish: F.hardswish,
    T.hardshrink: or_out(F.hardshrink),
    Tensor.hardshrink: F.hardshrink,
    T.softshrink: or_out(F.softshrink),
    T.threshold: F.threshold,
    torch.threshold: or_out(F.threshold),
    torch.threshold_: partial(F.threshold, inplace=True),
    T.prelu: F.prelu,
    Tensor.prelu: F.prelu,
    T.cross_entropy: F.cross_entropy,
    T.nll_loss: F.nll_loss,
    T.mse_loss: F.mse_loss,
    T.l1_loss: F.l1_loss,
    T.smooth_l1_loss: F.smooth_l1_loss,
    T.binary_cross_entropy_with_logits: F.binary_cross_entropy_with_logits,
    torch.binary_cross_entropy_with_logits: binary_cross_entropy_with_logits,
}
