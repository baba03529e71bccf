"""What a rule is: how it is run, what it keeps, and what its kind says of its tangent.

A rule is one class with `forward`, `setup_context`, `backward` and, for forward mode, `tangent`, each under its
formula. The kinds are base classes: they say what is kept and what the tangent is, where that follows from the kind.

    Rule              keeps its tensors
    LinearRule        y = A x, A made of the other arguments: keeps these, not x; dy = A dx, the rule itself
    BilinearRule      y = B(a, b) + c: keeps of a and b what the other one's derivative needs; dy by the product rule
    ElementwiseRule   y_i = phi(a_i, b_i ...): the Jacobian is diagonal, so dy is what backward makes of the tangents
    ImagesRule        treats each of N images alike: a batch of vmap is more images

A class may be of two kinds: `class Take(LinearRule, ImagesRule)`.
"""

import inspect
import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from manualbp.kernels.transforms import (
    autocasts,
    batch_of,
    batched_by_the_older_vmap,
    each_of,
    forward_mode,
    in_a_mode,
    in_place,
    jit_traced,
    no_mode,
    outside_of_the_older_vmap,
    recorded,
    transformed,
)

RECORDED = (
    "manualbp: torch.export and torch.jit.trace keep the forward operations only; the gradient of what they make is "
    "PyTorch's"
)
OLD_ONNX = (
    "torch.onnx.export with dynamo=False has no names for the operations that rules are made of; "
    "manualbp.restore(model) first (and before it manualbp.unfuse, if it is fused), or dynamo=True"
)


def _one_by_one(rule: type["Rule"], ctx: Any, *deltas: Any) -> Any:
    """The rule's `backward`, and for a batch of deltas that PyTorch's older vmap holds: of one delta after the other.

    is_grads_batched=True makes such a batch, for which operations are missing that a backward pass is made of.
    """
    if not any(map(batched_by_the_older_vmap, deltas)):
        return rule.backward(ctx, *deltas)
    with outside_of_the_older_vmap() as level:
        each = [each_of(d, level) if batched_by_the_older_vmap(d) else None for d in deltas]
        size = next(len(batch) for batch in each if batch is not None)
        made = []
        for i in range(size):
            back = _one_by_one(rule, ctx, *(d if b is None else b[i] for b, d in zip(each, deltas, strict=True)))
            made.append(back if isinstance(back, tuple) else (back,))
    return tuple(None if some[0] is None else batch_of([*some], level) for some in zip(*made, strict=True))


class Rule(torch.autograd.Function):
    """A forward pass and its backward pass, both made of PyTorch's forward primitives and of other rules.

    `generate_vmap_rule` lets torch.func trace the methods as they stand. `eager` is the same rule with the `jvp` that
    PyTorch's forward mode asks for: `tangent`. It is a subclass because torch.compile refuses a Function that has one.
    Its `backward` also takes the batches of deltas that `torch.autograd.grad` makes.
    Tangents come to it as zeros where there are none, and as None for what is no tensor.
    """

    generate_vmap_rule = True
    eager: ClassVar[type["Rule"]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "forward" in vars(cls):
            cls.forward.__signature__ = _Positional(list(inspect.signature(cls.forward).parameters.values()))
        if "jvp" not in vars(cls):  # else it is the subclass that is made here
            own = {"jvp": staticmethod(cls.tangent), "backward": staticmethod(partial(_one_by_one, cls))}
            cls.eager = type(cls.__name__, (cls,), {**own, "__module__": cls.__module__, "__doc__": cls.__doc__})

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the tensors; `ctx.settings` are the other arguments."""
        keep_arguments(ctx, inputs)

    @staticmethod
    def tangent(ctx: Any, *tangents: Any) -> Any:
        """The derivative along the inputs' tangents."""
        raise TypeError("this rule has no forward-mode derivative")


class LinearRule(Rule):
    """y = A x, where A is made of the arguments behind x: tensors first, then settings. Kept: these, and not x."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        keep_arguments(ctx, inputs[1:])

    @classmethod
    def tangent(cls, ctx: Any, *tangents: Any) -> Any:
        """dy = A dx."""
        return run(cls, tangents[0], *ctx.saved_tensors, *ctx.settings)


class BilinearRule(Rule):
    """y = B(a, b) + c, linear in a and in b. c, a tensor or None, is the third argument of a rule that has it.

    Behind it are settings alone. Kept: a if the derivative by b is asked for, b if that by a is.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        keep_factors(ctx, *inputs[:2])
        ctx.settings = [s for s in inputs[2:] if not (s is None or isinstance(s, Tensor))]

    @classmethod
    def tangent(cls, ctx: Any, da: Tensor, db: Tensor, *more: Any) -> Tensor:
        """The product rule: dy = B(da, b) + B(a, db) + dc."""
        a, b = ctx.saved_tensors
        dc = more[: len(more) - len(ctx.settings)]
        return run(cls, da, b, *[None] * len(dc), *ctx.settings) + run(cls, a, db, *dc, *ctx.settings)


class ElementwiseRule(Rule):
    """A rule of equally shaped tensors, number by number. Its Jacobian by each of them is diagonal.

    So the product with a tangent is the product with a delta: dy = sum_k backward(dx_k)_k. `vmap` is its own: a batch
    is one more axis. So its kernel may work in place, for which vmap lacks some operators.
    """

    generate_vmap_rule = False

    @classmethod
    def tangent(cls, ctx: Any, *tangents: Any) -> Any:
        """dy = sum_k backward(dx_k)_k."""
        dy = None
        for k, dx in enumerate(tangents):
            if dx is None:
                continue
            back = cls.backward(ctx, dx)
            part = back[k] if isinstance(back, tuple) else back
            if part is not None:
                dy = part if dy is None else dy + part
        return dy

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """The batch as the first axis of every tensor; what is not batched stands in every sample."""
        return run(cls, *(_batch_first(info, a, d) for a, d in zip(args, in_dims, strict=True))), 0


class ImagesRule(Rule):
    """A rule of tensors [N, ...] that treats each of the N images alike. `vmap` is its own: a batch is more images.

    So its kernel may work in place and write into parts of its result, which vmap cannot follow.
    """

    generate_vmap_rule = False

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """The batch and the N images of every tensor as one axis; what is not batched stands in every sample."""
        batched = (_batch_first(info, a, d) for a, d in zip(args, in_dims, strict=True))
        y = run(cls, *(a.flatten(0, 1) if isinstance(a, Tensor) else a for a in batched))
        return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


def _batch_first(info: Any, a: Any, d: int | None) -> Any:
    """A tensor with the batch as its first axis; what is no tensor as it is."""
    if not isinstance(a, Tensor):
        return a
    return a.movedim(d, 0) if d is not None else a.expand(info.batch_size, *a.shape)


class _Positional(inspect.Signature):
    """The signature of a forward pass that has no defaults: its arguments are bound as they come.

    PyTorch asks for the signature in every call and binds the arguments to fill in defaults. Worked out anew each
    time, that would be a third of what a call costs.
    """

    def bind(self, *args: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return SimpleNamespace(args=args, kwargs={}, apply_defaults=_nothing)


def _nothing() -> None:
    """There are no defaults to fill in."""


def run(rule: type[Rule], *args: Any) -> Any:
    """Apply a rule, with forward mode outside torch.compile, at the precision of its inputs.

    Autocast is settled in the public function that calls a rule. Inside it is switched off, so that a backward
    pass that runs under autocast computes in the precision of the forward pass it belongs to.
    torch.export and torch.jit.trace (so ONNX's exporters) drop the rule: they get the forward pass itself, whose
    gradient is PyTorch's, and all that can be done is to say so. Inside torch.compile torch.func's transforms take
    views: PyTorch before 2.15 believes that an argument of the compiled function itself needs no gradient, and gives 0.
    Where nothing derives, batches or compiles the result, as in most backward passes, the rule is its forward pass: a
    node that nobody asks costs as much as the smaller kernels. `by_hand()` and other modes do not answer what a rule
    calls.
    """
    if in_a_mode():
        with no_mode():
            return _applied(rule, *args)
    return _applied(rule, *args)


def _applied(rule: type[Rule], *args: Any) -> Any:
    device = args[0].device.type
    compiling = torch.compiler.is_compiling()
    if compiling and transformed():
        args = tuple(a.view_as(a) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
    apply = rule.apply if compiling else rule.forward if in_place() else rule.eager.apply
    if recorded():
        if jit_traced() and torch.onnx.is_in_onnx_export():
            raise TypeError(OLD_ONNX)
        if not torch.compiler.is_dynamo_compiling():
            warnings.warn(RECORDED, stacklevel=1)  # one place for all rules, so that it is shown once
        apply = rule.forward
    if autocasts(device):
        with torch.autocast(device, enabled=False):
            return _own(rule, apply(*args))
    return _own(rule, apply(*args))


def _own(rule: type[Rule], y: Any) -> Any:
    """y as it is, but where PyTorch's vmap of the rule made it: a copy, as that may be a view that must not be changed.

    Only then may an operation in place follow, as it may follow PyTorch's layers. None may follow what is expanded.
    """
    if not (transformed() and rule.generate_vmap_rule):
        return y
    if isinstance(y, tuple):
        return tuple(_own(rule, part) for part in y)
    return y.clone() if isinstance(y, Tensor) and 0 not in y.stride() else y


def keep(ctx: Any, *tensors: Tensor) -> None:
    """Keep the tensors for `backward` and, where tangents are carried along, for `tangent`.

    Only there: an output that is kept for `tangent` is in a cycle with its node, which the cyclic collector alone ends.
    """
    ctx.save_for_backward(*tensors)
    if forward_mode():
        ctx.save_for_forward(*tensors)


def keep_arguments(ctx: Any, arguments: tuple[Any, ...]) -> None:
    """Keep the tensors among the arguments; the others are `ctx.settings`."""
    keep(ctx, *[a for a in arguments if isinstance(a, Tensor)])
    ctx.settings = [a for a in arguments if not isinstance(a, Tensor)]


def kept(t: Tensor, needed: bool) -> Tensor:
    """`t` where backward needs it or `tangent` may, else an empty tensor (vmap refuses None among saved tensors)."""
    return t if needed or forward_mode() else t.new_empty(0)


def keep_factors(ctx: Any, a: Tensor, b: Tensor, *more: Tensor) -> None:
    """Keep what a product of `a` and `b` needs: each factor only if the other one's derivative is asked for."""
    a_needed, b_needed = ctx.needs_input_grad[:2]
    keep(ctx, kept(a, b_needed), kept(b, a_needed), *more)
