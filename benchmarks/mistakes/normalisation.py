r"""Normalisations.

\hat x = (x - \mu) r with r = 1 / \sqrt{\sigma^2 + \varepsilon}, mean and variance over some dimensions, and
y = g \hat x + b. With h = \delta g and means over the same dimensions

$$ \frac{\partial L}{\partial x} = r (h - \overline h - \hat x \, \overline{h \hat x}) $$

\overline h comes from the mean, the last term from the variance. With given statistics it is r h alone.
"""

from typing import Any

import torch
from torch import Tensor

from .sample import Sample, normal, rule

EPS = 1e-5


def like(p: Tensor, x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The scale or bias of a map beside x: layer norm's lies along the last dimension, batch norm's along the maps."""
    return p if dims == (-1,) else p.view(-1, *[1] * (x.dim() - 2))


def hat(x: Tensor, dims: tuple[int, ...], correction: int = 0) -> tuple[Tensor, Tensor]:
    r = (x.var(dims, correction=correction, keepdim=True) + EPS).rsqrt()
    return (x - x.mean(dims, keepdim=True)) * r, r


def norm(ctx: Any, x: Tensor, g: Tensor, b: Tensor, *, dims, correction=0, **_: Any) -> Tensor:
    ctx.save_for_backward(x, g)
    return like(g, x, dims) * hat(x, dims, correction)[0] + like(b, x, dims)


def summed(t: Tensor, p: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Over all but the dimension of the scale and the bias."""
    return t.flatten(0, -2).sum(0) if dims == (-1,) else t.transpose(0, 1).flatten(1).sum(1)


def backward(ctx: Any, delta: Tensor, *, dims, mean=1.0, variance=1.0, correction=0) -> tuple[Tensor, ...]:
    """`mean` and `variance` are factors of the two terms."""
    x, g = ctx.saved_tensors
    x_hat, r = hat(x, dims)
    h = delta * like(g, x, dims)
    to_x = r * (h - mean * h.mean(dims, keepdim=True) - variance * x_hat * (h * x_hat).mean(dims, keepdim=True))
    return to_x, summed(delta * x_hat, g, dims), summed(delta, g, dims)


def parameters_changed(change):
    def changed(ctx: Any, delta: Tensor, *, dims) -> tuple[Tensor, ...]:
        to_x, to_g, to_b = backward(ctx, delta, dims=dims)
        return to_x, *change(to_g, to_b, delta)

    return changed


def sums_for_means(ctx: Any, delta: Tensor, *, dims) -> tuple[Tensor, ...]:
    x, g = ctx.saved_tensors
    x_hat, r = hat(x, dims)
    h = delta * like(g, x, dims)
    to_x = r * (h - h.sum(dims, keepdim=True) - x_hat * (h * x_hat).sum(dims, keepdim=True))
    return to_x, summed(delta * x_hat, g, dims), summed(delta, g, dims)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """A running mean and variance for each map, as 1 / sqrt."""
    c = torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device).view(-1, *[1] * (x.dim() - 2))
    return c - 0.5, (c + 0.5).rsqrt()


def evaluation(ctx: Any, x: Tensor, g: Tensor, b: Tensor, *, dims) -> Tensor:
    ctx.save_for_backward(x, g)
    mean, r = statistics(x)
    return like(g, x, dims) * (x - mean) * r + like(b, x, dims)


def evaluation_right(ctx: Any, delta: Tensor, *, dims) -> tuple[Tensor, ...]:
    x, g = ctx.saved_tensors
    mean, r = statistics(x)
    return delta * like(g, x, dims) * r, summed(delta * (x - mean) * r, g, dims), summed(delta, g, dims)


def training_rule(ctx: Any, delta: Tensor, *, dims) -> tuple[Tensor, ...]:
    x, g = ctx.saved_tensors
    mean, r = statistics(x)
    x_hat, h = (x - mean) * r, delta * like(g, x, dims)
    to_x = r * (h - h.mean(dims, keepdim=True) - x_hat * (h * x_hat).mean(dims, keepdim=True))
    return to_x, summed(delta * x_hat, g, dims), summed(delta, g, dims)


def root_mean_square(ctx: Any, x: Tensor) -> Tensor:
    ctx.save_for_backward(x)
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt()


def rms_right(ctx: Any, delta: Tensor, *, variance=1.0) -> Tensor:
    (x,) = ctx.saved_tensors
    r = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
    return r * (delta - x * r**2 * (delta * x).mean(-1, keepdim=True))


def rms_constant(ctx: Any, delta: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta * (x.square().mean(-1, keepdim=True) + EPS).rsqrt()


def keep_hat(ctx: Any, x: Tensor) -> Tensor:
    ctx.x_hat, ctx.r = hat(x, (-1,))
    return ctx.x_hat.clone()


def by_kept_hat(ctx: Any, delta: Tensor) -> Tensor:
    """The numbers are right, but autograd does not know how the kept ones depend on x."""
    mean = (delta * ctx.x_hat).mean(-1, keepdim=True)
    return ctx.r * (delta - delta.mean(-1, keepdim=True) - ctx.x_hat * mean)


def unit(ctx: Any, x: Tensor) -> Tensor:
    ctx.save_for_backward(x)
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def unit_right(ctx: Any, delta: Tensor) -> Tensor:
    """Below the smallest norm the divisor is a constant."""
    (x,) = ctx.saved_tensors
    length = x.square().sum(-1, keepdim=True)
    far = length > 1e-24
    r = torch.where(far, length, 1e-24).rsqrt()
    return r * (delta - torch.where(far, x * r * (delta * x * r).sum(-1, keepdim=True), 0.0))


def unit_constant(ctx: Any, delta: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return delta / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


LAYER = {"dims": (-1,)}
BATCH = {"dims": (0, 2, 3)}
ROWS = normal((4, 5), (5,), (5,))
MAPS = normal((3, 2, 2, 3), (2,), (2,))

SAMPLES = [
    Sample("layer norm", rule(norm, backward, **LAYER), ROWS),
    Sample("batch norm: training", rule(norm, backward, **BATCH), MAPS),
    Sample("batch norm: evaluation", rule(evaluation, evaluation_right, **BATCH), MAPS),
    Sample("instance norm", rule(norm, backward, dims=(2, 3)), MAPS),
    Sample("root mean square norm", rule(root_mean_square, rms_right), normal((3, 5))),
    Sample("unit length", rule(unit, unit_right), normal((3, 4))),
    Sample(
        "layer norm: statistics constant",
        rule(norm, backward, mean=0.0, variance=0.0, **LAYER),
        ROWS,
        "statistics taken as constants",
        7,
    ),
    Sample(
        "batch norm: statistics constant",
        rule(norm, backward, mean=0.0, variance=0.0, **BATCH),
        MAPS,
        "statistics taken as constants",
        7,
    ),
    Sample(
        "root mean square norm: root constant",
        rule(root_mean_square, rms_constant),
        normal((3, 5)),
        "statistics taken as constants",
        7,
    ),
    Sample(
        "unit length: length constant", rule(unit, unit_constant), normal((3, 4)), "statistics taken as constants", 7
    ),
    Sample(
        "layer norm: variance constant",
        rule(norm, backward, variance=0.0, **LAYER),
        ROWS,
        "variance taken as constant",
        7,
    ),
    Sample(
        "batch norm: variance constant",
        rule(norm, backward, variance=0.0, **BATCH),
        MAPS,
        "variance taken as constant",
        7,
    ),
    Sample(
        "batch norm: training rule in evaluation",
        rule(evaluation, training_rule, **BATCH),
        MAPS,
        "training rule in evaluation",
        6,
    ),
    Sample(
        "batch norm: variance over N - 1 forward, over N backward",
        rule(norm, backward, correction=1, **BATCH),
        MAPS,
        "constant factor",
        21,
    ),
    Sample("batch norm: sums for means", rule(norm, sums_for_means, **BATCH), MAPS, "divisor missing"),
    Sample(
        "batch norm: scale averaged over the batch",
        rule(norm, parameters_changed(lambda g, b, delta: (g / len(delta), b)), **BATCH),
        MAPS,
        "averaged, not summed",
        19,
    ),
    Sample(
        "layer norm: bias averaged",
        rule(norm, parameters_changed(lambda g, b, delta: (g, delta.mean(0))), **LAYER),
        ROWS,
        "averaged, not summed",
        19,
    ),
    Sample(
        "layer norm: x_hat kept on ctx", rule(keep_hat, by_kept_hat), normal((3, 5)), "second derivative detached", 25
    ),
]
