"""Losses that compare numbers one by one. Each rule ends at the loss of a single number, as in loss_of_classes.py.

With the result x, the target t and their difference d = x - t, so that dl/dt = -dl/dx in the first three:

squared error  l = d^2                              dl/dx = 2 d        (lecture 003, eq. 3.1, without its 1/2)
absolute       l = |d|                              dl/dx = sign(d), and 0 at d = 0 as in PyTorch
smooth         l = d^2 / (2 beta) for |d| < beta,   dl/dx = d / beta for |d| < beta, else sign(d)
                   else |d| - beta / 2              (Girshick 2015, eq. 3, with beta = 1; beta l is Huber's, 1964)

Value and slope of the smooth one agree at |d| = beta; the slope's own derivative is 1 / beta inside, else 0.

Cross-entropy of two classes with the scores x and 0, so that softmax gives yhat = s(x) = 1 / (1 + exp(-x)) and 1 - s(x)
(lecture 004, eq. 4.2; lecture 001, eq. 1.8), the first with probability t and, if it is rare, with the weight p:

               l = -p t log s(x) - (1 - t) log(1 - s(x)) = p t log(1 + exp(-x)) + (1 - t) log(1 + exp(x))
               dl/dx = -p t (1 - s(x)) + (1 - t) s(x) = (p t + 1 - t) s(x) - p t, which is yhat - t for p = 1
               l is linear in t, so dl/dt is the loss at t = 1 minus the loss at t = 0

Each times delta = dL/dl. Letters: eps = dL/d(dx).
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from manualbp.functional.activation.sigmoid import Sigmoid
from manualbp.functional.checks import INTEGERS, full_precision, require_real
from manualbp.functional.reduction import reduced, reduction_of
from manualbp.functional.rule import ElementwiseRule, Rule, run
from manualbp.kernels import loss as kernels
from manualbp.kernels.precision import wide


class OfDifference(ElementwiseRule):
    """l = phi(d), d = x - t. dL/dx = delta phi'(d) = -dL/dt, and dl = phi'(d) (dx - dt). Kept: x and t, not d."""

    @classmethod
    def tangent(cls, ctx: Any, dx: Tensor, dt: Tensor, *_: None) -> Tensor:
        """What backward makes of dx - dt."""
        return cls.backward(ctx, dx - dt)[0]


class Square(OfDifference):
    """l = d^2. dL/dx = 2 delta d."""

    @staticmethod
    def forward(x: Tensor, t: Tensor) -> Tensor:
        return (x - t).square()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor | None]:
        x, t = ctx.saved_tensors
        dx = 2 * delta * (x - t)
        return dx, -dx if ctx.needs_input_grad[1] else None


class Absolute(OfDifference):
    """l = |d|. dL/dx = delta sign(d); the sign is constant on each side."""

    @staticmethod
    def forward(x: Tensor, t: Tensor) -> Tensor:
        return (x - t).abs()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor | None]:
        x, t = ctx.saved_tensors
        dx = delta * (x - t).sign()
        return dx, -dx if ctx.needs_input_grad[1] else None


class SmoothAbsolute(OfDifference):
    """l = d^2 / (2 beta) for |d| < beta, else |d| - beta / 2. dL/dx = delta d / beta, else delta sign(d)."""

    @staticmethod
    def forward(x: Tensor, t: Tensor, beta: float) -> Tensor:
        return kernels.smooth_absolute(x, t, beta)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor | None, None]:
        dx = run(SmoothSlope, delta, *ctx.saved_tensors, *ctx.settings)
        return dx, -dx if ctx.needs_input_grad[1] else None, None


class SmoothSlope(ElementwiseRule):
    """dx = delta d / beta for |d| < beta, else delta sign(d). By delta: the same map of eps. Kept: delta, x and t.

    By x: eps delta [|d| < beta] / beta, and by t its negative; the brackets are constant on each side.
    """

    @staticmethod
    def forward(delta: Tensor, x: Tensor, t: Tensor, beta: float) -> Tensor:
        return kernels.smooth_slope(delta, x, t, beta)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (delta, x, t), (beta,) = ctx.saved_tensors, ctx.settings
        dx = eps * delta * ((x - t).abs() < beta).to(x.dtype) / beta
        return run(SmoothSlope, eps, x, t, beta), dx, -dx, None


class TwoClasses(Rule):
    """l = p t log(1 + exp(-x)) + (1 - t) log(1 + exp(x)) for a weight p without a gradient. Kept: x, t and p.

    dL/dx = delta ((p t + 1 - t) s(x) - p t)        dL/dt = delta (l at t = 1 - l at t = 0)
    """

    @staticmethod
    def forward(x: Tensor, t: Tensor, p: Tensor) -> Tensor:
        return kernels.two_classes(x, t, p)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, t, p = ctx.saved_tensors
        x_needed, t_needed, _ = ctx.needs_input_grad
        dx = _by_score(x, t, p) * delta if x_needed else None
        return dx, delta * _by_probability(x, p) if t_needed else None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, dt: Tensor, _: Tensor) -> Tensor:
        """The sum of both derivatives."""
        x, t, p = ctx.saved_tensors
        return _by_score(x, t, p) * dx + _by_probability(x, p) * dt


def _by_score(x: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """(p t + 1 - t) s(x) - p t. A product has the layout of its first factor: x, or with weights p t, as in PyTorch."""
    a = p * t
    s, share = run(Sigmoid, x), a + (1 - t)
    return (share * s if p.ndim else s * share) - a


def _by_probability(x: Tensor, p: Tensor) -> Tensor:
    """The loss at t = 1 minus the loss at t = 0."""
    return run(TwoClasses, x, x.new_ones(()), p) - run(TwoClasses, x, x.new_zeros(()), p)


def _pair(
    op: str, input: Tensor, target: Tensor, weight: Tensor | None = None, integers: bool = False
) -> tuple[Tensor, Tensor]:
    """Result and target in one shape and dtype; refuse what does not fit, and both of integers, where PyTorch does."""
    require_real(op, input=input, target=target, weight=weight)
    if target.shape != input.shape:
        warnings.warn(
            f"{op}: target has shape {list(target.shape)} and input {list(input.shape)}; broadcasting them is likely "
            "to give a loss that is not meant",
            stacklevel=3,
        )
    if weight is not None and weight.shape != input.shape:
        raise ValueError(
            f"{op}: weight has shape {list(weight.shape)} and input {list(input.shape)}; they must be equal"
        )
    x, t = full_precision(input, target)
    dtype = torch.promote_types(x.dtype, t.dtype)
    if not (dtype.is_floating_point or (integers and dtype in INTEGERS)):
        raise TypeError(f"{op}: input is {x.dtype} and target {t.dtype}; at least one must be floating point")
    try:
        x, t = torch.broadcast_tensors(x.to(dtype), t.to(dtype))
    except RuntimeError as error:
        raise ValueError(
            f"{op}: input has shape {list(x.shape)} and target {list(t.shape)}; they do not broadcast"
        ) from error
    return x, t


def _averaged(l: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """The losses, their sum, or their mean, by the weights if there are any.

    A weighted mean of halves is one of float32 products: the delta that comes back from a cast sum is laid out anew.
    """
    dtype, count = l.dtype, l.numel()
    if weight is not None:
        dtype, count = torch.promote_types(dtype, weight.dtype), weight.sum()
        l = l.to(wide(dtype)) * weight.to(wide(dtype)) if reduction == "mean" else l * weight
    mean_of_integers = reduction == "mean" and not dtype.is_floating_point
    return reduced(l, reduction, count, torch.get_default_dtype() if mean_of_integers else dtype)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.mse_loss with a backward pass by hand.

    input and target of one shape (else they are broadcast, with a warning), real dtypes (under autocast: float32);
    weight shaped as the input. -> a number, or the broadcast shape for reduction "none". "mean" divides by the number
    of elements, or by the summed weight. Kept for backward: input and target. Raises ValueError or TypeError for what
    does not fit. Source: lecture 003, eq. 3.1, without its factor 1/2; derivation at the head of this file.
    """
    op = "mse_loss"
    reduction = reduction_of(op, reduction, size_average, reduce)
    x, t = _pair(op, input, target, weight, integers=weight is not None)
    return _averaged(run(Square, x, t), weight, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.l1_loss with a backward pass by hand.

    Shapes, dtypes, weight, reductions and errors as in `mse_loss`; integers, too, but for their mean without a weight.
    The gradient at input = target is 0. Kept for backward: input and target. Source: the head of this file.
    """
    op = "l1_loss"
    reduction = reduction_of(op, reduction, size_average, reduce)
    x, t = _pair(op, input, target, weight, integers=weight is not None or reduction != "mean")
    return _averaged(run(Absolute, x, t), weight, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """torch.nn.functional.smooth_l1_loss with a backward pass by hand.

    Shapes, dtypes and reductions as in `mse_loss`, without its weight. beta: the distance of input and target from
    which on the loss is linear; 0 is `l1_loss`. Kept for backward: input and target. Raises ValueError for a negative
    beta, and as `mse_loss`. Source: Girshick 2015, eq. 3; Huber 1964; derivation at the head of this file.
    """
    op = "smooth_l1_loss"
    reduction = reduction_of(op, reduction, size_average, reduce)
    if not beta >= 0:
        raise ValueError(f"{op}: beta = {beta}; it must be at least 0")
    x, t = _pair(op, input, target, integers=beta == 0 and reduction != "mean")
    return _averaged(run(Absolute, x, t) if beta == 0 else run(SmoothAbsolute, x, t, beta), None, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.binary_cross_entropy_with_logits with a backward pass by hand.

    input: scores before the sigmoid. target: probabilities, of the same shape. Both of floating dtypes; half precision
    is computed in float32. weight multiplies the loss, pos_weight its part for the target: shapes that broadcast to the
    input's, no gradient (as in PyTorch). -> a number, or the input's shape for reduction "none", in the target's dtype
    (under autocast: float32). "mean" divides by the number of elements. Kept for backward: input, target and
    pos_weight, not the sigmoid. Raises ValueError or TypeError for what does not fit.
    Source: lecture 004, eq. 4.2; lecture 001, eq. 1.8, for two classes; derivation at the head of this file.
    """
    op = "binary_cross_entropy_with_logits"
    reduction = reduction_of(op, reduction, size_average, reduce)
    require_real(op, input=input, target=target, weight=weight, pos_weight=pos_weight)
    if target.shape != input.shape:
        raise ValueError(
            f"{op}: target has shape {list(target.shape)} and input {list(input.shape)}; they must be equal"
        )
    for name, t in {"input": input, "target": target}.items():
        if not t.is_floating_point():
            raise TypeError(f"{op}: {name} is {t.dtype}; it must be a floating point tensor")
    for name, w in {"weight": weight, "pos_weight": pos_weight}.items():
        _fits(op, name, w, input)
    x, t = full_precision(input, target)
    result, dtype = t.dtype, wide(torch.promote_types(x.dtype, t.dtype))
    x, t = x.to(dtype), t.to(dtype)
    p = x.new_ones(()) if pos_weight is None else pos_weight.to(dtype).expand(x.shape)
    l = run(TwoClasses, x, t, p)
    if weight is not None:
        l = l * weight.to(dtype)
    return reduced(l, reduction, l.numel(), result)


def _fits(op: str, name: str, w: Tensor | None, x: Tensor) -> None:
    """Refuse a weight that requires a gradient or does not broadcast to the shape of x."""
    if w is None:
        return
    if w.requires_grad:
        raise ValueError(f"{op}: {name} requires a gradient; none is defined")
    missing = x.ndim - w.ndim
    if missing < 0 or any(k not in (1, n) for k, n in zip(w.shape, x.shape[missing:], strict=True)):
        raise ValueError(
            f"{op}: {name} has shape {list(w.shape)} and input {list(x.shape)}; it must broadcast to the input"
        )
