"""Any model on the rules, unmodified: inside `by_hand()` PyTorch's functions are answered by manualbp.functional's."""

import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from manualbp.kernels.transforms import checkpoint_frame
from manualbp.names import RULES

# How a rule refuses: with its own checks, or because PyTorch's forward operations in it cannot take such a tensor.
REFUSALS = (ValueError, TypeError, IndexError, RuntimeError)


class by_hand(ContextDecorator, TorchFunctionMode):  # noqa: N801 it is called like a function
    """Inside `with manualbp.by_hand():`, or in a function decorated by it, any model runs on the rules.

    The functions of torch.nn.functional that manualbp.functional has, and the functions of torch and methods of Tensor
    that equal them, are answered by the rule, each with its own signature; `manualbp.names` has the table. All others
    run as they are, and no model stops: what a rule refuses (interpolate's antialias, complex numbers, `out=`) runs as
    PyTorch's own, and a UserWarning names the function and the reason, once for each. What PyTorch refuses, too, raises
    PyTorch's error. `manualbp.coverage` names what left a node of PyTorch's in the graph, for either reason.

    It may be nested, and ends where the block ends, by an exception, too. It holds for the thread that entered it.
    The backward pass may run outside: the graph remembers the rules. torch.compile may stand inside or outside, and
    the compiled code is by hand if the context was entered at the call; it does not warn. One thing is out of reach:
    PyTorch's l1_loss loses its argument `weight` on the way to any such context (2.14, 2.15); call
    manualbp.functional.l1_loss there. A checkpoint computes again by hand, but for a reentrant one outside.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in RULES:
            return func(*args, **kwargs)
        if not torch.compiler.is_compiling():
            _again_by_hand(checkpoint_frame())
        try:
            return RULES[func](*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as refusal:
            reason = str(refusal)
        y = func(*args, **kwargs)  # where PyTorch refuses, too, this is its error
        if not torch.compiler.is_compiling():
            _warn(func, reason)
        return y


def _again_by_hand(frame: Any) -> None:
    """Let a checkpoint compute again inside `by_hand()`, too: what it then keeps must be what was kept before."""
    if frame is not None and not getattr(frame, "by_hand", False):
        frame.by_hand, frame.recompute_fn = True, by_hand()(frame.recompute_fn)


@lru_cache(1024)  # PyTorch changes the filters of warnings time and again, and Python then forgets what it has shown
def _warn(func: Callable[..., Any], reason: str) -> None:
    """Name the function and the reason, once."""
    name = resolve_name(func) or func.__name__
    warnings.warn(f"by_hand: {name} ran as PyTorch's own: {reason}", stacklevel=3)
