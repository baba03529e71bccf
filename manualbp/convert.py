"""A model's layers exchanged for those of manualbp.nn, in place, and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import jit, nn
from torch.nn.modules.lazy import LazyModuleMixin

from manualbp import nn as by_hand_layers
from manualbp.by_hand import by_hand
from manualbp.classes import Exchanged, plain, put_before, take_away
from manualbp.text import WIDTH, table

LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(by_hand_layers, name) for name in by_hand_layers.__all__ if hasattr(nn, name)
}
# manualbp.nn's classes, and torch.nn's of the same name where there is one.
BUILT: dict[type, type[nn.Module] | None] = {
    layer: getattr(nn, name, None)
    for name in by_hand_layers.__all__
    if isinstance(layer := getattr(by_hand_layers, name), type)
}
NO_ARITHMETIC = (
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict),
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)
WAS = "_manualbp_was"  # in a converted module's __dict__: the class that it had
BECOMES = (
    "cls_to_become"  # where a lazy layer has the class that it will have: in its class, if converted in its __dict__
)


@dataclass(frozen=True)
class Row:
    """What happened to a module: `path` in the model ("" for the model itself), its class, whether it was converted."""

    path: str
    kind: str
    converted: bool
    remark: str


@dataclass(frozen=True)
class Report:
    """What `convert`, `restore`, `fuse` or `unfuse` did, a row a module (or a place, of several); prints as a table.

    The table is 100 columns wide at most; `wide()` has a line a row, however long.
    code: the source of the forwards that `fuse` wrote.
    """

    title: str
    rows: tuple[Row, ...]
    unit: str = "modules"
    code: str = ""

    @property
    def converted(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.converted)

    @property
    def left(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.converted)

    def wide(self) -> str:
        """The table with a line a row."""
        return self._text(None)

    def __str__(self) -> str:
        return self._text(WIDTH)

    def _text(self, width: int | None) -> str:
        lines = [(row.path or "(the model)", row.kind, row.remark) for row in self.rows]
        title = f"{self.title}: {len(self.converted)} of {len(self.rows)} {self.unit}"
        return "\n".join([title, *(table(lines, 0, width) if lines else [])])


class ForwardByHand(Exchanged):
    """A module's own forward inside `by_hand()`, so that the calls of torch.nn.functional in it are by hand, too."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with by_hand():
            return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


class Fused(Exchanged):
    """A forward that `manualbp.fuse` wrote; manualbp.fuse.written has it."""


def convert(model: nn.Module) -> Report:
    """Let the model compute on the rules from now on: every layer of torch.nn becomes manualbp.nn's of the same name.

    In place, by exchanging classes: parameters, buffers, hooks, training flag, dtype, device and what an optimizer
    refers to stay as they are. The outermost modules with a forward of their own (a ResNet, a block) run it inside
    `by_hand()`, for the functions that they call: their class becomes a subclass of its own. Copies, replicas and
    pickles are converted, too, and compute with their own layers. A module that subclasses one of torch.nn's layers and
    has its own forward is by hand as a part of such a module only. -> a Report, to print. `restore` undoes it.
    Raises TypeError for what is no torch.nn.Module, ValueError where it is fused (`manualbp.fuse`).
    """
    refuse_no_module("convert", model)
    refuse_fused("convert", model)
    rows = []
    for path, module, inside in _modules(model):
        kind = kind_of(module)
        remark, converted = _converted(module, inside)
        if remark:
            rows.append(Row(path, kind, converted, remark))
    return Report("converted", tuple(rows))


def restore(model: nn.Module, built: bool = False) -> Report:
    """Give back exactly what `convert` found: the classes. -> a Report, to print.

    Layers that were manualbp.nn's before stay so, and so does a class that something else has exchanged since
    (a parametrisation). built: layers that were built as manualbp.nn's become torch.nn's, too, with the same
    state_dict; those that torch.nn lacks (TrueConv2d, ConnectedConv2d) are left, and the report names them. Raises
    TypeError for what is no torch.nn.Module, ValueError where it is fused (`manualbp.fuse`).
    """
    refuse_no_module("restore", model)
    refuse_fused("restore", model)
    rows = []
    for path, module in model.named_modules():
        was = module.__dict__.get(WAS)
        lazy = _becomes(type(module)) is was
        if was is not None and (lazy or type(module) is LAYERS[was]):
            del module.__dict__[WAS]
            module.__dict__.pop(BECOMES, None)
            module.__class__ = type(module) if lazy else was
            rows.append(Row(path, kind_of(module), True, "restored"))
        elif take_away(module, ForwardByHand):
            rows.append(Row(path, kind_of(module), True, "restored"))
        elif was is not None or issubclass(type(module), ForwardByHand):
            rows.append(Row(path, kind_of(module), False, "left: its class was exchanged after `convert`"))
        elif built and (layer := next((base for base in type(module).__mro__ if base in BUILT), None)) is not None:
            rows.append(_unbuilt(path, module, layer))
    return Report("restored", tuple(rows))


def _unbuilt(path: str, module: nn.Module, layer: type[nn.Module]) -> Row:
    """A module whose class is, or subclasses, manualbp.nn's `layer`: it becomes torch.nn's where that is the same."""
    kind, before = BUILT[layer], kind_of(module)
    if kind is None:
        return Row(path, before, False, f"left: torch.nn has no {layer.__name__}")
    if type(module) is not layer:
        return Row(path, before, False, f"left: its own kind of {layer.__name__}")
    module.__class__ = kind
    return Row(path, before, True, f"-> torch.nn.{kind.__name__}")


def _becomes(kind: type) -> Any:
    """What a lazy layer's class becomes, when it has seen its first input."""
    return getattr(kind, BECOMES) if issubclass(kind, LazyModuleMixin) else None


def refuse_no_module(op: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{op}: model is a {type(model).__name__}; it must be a torch.nn.Module")


def refuse_fused(op: str, model: nn.Module) -> None:
    if any(isinstance(module, Fused) for module in model.modules()):
        raise ValueError(f"{op}: the model is fused already; unfuse it first")


def _modules(
    module: nn.Module, path: str = "", inside: bool = False, seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module, bool]]:
    """(path, module, whether a module that contains it runs inside `by_hand()`), each module once."""
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    yield path, module, inside
    inside = inside or isinstance(module, ForwardByHand)
    for name, child in module.named_children():
        yield from _modules(child, f"{path}.{name}" if path else name, inside, seen)


def _converted(module: nn.Module, inside: bool) -> tuple[str, bool]:
    """Convert one module: (a remark for the report, or "" if there is nothing to say; whether it is converted)."""
    kind = type(module)
    becomes = _becomes(kind)
    if becomes in LAYERS and WAS not in module.__dict__:
        module.__dict__ |= {WAS: becomes, BECOMES: LAYERS[becomes]}
        return f"-> manualbp.nn.{becomes.__name__} once it has run", True
    if kind in LAYERS:
        module.__dict__[WAS] = kind
        module.__class__ = LAYERS[kind]
        return f"-> manualbp.nn.{kind.__name__}", True
    if (
        isinstance(module, ForwardByHand)
        or WAS in module.__dict__
        or kind.__module__.startswith(by_hand_layers.__name__)
    ):
        return "is by hand already", True
    if isinstance(module, NO_ARITHMETIC) and kind.__module__.startswith("torch.nn."):
        return "", False
    if isinstance(module, jit.ScriptModule):
        return "left: compiled by torch.jit", False
    if kind.__module__.startswith("torch.nn."):
        return f"left: manualbp has no {kind.__name__}", False
    layer = next((base for base in kind.__mro__ if base in LAYERS), None)
    if inside:
        return (f"left: its own kind of {layer.__name__}; by hand inside the model" if layer else ""), False
    if "forward" in module.__dict__:
        return "left: its forward was replaced", False
    if layer is not None and kind.forward is not layer.forward:
        return f"left: its own kind of {layer.__name__}, with its own forward", False
    try:
        put_before(module, ForwardByHand)
    except TypeError as why:
        return f"left: its class allows no subclass: {why}", False
    return "its forward runs inside by_hand()", True


def kind_of(module: nn.Module) -> str:
    """The class as one would import it: torch.nn's and manualbp.nn's without the file that it is in."""
    kind = plain(type(module))
    package = next((p for p in ("torch.nn", "manualbp.nn") if kind.__module__.startswith(f"{p}.")), None)
    return f"{package}.{kind.__name__}" if package else kind.__qualname__
