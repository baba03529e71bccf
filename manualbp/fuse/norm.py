"""Batch norm, activation and convolution that together keep one tensor, the input of the first.

    z = batch_norm(x) = s x + t        a = phi(z)        y = correlate(a, w) + b        s = r gamma, t = beta - mu s

The chain rule is that of the three, one after the other (functional.norm, functional.conv):

    dL/dw = kernel_gradient(a, delta)    dL/da = full_convolve(delta, w)    dL/dz = (dL/da) phi'(z)    dL/dx by dL/dz

It asks for x, z and a. z and a are two steps from x, number by number, and are computed again in backward, each where
it is needed (fuse.recompute). Kept: x, w, gamma, and four numbers a map. PyTorch keeps x, a, and z as well
where phi' is not a function of a.

Shapes: x, z, a [N, C, ...], y [N, O, I, J]; s, t, gamma, beta [C]. Letters: phi the activation, gamma and beta batch
norm's weight and bias, mu and r its mean and the reciprocal of its deviation.
"""

from typing import Any

from torch import Tensor

from manualbp.functional.activation.table import ACTIVATIONS, Activation
from manualbp.functional.checks import low_precision, require_real
from manualbp.functional.conv import correlated
from manualbp.functional.norm import Normalise, batch_sharing, gradients, tangents
from manualbp.functional.norm_given import NormaliseBy, kept_weight
from manualbp.functional.rule import Rule, keep, kept, run
from manualbp.fuse.recompute import Layer, Reactivate, Recipe, factor_again
from manualbp.kernels import norm as kernels
from manualbp.kernels.geometry import Geometry, Size, convolution
from manualbp.kernels.norm import Sharing, as_line
from manualbp.kernels.precision import wide
from manualbp.kernels.transforms import forward_mode


def require_activation(op: str, activation: str) -> None:
    """Refuse a name that is not in the table."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation = {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")


class NormaliseActivate(Rule):
    """a = phi(y) with the y of Normalise; mu and r are outputs, too.

    dL/dy = delta phi'(s x + t)    s = r w, t = b - mu s    the others by dL/dy as Normalise's; kept: x, w, b, mu and r
    """

    @staticmethod
    def forward(
        x: Tensor,
        w: Tensor | None,
        b: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        how: Sharing,
        phi: Activation,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if kernels.activates(phi.name, x, w, b, mean, var):
            return kernels.normalise_activate(x, w, b, mean, var, how, phi.name)
        y, mu, r = kernels.normalise(x, w, b, mean, var, how)
        rule, *settings = phi.rule
        return rule.forward(y, *settings), mu, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, w, b, _, _, ctx.how, ctx.phi = inputs
        _, mu, r = output
        needed = any(ctx.needs_input_grad)
        w, ctx.dtypes = kept_weight(w, b, r)
        b = r.new_empty(0) if b is None else b
        keep(ctx, *[kept(t, needed) for t in (x, w, b, mu, r)])

    @staticmethod
    def backward(ctx: Any, delta: Tensor, eps: Tensor, rho: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, mu, r = ctx.saved_tensors
        weight, bias = _given(w), _given(b)
        if kernels.activates(ctx.phi.name, x, weight, bias, delta=delta):
            of_inputs = gradients(ctx, delta, eps, rho, x, w, mu, r, b=bias, phi=ctx.phi.name)
        else:
            g = _recipe(ctx.phi).slope_again(delta, x, *as_line(mu.flatten(), r.flatten(), weight, bias))
            of_inputs = gradients(ctx, g, eps, rho, x, w, mu, r)
        return *of_inputs, None, None, None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, dw: Tensor | None, db: Tensor | None, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise's, and the slope."""
        x, w, b, mu, r = ctx.saved_tensors
        dy, dmu, dr = tangents(ctx, dx, dw, db, x, w, mu, r)
        line = as_line(mu.flatten(), r.flatten(), _given(w), _given(b))
        return _recipe(ctx.phi).slope_again(dy, x, *line), dmu, dr


def _given(t: Tensor) -> Tensor | None:
    """What was kept: an empty tensor where there is none."""
    return t if t.numel() else None


def _recipe(phi: Activation) -> Recipe:
    """How phi(s x + t) is made."""
    return Recipe(phi, ("affine",))


def batch_norm_with_scale(op: str, x: Tensor, phi: Activation | None, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(phi(y), s, t) with y = s x + t, map by map: batch norm, and what it comes to; no phi: y itself.

    Settings: as those of `batch_norm`.
    """
    running_mean, running_var, w, b, training, _, eps = settings
    how = batch_sharing(op, x, *settings)
    if how is None:
        raise ValueError(f"{op}: input has shape {list(x.shape)}; it must be [N, C] or [N, C, ...]")
    if training or running_mean is None or running_var is None:  # an empty input needs none
        rule = (Normalise,) if phi is None else (NormaliseActivate, phi)
        y, mu, r = run(rule[0], x, w, b, running_mean, running_var, how, *rule[1:])
        return y, *as_line(mu.flatten(), r.flatten(), w, b)
    mu, r = running_mean.clone(), (running_var.to(wide(x.dtype)) + eps).rsqrt()  # a training pass may change them
    s, t = as_line(mu, r, w, b)
    if phi is not None and not forward_mode() and kernels.activates(phi.name, x, s, t):
        return kernels.affine(x, s, t, phi.name), s, t
    y = run(NormaliseBy, x, w, b, running_mean, running_var, how)
    return y if phi is None else run(Reactivate, y, _recipe(phi), x, s, t), s, t


def correlation(a: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Layer | Tensor:
    """The layer correlate(a, w) + b, for `factor_again`; its output where a cannot be computed again."""
    if a.ndim == len(g.x_size) + 1 or tuple(a.shape[2:]) != g.x_size:
        return correlated(a, w, b, g)  # one image only, or an odd pixel, which the recipe does not know
    return "correlate", g.of(a, w), w, b


def batch_norm_activation(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "relu",
) -> Tensor:
    """phi(batch_norm(input)), keeping the input alone.

    input [N, C] or [N, C, ...] and the others as in `batch_norm`; activation: a name of functional.activation.table
    ("relu", "silu", "gelu_tanh" ...), with PyTorch's default settings -> the same shape and dtype as input. Kept for
    backward: input, weight, four numbers a map; not the normalised input, not the output. Raises as `batch_norm`, and
    ValueError for an unknown activation. Source: Ioffe and Szegedy 2015, sec. 3.2; derivation at the head of this file.
    """
    op = "batch_norm_activation"
    require_activation(op, activation)
    settings = running_mean, running_var, weight, bias, training, momentum, eps
    return batch_norm_with_scale(op, input, ACTIVATIONS[activation], *settings)[0]


def batch_norm_activation_conv2d(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "relu",
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d(phi(batch_norm(input))), keeping the input alone.

    input [N, C, H, W]; the running statistics, norm_weight and norm_bias [C] as in `batch_norm`, activation as in
    `batch_norm_activation`, weight [O, C / groups, P, Q], bias [O] and the rest as in `conv2d` -> [N, O, I, J]. Kept
    for backward: input, the weights, four numbers a map; neither the normalised input nor what the convolution takes
    (but for padding="same" with an odd pixel). Raises as these. Source: Ioffe and Szegedy 2015, sec. 3.2; lecture 002,
    eq. 2.2 to 2.4; derivation at the head of this file.
    """
    op = "batch_norm_activation_conv2d"
    require_activation(op, activation)
    norm = {
        "running_mean": running_mean,
        "running_var": running_var,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
    }
    require_real(op, input=input, **norm, weight=weight, bias=bias)
    if input.ndim != 4:
        raise ValueError(f"{op}: input has shape {list(input.shape)}; it must be [N, C, H, W]")
    phi, settings = ACTIVATIONS[activation], (*norm.values(), training, momentum, eps)
    a, s, t = batch_norm_with_scale(op, input, phi, *settings)
    a, w, b = low_precision(op, input=a, weight=weight, bias=bias)
    g = convolution(op, a.shape, w.shape, stride, padding, dilation, groups, b)
    return factor_again(a, [correlation(a, w, b, g)], _recipe(phi), (input, s, t))[0]


def activation_conv2d(
    input: Tensor,
    activation: str,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d(phi(input)), keeping the input alone.

    input [N, C, H, W] or [C, H, W], activation as in `batch_norm_activation`, weight, bias and the rest as in `conv2d`
    -> [N, O, I, J] or [O, I, J]. It pays for what keeps its input ("gelu", "gelu_tanh", "silu", "hardswish"): then
    that serves the convolution as well. Kept for backward: input, weight (but for padding="same" with an odd pixel).
    Raises as `conv2d`, and ValueError for an unknown activation. Source: lecture 003, eq. 3.2; lecture 002, eq. 2.2 to
    2.4; derivation at the head of this file.
    """
    op = "activation_conv2d"
    require_activation(op, activation)
    require_real(op, input=input)
    recipe = Recipe(ACTIVATIONS[activation], ("plain",))
    x = input if input.ndim != 3 else input.unsqueeze(0)
    a = run(Reactivate, x, recipe, x.view_as(x))  # torch.compile refuses one tensor in two places
    a, w, b = low_precision(op, input=a, weight=weight, bias=bias)
    g = convolution(op, a.shape, w.shape, stride, padding, dilation, groups, b)
    (y,) = factor_again(a, [correlation(a, w, b, g)], recipe, (x,))
    return y if input.ndim != 3 else y.squeeze(0)
