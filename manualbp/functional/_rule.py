"""What every rule shares: how it is run, what it may keep, and how it refuses.

A rule is a `torch.autograd.Function` with `forward`, `setup_context` and `backward`. Its forward-mode derivative
`jvp` stands in a subclass, the rule's `dual`, because torch.compile refuses a Function that defines `jvp`.
"""

import inspect
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from manualbp.kernels.pieces import in_place

EXPORTED = "manualbp: torch.export keeps the forward operations only; the exported program's gradient is PyTorch's"


class Rule(torch.autograd.Function):
    """A forward pass and its backward pass, both made of PyTorch's forward primitives and of other rules.

    `generate_vmap_rule` lets torch.func trace the methods as they stand. A subclass that adds `jvp` is named by the
    attribute `dual` of the rule that it extends; what has no tangent comes to it as zeros.
    """

    generate_vmap_rule = True
    dual: ClassVar[type["Rule"]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.forward.__signature__ = _Positional(list(inspect.signature(cls.forward).parameters.values()))


class _Positional(inspect.Signature):
    """The signature of a forward pass that has no defaults: its arguments are bound as they come.

    PyTorch asks for the signature in every call and binds the arguments to fill in defaults. Worked out anew each
    time, that would be a third of what a call costs.
    """

    def bind(self, *args: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return SimpleNamespace(args=args, kwargs={}, apply_defaults=_nothing)


def _nothing() -> None:
    """There are no defaults to fill in."""


class ElementwiseRule(Rule):
    """A rule of equally shaped tensors, number by number, with a `vmap` of its own: a batch is one more axis.

    So its kernel may work in place, for which vmap lacks some operators. What is no tensor is handed on.
    """

    generate_vmap_rule = False

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """The batch as the first axis of every tensor; what is not batched stands in every sample."""

        def batched(a: Any, d: int | None) -> Any:
            if not isinstance(a, Tensor):
                return a
            return a.movedim(d, 0) if d is not None else a.expand(info.batch_size, *a.shape)

        return run(cls, *(batched(a, d) for a, d in zip(args, in_dims, strict=True))), 0


class ImagesRule(Rule):
    """A rule of tensors [N, ...] that treats each of the N images alike, with a `vmap` of its own: more images.

    So its kernel may work in place and write into parts of its result, which vmap cannot follow.
    """

    generate_vmap_rule = False

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """The batch of every tensor next to N, and part of it; what is not batched stands in every sample."""

        def batched(a: Any, d: int | None) -> Any:
            if not isinstance(a, Tensor):
                return a
            a = a.movedim(d, 0) if d is not None else a.expand(info.batch_size, *a.shape)
            return a.flatten(0, 1)

        y = run(cls, *(batched(a, d) for a, d in zip(args, in_dims, strict=True)))
        return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


def run(rule: type[Rule], *args: Any) -> Any:
    """Apply a rule, with forward mode outside torch.compile, at the precision of its inputs.

    Autocast is settled in the public function that calls a rule. Inside it is switched off, so that a backward
    pass that runs under autocast computes in the precision of the forward pass it belongs to.
    torch.export drops the rule; all that can be done is to say so. Inside torch.compile torch.func's transforms take
    views: PyTorch before 2.15 believes that an argument of the compiled function itself needs no gradient, and gives 0.
    """
    device = args[0].device.type
    compiling = torch.compiler.is_compiling()
    if compiling and not torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting():
        warnings.warn(EXPORTED, stacklevel=1)  # one place for all rules, so that it is shown once
    if compiling and torch._C._are_functorch_transforms_active():
        args = tuple(a.view_as(a) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
    apply = rule.apply if compiling else rule.dual.apply
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return apply(*args)
    return apply(*args)


def evaluate(rule: type[Rule], *args: Any) -> Any:
    """`run`, but where nothing derives, batches or compiles the result: then only the rule's forward pass."""
    if in_place() and not torch.is_autocast_enabled(args[0].device.type):
        return rule.forward(*args)
    return run(rule, *args)


def kept(t: Tensor, needed: bool) -> Tensor:
    """`t` where the backward pass needs it, else an empty tensor (vmap refuses None among saved tensors)."""
    return t if needed else t.new_empty(0)


def keep_factors(ctx: Any, a: Tensor, b: Tensor, *more: Tensor) -> None:
    """Keep what a product of `a` and `b` needs: each factor only if the other one's derivative is asked for."""
    a_needed, b_needed = ctx.needs_input_grad[:2]
    ctx.save_for_backward(kept(a, b_needed), kept(b, a_needed), *more)
    ctx.save_for_forward(a, b, *more)


def refuse_complex(op: str, **tensors: Tensor | None) -> None:
    """Raise TypeError for a complex tensor: the derivations here are for real numbers."""
    for name, t in tensors.items():
        if t is not None and t.is_complex():
            raise TypeError(f"{op}: {name} is {t.dtype}; its backward is derived for real numbers only")


def same_kind(op: str, **tensors: Tensor | None) -> None:
    """Raise TypeError for complex tensors, ValueError where dtypes or devices differ."""
    refuse_complex(op, **tensors)
    present = [(name, t) for name, t in tensors.items() if t is not None]
    first, x = present[0]
    for name, t in present[1:]:
        if t.dtype != x.dtype:
            raise ValueError(f"{op}: {first} is {x.dtype} and {name} is {t.dtype}; the dtypes must be equal")
        if t.device != x.device:
            raise ValueError(f"{op}: {first} is on {x.device} and {name} on {t.device}; the devices must be equal")


def low_precision(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast, the tensors in autocast's dtype (matrix products and convolutions); else unchanged."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return _cast(tensors, torch.get_autocast_dtype(device))


def full_precision(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast, the tensors in float32 (losses, and softmax on CUDA); else unchanged."""
    return _cast(tensors, torch.float32) if torch.is_autocast_enabled(tensors[0].device.type) else tensors


def _cast(tensors: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """As autocast does: floating tensors only, and float64 stays float64."""
    return tuple(
        t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype) for t in tensors
    )
