"""A module's forward exchanged by its class, so that nothing in the module refers to the module.

What stands in a module's `__dict__` is shared by its shallow copies (copy.copy, nn.DataParallel's replicas): a forward
there that knows its module would run the original's layers in every copy. A class knows no module: a subclass of the
module's own, with another forward before it, is right for every copy.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from torch import nn

_MADE: WeakValueDictionary[tuple[type, type], type] = WeakValueDictionary()


def refuse_script(module: nn.Module) -> NoReturn:
    """torch.jit.script asks each module before it reads its source: a rule is nothing that it can compile."""
    raise TypeError(
        f"torch.jit.script: {type(module).__name__} is by hand, which TorchScript cannot compile; "
        "manualbp.restore(model) first (and before it manualbp.unfuse, if it is fused), or torch.jit.trace"
    )


def refuse_quantisation(module: nn.Module, qconfig: Any) -> None:
    """torch.ao.quantization gives each layer its setting, and passes over a class that it does not know in silence."""
    if qconfig is not None:
        raise TypeError(
            f"torch.ao.quantization: {type(module).__name__} is by hand, which it would leave as it is; "
            "manualbp.restore(model) first (and before it manualbp.unfuse, if it is fused)"
        )


class Exchanged:
    """Stands before a module's class, with another forward. It is pickled as the module's class and what is put before.

    So the file needs no class that was made here, and unpickling makes it again.
    """

    __prepare_scriptable__ = refuse_script

    def __reduce_ex__(self, protocol: Any) -> Any:
        made, arguments, *rest = super().__reduce_ex__(protocol)
        before, kind = taken_apart(type(self))
        return _again, (before, made, [kind if a is type(self) else a for a in arguments]), *rest


def _again(before: list[type], make: Callable[..., nn.Module], arguments: list[Any]) -> nn.Module:
    """An unpickled module, with the same put before its class."""
    module = make(*arguments)
    module.__class__ = put_together(before, type(module))
    return module


def put_before(module: nn.Module, exchanged: type[Exchanged]) -> None:
    """Let the module's class be a subclass of its own that has the forward of `exchanged`; one for all of a kind.

    Raises TypeError where the class allows no such subclass.
    """
    module.__class__ = put_together([exchanged], type(module))


def take_away(module: nn.Module, exchanged: type[Exchanged]) -> bool:
    """Give back the class that `put_before` found. -> whether it did: a class that was exchanged since then stays."""
    kind = type(module)
    if not is_exchanged(kind) or kind.__bases__[0] is not exchanged:
        return False
    module.__class__ = kind.__bases__[1]
    return True


def put_together(before: list[type], kind: type) -> type:
    """The class with each of `before` put before it, the last one first."""
    for exchanged in reversed(before):
        made = _MADE.get((exchanged, kind))
        if made is None:
            names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
            names["forward"] = _signed(exchanged.forward, kind.forward)
            made = _MADE[exchanged, kind] = type(kind)(kind.__name__, (exchanged, kind), names)
        kind = made
    return kind


def _signed(forward: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    """The forward with the signature of the module's own, which torch.export and torch.fx ask for."""

    @wraps(own)
    def signed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    return signed


def taken_apart(kind: type) -> tuple[list[type], type]:
    """What was put before a class, and the class itself; the inverse of `put_together`."""
    before = []
    while is_exchanged(kind):
        first, kind = kind.__bases__
        before.append(first)
    return before, kind


def is_exchanged(kind: type) -> bool:
    """Whether the class was made here."""
    return len(kind.__bases__) == 2 and _MADE.get((kind.__bases__[0], kind.__bases__[1])) is kind


def plain(kind: type) -> type:
    """The class that a module had before anything was put before it."""
    return taken_apart(kind)[1]
