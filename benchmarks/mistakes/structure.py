r"""How delta, what is kept, and buffers are handled: the formula is right, and what is around it is not.

Each has its right twin among the other families. Where the mistake would spoil the second derivative, too, the rule
refuses to be differentiated twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .sample import Sample, normal, rule


def keep(ctx: Any, *inputs: Tensor, f: Any) -> Tensor:
    ctx.save_for_backward(*inputs)
    return f(*inputs)


def transposed_read_in_order(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    """As a kernel does that is given an address and extents, but no strides."""
    N, M = delta.shape
    return delta.as_strided((N, M), (M, 1)).T


def memory_of(delta: Tensor) -> Tensor:
    """delta's numbers in the order of the memory, from the start again at its end."""
    whole = torch.empty(0, dtype=delta.dtype).set_(delta.untyped_storage())
    return whole[torch.arange(delta.numel()) % len(whole)].view(delta.shape)


@once_differentiable
def square_from_memory(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return 2 * x * memory_of(delta)


def square_by_view(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return (2 * x.reshape(-1) * delta.view(-1)).view(x.shape)


@once_differentiable
def relu_in_delta(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    delta[x <= 0] = 0
    return delta.clone()


@once_differentiable
def square_in_delta(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta.mul_(2 * x)


@once_differentiable
def square_in_input(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return x.data.mul_(2 * delta).clone()


@once_differentiable
def logits_in_input(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    x.data.copy_(x.data.softmax(-1))
    return delta.unsqueeze(-1) * x.data.clone()


def keep_slope(ctx: Any, x: Tensor) -> Tensor:
    ctx.slope = x.cos()
    return x.sin()


@once_differentiable
def slope_overwritten(ctx: Any, delta: Tensor) -> Tensor:
    return ctx.slope.mul_(delta).clone()


def keep_output(ctx: Any, x: Tensor) -> Tensor:
    y = x.sigmoid()
    ctx.save_for_backward(y)
    return y


@once_differentiable
def output_overwritten(ctx: Any, delta: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    y.data.mul_(1 - y.data)
    return delta * y.data.clone()


def keep_without_saving(ctx: Any, x: Tensor) -> Tensor:
    ctx.x = x
    return x**2


def square_of_unsaved(ctx: Any, delta: Tensor) -> Tensor:
    return 2 * ctx.x * delta


def doubled_behind_its_back(x: Tensor) -> Tensor:
    """What the rule kept is changed after it; autograd would have noticed, had it been saved."""
    z = x.clone()
    y = rule(keep_without_saving, square_of_unsaved)(z)
    with torch.no_grad():
        z.mul_(2)
    return y


class Shared:
    """What all calls of the rule keep in one place."""

    x: Tensor
    mask: Tensor


def keep_shared(ctx: Any, x: Tensor) -> Tensor:
    Shared.x = x
    return x**2


def square_shared(ctx: Any, delta: Tensor) -> Tensor:
    return 2 * Shared.x * delta


def keep_mask_shared(ctx: Any, x: Tensor) -> Tensor:
    Shared.mask = x > 0
    return x.relu()


def relu_shared(ctx: Any, delta: Tensor) -> Tensor:
    return delta * Shared.mask


def relu_in_empty(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    gradient = torch.empty_like(x)
    gradient[x > 0] = delta[x > 0]
    return gradient


def square_but_the_last_row(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    gradient = torch.empty_like(x)
    for n in range(len(x) - 1):
        gradient[n] = 2 * x[n] * delta[n]
    return gradient


def sum_added_to_empty(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    gradient = torch.empty_like(x)
    for column in delta.unbind(-1):
        gradient += column.unsqueeze(-1)
    return gradient


def tanh_kept(ctx: Any, x: Tensor) -> Tensor:
    ctx.y = x.tanh()
    return ctx.y.clone()


def by_tanh_kept(ctx: Any, delta: Tensor) -> Tensor:
    return delta * (1 - ctx.y**2)


def square_of_numbers(ctx: Any, delta: Tensor, *, f: Any) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta * 2 * x.detach()


def two_outputs(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    ctx.save_for_backward(x)
    return x.sin(), x.cos()


def first_output_alone(ctx: Any, to_sin: Tensor, to_cos: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return to_sin * x.cos()


X = normal((4, 5))


def square(backward):
    return rule(keep, backward, f=torch.square)


SAMPLES = [
    Sample(
        "transpose: delta by its address",
        rule(keep, transposed_read_in_order, f=lambda x: x.T.clone()),
        X,
        "delta assumed contiguous",
        2,
    ),
    Sample("square: delta in the order of memory", square(square_from_memory), X, "delta assumed contiguous", 1),
    Sample("square: delta by view", square(square_by_view), X, "delta assumed contiguous", 1),
    Sample("relu: delta written to", rule(keep, relu_in_delta, f=torch.relu), X, "delta written to", 20),
    Sample("square: delta written to", square(square_in_delta), X, "delta written to", 20),
    Sample("square: input written to", square(square_in_input), X, "input written to", 20),
    Sample(
        "logsumexp: input written to",
        rule(keep, logits_in_input, f=lambda x: x.logsumexp(-1)),
        X,
        "input written to",
        20,
    ),
    Sample("sine: kept slope overwritten", rule(keep_slope, slope_overwritten), X, "kept tensor overwritten", 20),
    Sample("sigmoid: output overwritten", rule(keep_output, output_overwritten), X, "kept tensor overwritten", 20),
    Sample("square: kept without saving, then changed", doubled_behind_its_back, X, "kept tensor overwritten", 20),
    Sample("square: input in a common place", rule(keep_shared, square_shared), X, "state shared by calls"),
    Sample("relu: mask in a common place", rule(keep_mask_shared, relu_shared), X, "state shared by calls"),
    Sample("relu: buffer filled where x > 0", rule(keep, relu_in_empty, f=torch.relu), X, "buffer not initialised", 3),
    Sample("square: last row never filled", square(square_but_the_last_row), X, "buffer not initialised", 3),
    Sample(
        "sum: added to what was there",
        rule(keep, sum_added_to_empty, f=lambda x: x.sum(-1, keepdim=True)),
        X,
        "buffer not initialised",
        3,
    ),
    Sample("tanh: output kept on ctx", rule(tanh_kept, by_tanh_kept), X, "second derivative detached", 25),
    Sample("square: input detached", square(square_of_numbers), X, "second derivative detached", 25),
    Sample("sine and cosine: second delta ignored", rule(two_outputs, first_output_alone), X, "delta ignored", 8),
]
