"""Losses of classes. Each rule ends at the loss of a single sample; weighting, sum and mean are arithmetic around it.

cross-entropy  L = -sum_c y_c log yhat_c with yhat = softmax(z)        (lecture 004, eq. 4.2; lecture 001, eq. 1.8)
               dL/dyhat_c = -y_c / yhat_c and dyhat_c/dz_k = yhat_c ([c = k] - yhat_k), so
               dL/dz_k = sum_c -y_c ([c = k] - yhat_k) = yhat_k sum_c y_c - y_k
               which is yhat - y where y sums to 1 (4.2; in numbers 4.3), and yhat - [k = t] for the class t
nll            L = -v_t for the log-probability v of the class t, so dL/dv_c = -[c = t]

Each times delta = dL/dl of its sample. Softmax is computed again in backward from z: its bytes are not kept, and z is
an input, so the second derivative follows from the softmax rule.

Shapes: z, v and y [N, C, ...]; t (int64) and l [N, ...].
"""

from typing import Any

import torch
from torch import Tensor

from manualbp.functional.checks import full_precision, require_real
from manualbp.functional.reduction import reduced, reduction_of
from manualbp.functional.rule import LinearRule, Rule, keep_arguments, run
from manualbp.functional.softmax import LogSoftmax, Softmax
from manualbp.kernels.precision import wide


def _of_class(op: str, v: Tensor, t: Tensor) -> Tensor:
    """v[n, t[n, ...], ...]."""
    try:
        return v.gather(1, t.unsqueeze(1)).squeeze(1)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{op}: target holds a class outside of 0 to {v.shape[1] - 1}, those of the input of shape "
            f"{list(v.shape)}: {error}"
        ) from error


class CrossEntropy(Rule):
    """l = -log softmax(z)_t. dL/dz = delta (softmax(z) - [c = t]); kept: z and t."""

    @staticmethod
    def forward(z: Tensor, t: Tensor) -> Tensor:
        return -_of_class("cross_entropy", torch.log_softmax(z, 1), t)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        z, t = ctx.saved_tensors
        delta = delta.unsqueeze(1)
        return (run(Softmax, z, 1) * delta).scatter_add(1, t.unsqueeze(1), -delta), None

    @staticmethod
    def tangent(ctx: Any, dz: Tensor, _: None) -> Tensor:
        """Dl = sum_c softmax(z)_c dz_c - dz_t."""
        z, t = ctx.saved_tensors
        return (run(Softmax, z, 1) * dz).sum(1) - _of_class("cross_entropy", dz, t)


class SoftCrossEntropy(Rule):
    """l = -sum_c y_c log softmax(z)_c for any y. Kept: z and y.

    dL/dz = delta (softmax(z) sum_c y_c - y)        dL/dy = -delta log softmax(z)
    """

    @staticmethod
    def forward(z: Tensor, y: Tensor) -> Tensor:
        return -(y * torch.log_softmax(z, 1)).sum(1)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, y = ctx.saved_tensors
        z_needed, y_needed = ctx.needs_input_grad
        delta = delta.unsqueeze(1)
        dz = delta * (run(Softmax, z, 1) * y.sum(1, keepdim=True) - y) if z_needed else None
        return dz, -delta * run(LogSoftmax, z, 1) if y_needed else None

    @staticmethod
    def tangent(ctx: Any, dz: Tensor, dy: Tensor) -> Tensor:
        """The sum of both derivatives."""
        z, y = ctx.saved_tensors
        by_z = run(Softmax, z, 1) * y.sum(1, keepdim=True) - y
        return (by_z * dz - run(LogSoftmax, z, 1) * dy).sum(1)


class NegativeLogLikelihood(LinearRule):
    """l = -v_t. dL/dv_c = -delta [c = t]; kept: t."""

    @staticmethod
    def forward(v: Tensor, t: Tensor) -> Tensor:
        return -_of_class("nll_loss", v, t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.classes = inputs[0].shape[1]
        keep_arguments(ctx, inputs[1:])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        dv = delta.new_zeros(delta.shape[0], ctx.classes, *delta.shape[1:])
        return dv.scatter(1, t.unsqueeze(1), -delta.unsqueeze(1)), None


def _with_classes(op: str, z: Tensor, t: Tensor, weight: Tensor | None) -> bool:
    """Refuse shapes and kinds that do not fit: z [N, C, ...], t [N, ...], weight [C]. True if t holds classes."""
    require_real(op, input=z, target=t, weight=weight)
    if not z.is_floating_point():
        raise TypeError(f"{op}: input is {z.dtype}; it must be a floating point tensor")
    axis = 0 if z.ndim == 1 else 1
    if z.ndim == 0 or (t.shape != z.shape and t.shape != z.shape[:axis] + z.shape[axis + 1 :]):
        raise ValueError(
            f"{op}: input has shape {list(z.shape)} and target {list(t.shape)}; for an input [N, C, ...] or [C], "
            "classes must be [N, ...] or [], and probabilities (cross_entropy alone) must be shaped as the input"
        )
    if weight is not None and tuple(weight.shape) != (z.shape[axis],):
        raise ValueError(
            f"{op}: weight has shape {list(weight.shape)}; it must be [{z.shape[axis]}], one number a class"
        )
    classes = t.shape != z.shape
    if classes and t.dtype not in (torch.int64, torch.uint8):
        raise TypeError(f"{op}: target is {t.dtype}; classes must be int64 or uint8")
    if not classes and not t.is_floating_point():
        raise TypeError(f"{op}: target is {t.dtype} and shaped as the input; probabilities must be floating point")
    if classes and weight is not None and weight.requires_grad:
        raise ValueError(f"{op}: weight requires a gradient; none is defined where the target holds classes")
    return classes


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """torch.nn.functional.cross_entropy with a backward pass by hand.

    input: scores before softmax, [N, C, ...] or [C], of a floating dtype; half precision is computed in float32, and
    under autocast the result is float32, too. target: classes [N, ...] or [] (int64, uint8), or probabilities shaped
    as the input. weight: [C]. -> a number, or [N, ...] or [] for reduction "none". "mean" divides by the summed
    weights of the samples that are not ignored (classes) or by the number of samples (probabilities). Kept for
    backward: input and target, not the softmax. Raises ValueError or TypeError for what does not fit; ignore_index
    goes with classes, a gradient of weight with probabilities.
    Source: lecture 004, eq. 4.2; lecture 001, eq. 1.8; derivation at the head of this file.
    """
    op = "cross_entropy"
    reduction = reduction_of(op, reduction, size_average, reduce)
    classes = _with_classes(op, input, target, weight)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{op}: label_smoothing = {label_smoothing}; it must be from 0 to 1")
    if not classes and ignore_index >= 0:
        raise ValueError(f"{op}: ignore_index = {ignore_index}; with probabilities as target it has no meaning")
    (z,) = full_precision(input)
    dtype = z.dtype
    for t in () if classes else (target, weight):
        dtype = dtype if t is None else torch.promote_types(dtype, t.dtype)
    z = z.to(wide(dtype))
    batched = z.ndim > 1
    z, t = (z, target) if batched else (z.unsqueeze(0), target.unsqueeze(0))
    C = z.shape[1]
    w = _of_maps(weight, z, z.dtype)
    if not classes:
        y = t.to(z.dtype) * (1 - label_smoothing) + z.new_full((), label_smoothing) / max(C, 1)
        l, count = run(SoftCrossEntropy, z, y * w), z.numel() / max(C, 1)
    else:
        z, w, t, ignored = _kept_classes(z, w, t, ignore_index)
        v = _of_class(op, w.expand(z.shape), t).masked_fill(ignored, 0)
        count = v.sum()
        if label_smoothing == 0.0:
            l = run(CrossEntropy, z, t) * v
        else:
            y = (w * label_smoothing / max(C, 1)).expand(z.shape)
            y = y.scatter_add(1, t.unsqueeze(1), (1 - label_smoothing) * v.unsqueeze(1))
            l = run(SoftCrossEntropy, z, y)
            count = count.masked_fill(count == 0, torch.nan)  # the part of the class t would be 0 / 0
        l = l.masked_fill(ignored, 0)
    return reduced(l if batched else l.squeeze(0), reduction, count, dtype)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """torch.nn.functional.nll_loss with a backward pass by hand.

    input: log-probabilities [N, C, ...] or [C] of a floating dtype (under autocast: float32). target: classes [N, ...]
    or [] (int64, uint8). weight: [C]. -> a number, or [N, ...] or [] for reduction "none". "mean" divides by the summed
    weights of the samples that are not ignored. Kept for backward: target. Raises ValueError or TypeError for what does
    not fit. Source: lecture 001, eq. 1.8; lecture 004, eq. 4.2; derivation at the head of this file.
    """
    op = "nll_loss"
    reduction = reduction_of(op, reduction, size_average, reduce)
    if not _with_classes(op, input, target, weight):
        raise ValueError(f"{op}: target has the shape of the input, {list(target.shape)}; it must hold classes")
    (v,) = full_precision(input)
    batched = v.ndim > 1
    v, t = (v, target) if batched else (v.unsqueeze(0), target.unsqueeze(0))
    w = _of_maps(weight, v, wide(v.dtype))
    v, w, t, ignored = _kept_classes(v, w, t, ignore_index)
    l = run(NegativeLogLikelihood, v, t)
    l = l.to(wide(v.dtype))
    of_sample = _of_class(op, w.expand(v.shape), t).masked_fill(ignored, 0)
    l = (l * of_sample).masked_fill(ignored, 0)
    return reduced(l if batched else l.squeeze(0), reduction, of_sample.sum(), v.dtype)


def _of_maps(weight: Tensor | None, z: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights of the classes, 1 if there are none, in a shape that broadcasts with z."""
    w = z.new_ones(z.shape[1], dtype=dtype) if weight is None else weight.to(dtype)
    return w.reshape(-1, *[1] * (z.ndim - 2))


def _kept_classes(z: Tensor, w: Tensor, t: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z and w, the classes with the ignored ones put to class 0, and which these are.

    Where all are ignored there may be no class 0; then a class without any score stands for it.
    """
    ignored = t == ignore_index
    if z.shape[1] == 0 and ignored.all():
        z, w = z.sum(1, keepdim=True), w.sum(0, keepdim=True)
    return z, w, t.long().masked_fill(ignored, 0), ignored
