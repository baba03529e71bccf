"""A forward that `fuse` wrote: its source, the structure that it was written for, and the class that runs it."""

import linecache
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from manualbp.by_hand import by_hand
from manualbp.classes import put_together, taken_apart
from manualbp.convert import ForwardByHand, Fused
from manualbp.fuse.trace import has_hooks

WRITTEN = "_manualbp_fused"  # in a fused module's __dict__: a Written for each mode
# A layer's settings that decide what it is taken together with; the others are asked for when it runs.
SETTINGS = (
    *("inplace", "padding_mode", "return_indices", "padding", "ceil_mode", "divisor_override", "p", "approximate"),
    *("negative_slope", "alpha", "min_val", "max_val", "beta", "threshold"),
)


@dataclass(frozen=True)
class Part:
    """What a module inside must be for the written forward to hold. It is found by its parent's place among the parts.

    bypassed: the written forward does not call it, so that it must have no hooks and the training flag of the trace.
    children: the names of its modules, where the forward of a container was followed; settings: of a layer, in order.
    """

    parent: int
    name: str
    kind: type[nn.Module]
    bypassed: bool
    training: bool
    children: tuple[str, ...] | None
    settings: tuple[tuple[str, Any], ...]

    def __reduce__(self) -> Any:
        before, kind = taken_apart(self.kind)  # a class that `convert` made cannot be pickled
        return _part, (before, kind, self.__dict__ | {"kind": None})


def _part(before: list[type], kind: type, fields: dict[str, Any]) -> Part:
    return Part(**{**fields, "kind": put_together(before, kind)})


class Written:
    """The source of a forward, of self and the module's arguments, with what its names stand for. It can be pickled.

    It stands in the module's __dict__ and refers to no module: copies and replicas share it.
    """

    def __init__(self, title: str, source: str, names: dict[str, Any], takes: list[str], required: set[str]) -> None:
        self.title, self.source, self.takes, self.required = title, source, takes, required
        self.parts: tuple[Part, ...] = ()
        self.children: tuple[str, ...] | None = None
        self.forward = self._compiled(names)

    def _compiled(self, names: dict[str, Any]) -> Callable[..., Any]:
        """The function, whose lines a traceback shows."""
        file = f"<manualbp.fuse {self.title} {zlib.crc32(self.source.encode()):08x}>"
        linecache.cache[file] = len(self.source), None, self.source.splitlines(keepends=True), file
        code = compile(self.source, file, "exec")
        (inner,) = (c for c in code.co_consts if hasattr(c, "co_names"))
        made = {name: names[name] for name in (*code.co_names, *inner.co_names) if name in names}
        self.names = dict(made)
        exec(code, made)
        return made["forward"]

    def __getstate__(self) -> dict[str, Any]:
        names = {name: _Module(a.__name__) if isinstance(a, ModuleType) else a for name, a in self.names.items()}
        return {**self.__dict__, "forward": None, "names": names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forward = self._compiled(
            {name: import_module(a.name) if isinstance(a, _Module) else a for name, a in self.names.items()}
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Written":
        return self  # nothing in it belongs to a module

    def holds(self, root: nn.Module) -> bool:
        """Whether the module is as it was when its forward was traced: a look at the modules that this one replaces."""
        if torch_module._has_any_global_hook() or tuple(root._modules) != self.children:
            return False
        inside: list[Any] = [root._modules]  # of the root and of each part
        for part in self.parts:
            m = inside[part.parent].get(part.name)
            if type(m) is not part.kind or (part.bypassed and (m.training is not part.training or has_hooks(m))):
                return False
            modules, own = m._modules, m.__dict__
            if part.children is not None and tuple(modules) != part.children:
                return False
            for name, value in part.settings:
                if own.get(name) != value:
                    return False
            inside.append(modules)
        return True


@dataclass(frozen=True)
class _Module:
    """A module of Python's, by its name."""

    name: str


class FusedForward(Fused):
    """Stands before a module's class: the forward that `fuse` wrote, where the module is what it was written for.

    Called with more than what it must be given, the module's own forward runs: the graph is that of the defaults.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        by_mode = self.__dict__.get(WRITTEN)
        written = by_mode and by_mode.get(self.training)
        if not written or {*written.takes[: len(args)], *kwargs} != written.required:
            return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if not written.holds(self):
            warnings.warn(
                f"manualbp.fuse: {type(self).__name__} is not as it was when it was fused (a layer, a setting, a hook, "
                "a training flag); its own forward runs. Fuse again: unfuse, then fuse",
                stacklevel=5,
            )
            return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(self, ForwardByHand):
            return written.forward(self, *args, **kwargs)
        with by_hand():
            return written.forward(self, *args, **kwargs)
