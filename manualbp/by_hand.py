"""Any model on the rules, unmodified: inside `by_hand()` PyTorch's functions are answered by manualbp.functional's."""

from collections.abc import Callable
from contextlib import ContextDecorator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor
from torch.overrides import TorchFunctionMode

from manualbp import functional as F


class by_hand(ContextDecorator, TorchFunctionMode):  # noqa: N801 it is called like a function
    """Inside `with manualbp.by_hand():`, or in a function decorated by it, any model runs on the rules.

    The functions of torch.nn.functional that manualbp.functional has, and the functions of torch and methods of Tensor
    that equal them, are answered by the rule; all others run as they are (`manualbp.coverage` names those that left a
    node in the graph). What a rule refuses, it refuses here, too: nothing is silently something else.

    It may be nested, and ends where the block ends, by an exception, too. It holds for the thread that entered it.
    The backward pass may run outside: the graph remembers the rules. torch.compile may stand inside or outside, and
    the compiled code is by hand if the context was entered at the call. One thing is out of reach: PyTorch's l1_loss
    loses its argument `weight` on the way to any such context (2.11 to 2.15); call manualbp.functional.l1_loss there.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))


def _max_pool2d_with_indices(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Where torch.nn.functional's dispatch by return_indices ends."""
    return F.max_pool2d(*args[:6], **{**kwargs, "return_indices": True})


def _adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return F.adaptive_max_pool2d(input, output_size, return_indices=True)


def _in_place(rule: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The rule's values written into its input, as PyTorch's functions do that end in an underscore."""
    return lambda input: input.copy_(rule(input))


RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    T.conv1d: F.conv1d,
    T.conv2d: F.conv2d,
    T.conv3d: F.conv3d,
    T.conv_transpose1d: F.conv_transpose1d,
    T.conv_transpose2d: F.conv_transpose2d,
    T.conv_transpose3d: F.conv_transpose3d,
    T.linear: F.linear,
    T.pad: F.pad,
    T.max_pool2d: F.max_pool2d,
    T.max_pool2d_with_indices: _max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d,
    T.max_unpool2d: F.max_unpool2d,
    T.avg_pool2d: F.avg_pool2d,
    T.adaptive_avg_pool2d: F.adaptive_avg_pool2d,
    T.adaptive_max_pool2d: F.adaptive_max_pool2d,
    T.adaptive_max_pool2d_with_indices: _adaptive_max_pool2d_with_indices,
    T.interpolate: F.interpolate,
    T.upsample: F.interpolate,
    T.batch_norm: F.batch_norm,
    T.layer_norm: F.layer_norm,
    torch.layer_norm: F.layer_norm,
    T.group_norm: F.group_norm,
    torch.group_norm: F.group_norm,
    T.dropout: F.dropout,
    torch.dropout: F.dropout,
    T.softmax: F.softmax,
    torch.softmax: F.softmax,
    Tensor.softmax: F.softmax,
    T.log_softmax: F.log_softmax,
    torch.log_softmax: F.log_softmax,
    Tensor.log_softmax: F.log_softmax,
    T.sigmoid: F.sigmoid,
    torch.sigmoid: F.sigmoid,
    Tensor.sigmoid: F.sigmoid,
    torch.sigmoid_: _in_place(F.sigmoid),
    Tensor.sigmoid_: _in_place(F.sigmoid),
    T.tanh: F.tanh,
    torch.tanh: F.tanh,
    Tensor.tanh: F.tanh,
    torch.tanh_: _in_place(F.tanh),
    Tensor.tanh_: _in_place(F.tanh),
    T.relu: F.relu,
    torch.relu: F.relu,
    Tensor.relu: F.relu,
    torch.relu_: partial(F.relu, inplace=True),
    Tensor.relu_: partial(F.relu, inplace=True),
    T.relu6: F.relu6,
    T.hardtanh: F.hardtanh,
    T.leaky_relu: F.leaky_relu,
    T.elu: F.elu,
    T.gelu: F.gelu,
    T.silu: F.silu,
    T.softplus: F.softplus,
    T.hardsigmoid: F.hardsigmoid,
    T.hardswish: F.hardswish,
    T.cross_entropy: F.cross_entropy,
    T.nll_loss: F.nll_loss,
    T.mse_loss: F.mse_loss,
    T.l1_loss: F.l1_loss,
    T.smooth_l1_loss: F.smooth_l1_loss,
    T.binary_cross_entropy_with_logits: F.binary_cross_entropy_with_logits,
}
