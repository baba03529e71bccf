"""The receipt: what each layer keeps in memory for the backward pass, in PyTorch, by hand and fused, and why."""

import copy
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from manualbp.convert import LAYERS, NO_ARITHMETIC, convert, refuse_no_module, restore
from manualbp.coverage import coverage, tensors_in
from manualbp.fuse import steps
from manualbp.fuse.model import fuse, unfuse
from manualbp.fuse.written import WRITTEN
from manualbp.reasons import MODEL, Kept, X, by_hand, in_words

WAYS = {"pytorch": "PyTorch", "by_hand": "by hand", "fused": "fused"}  # the columns, and their titles
TORCH = {by_hand_class: torch_class for torch_class, by_hand_class in LAYERS.items()}


@dataclass(frozen=True)
class Row:
    """A layer: `path` in the model ("" for the model itself), its class, what it keeps each way, and why fused."""

    path: str
    kind: str
    kept: Mapping[str, tuple[Kept, ...]]
    why: str

    def bytes(self, way: str) -> int:
        return sum(kept.bytes for kept in self.kept[way] if kept.counted_at is None)


@dataclass(frozen=True)
class Receipt:
    """What is kept for the backward pass, a row a layer, each way; prints as a table, in bytes.

    The ways: "pytorch", "by_hand" and "fused".

    model_bytes and input_bytes: parameters and buffers, and the input x. They are there anyway, and in no sum.
    """

    rows: tuple[Row, ...]
    model_bytes: int
    input_bytes: int

    @property
    def totals(self) -> dict[str, int]:
        return {way: sum(row.bytes(way) for row in self.rows) for way in WAYS}

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals as json.dump takes them."""
        rows = [{**asdict(row), "bytes": {way: row.bytes(way) for way in WAYS}} for row in self.rows]
        return {**asdict(self), "rows": rows, "totals": self.totals}

    def __str__(self) -> str:
        def number(row: Row, way: str) -> str:
            again = any(kept.counted_at not in (None, MODEL, X) for kept in row.kept[way])
            return f"{row.bytes(way):,}" + ("*" if again else " ")

        lines = [("layer", "kind", *(f"{title} " for title in WAYS.values()), "kept, fused")]
        for row in self.rows:
            lines.append((name_of(row.path), row.kind, *(number(row, way) for way in WAYS), row.why))
        totals = self.totals
        others = [way for way in WAYS if way != "pytorch" and totals["pytorch"]]
        parts = [f"{WAYS[way]} / PyTorch = {totals[way] / totals['pytorch']:.3f}" for way in others]
        lines.append(("total", "", *(f"{total:,} " for total in totals.values()), ", ".join(parts)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            f"{path:{widths[0]}}  {kind:{widths[1]}}  "
            + "  ".join(f"{n:>{width}}" for n, width in zip(numbers, widths[2:], strict=False))
            + f" {why}"
            for path, kind, *numbers, why in lines
        ]
        return "\n".join(
            [
                *(line.rstrip() for line in table),
                "",
                "Bytes. * keeps also what an earlier layer counts. In no sum, as they are there anyway: parameters and "
                f"buffers ({self.model_bytes:,}), the input x ({self.input_bytes:,}).",
            ]
        )


def name_of(path: str) -> str:
    return path or "(the model)"


def memory(model: nn.Module, x: Tensor) -> Receipt:
    """What each layer of `model` keeps for the backward pass of `model(x)`, in PyTorch, by hand, fused. -> a Receipt.

    Three forward passes, in the mode that the model is in: with torch.nn's layers, after `convert`, and after `convert`
    and `fuse`. All run on copies of the model and of x; the model, x and the state of PyTorch's random generators stay
    as they are (the model's own hooks are called). Counted are the bytes of the distinct storages that the graph of the
    result holds, each for the innermost module that was running when it was first kept; what is kept by other means
    than autograd's saved tensors, as checkpoints do, is not seen. What layers keep that are run together counts for the
    one that the step stands for; a function in a fused forward counts for the outermost module that `fuse` could
    follow. A layer of manualbp.nn that torch.nn lacks, and what a forward calls in manualbp.functional, is by hand
    all ways.

    Raises TypeError where model is no torch.nn.Module or x no tensor, ValueError where nothing that the model returns
    requires a gradient, for x without memory (device meta), and inside `by_hand()`, where PyTorch's own functions
    cannot be had.
    """
    refuse_no_module("memory", model)
    if not isinstance(x, Tensor):
        raise TypeError(f"memory: x is a {type(x).__name__}; it must be a tensor")
    if x.is_meta:
        raise ValueError("memory: x is on the device meta, without memory; it must be on another")
    with torch.enable_grad():
        if coverage(torch.relu(torch.ones(1, requires_grad=True))).by_hand:
            raise ValueError("memory: called inside by_hand(); it must be called outside, to run PyTorch's functions")
    theirs = copy.deepcopy(model)
    unfuse(theirs)
    restore(theirs)
    for module in theirs.modules():
        module.__class__ = TORCH.get(type(module), type(module))
    mine = copy.deepcopy(theirs)
    convert(mine)
    fused = copy.deepcopy(mine)
    with torch.random.fork_rng(_devices(fused, x)):  # it calls the forward, to see what that does
        fuse(fused)
    models = dict(zip(WAYS, (theirs, mine, fused), strict=True))
    kept = {way: _kept(models[way], x) for way in WAYS}
    last = list(WAYS)[-1]
    rows = []
    for path in dict.fromkeys(path for way in WAYS for path in kept[way]):
        module = next(models[way] for way in WAYS if path in kept[way]).get_submodule(path)
        found = {way: kept[way].get(path, ()) for way in WAYS}
        leaf = not any(True for _ in module.children()) and not isinstance(module, NO_ARITHMETIC)
        if leaf or any(found.values()):
            why = "nothing: it is part of another layer's step"
            if path in kept[last]:
                why = in_words(models[last].get_submodule(path), found[last])
            both = "by hand all ways: " if by_hand(type(module)) else ""
            rows.append(Row(path, type(module).__name__, found, both + why))
    model_bytes = sum(size for _, _, size in {_storage(t) for t in _named(theirs).values()})
    return Receipt(tuple(rows), model_bytes, x.numel() * x.element_size())


class _Saved:
    """A tensor that the graph keeps, and the module and step that were running. It lives as long as the graph does.

    role: "input" where the tensor's storage is one of the module's inputs, "output" where it is one of its outputs.
    """

    def __init__(self, tensor: Tensor, module: nn.Module, step: str | None, role: str) -> None:
        self.tensor, self.module, self.step, self.role = tensor, module, step, role


def _kept(model: nn.Module, x: Tensor) -> dict[str, tuple[Kept, ...]]:
    """What each module that ran keeps, by its path."""
    x = x.detach().clone().requires_grad_(x.requires_grad)
    # The module, its step, its inputs, and len(saved) when it began.
    running: list[tuple[nn.Module, str | None, set[Any], int]] = [(model, None, set(), 0)]
    saved: list[weakref.ref[_Saved]] = []
    called: set[nn.Module] = set()

    def enter(module: nn.Module, args: Any, kwargs: Any, step: str | None = None) -> None:
        # What comes in lives until the module is left: no other storage can have its address before.
        running.append((module, step, {_storage(t) for t in tensors_in([args, kwargs])}, len(saved)))
        called.add(module)

    def leave(module: nn.Module, _: Any, y: Any) -> None:
        *_, began = running.pop()
        outputs = {_storage(t) for t in tensors_in(y)}
        for one in filter(None, (reference() for reference in saved[began:])):
            if one.module is module and _storage(one.tensor) in outputs:
                one.role = "output"

    def take(step: FunctionType, layer: nn.Module | None, *args: Any) -> Any:
        """A step of a fused forward, as if the layer that it stands for were called."""
        module, y = layer or running[-1][0], None
        enter(module, args, {}, step.__name__)
        try:
            y = step(layer, *args)
        finally:
            leave(module, args, y)
        return y

    def pack(t: Tensor) -> _Saved:
        module, step, inputs, _ = running[-1]
        # Without its graph: an output that keeps the node that keeps it would never be freed.
        one = _Saved(t.detach(), module, step, "input" if _storage(t) in inputs else "other")
        saved.append(weakref.ref(one))
        return one

    for module in model.modules():
        for written in module.__dict__.get(WRITTEN, {}).values():
            names = written.forward.__globals__
            names.update({name: partial(take, f) for name, f in names.items() if _is_step(f)})
            written.holds = lambda _: True  # the hooks that come now need no layer to stay apart
    hooks: list[Any] = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    with (
        torch.random.fork_rng(_devices(model, x)),
        torch.enable_grad(),
        saved_tensors_hooks(pack, lambda one: one.tensor),
    ):
        y = model(x)
    for hook in hooks:
        hook.remove()
    if not any(t.requires_grad for t in tensors_in(y)):
        raise ValueError(
            "memory: no tensor that the model returns requires a gradient, so nothing is kept; "
            "let parameters or x require one"
        )
    paths = {module: path for path, module in model.named_modules()}
    names = {_storage(t): name.rpartition(".")[2] for name, t in _named(model).items()}
    counted = {**dict.fromkeys(names, MODEL), _storage(x): X}
    kept: dict[str, dict[Any, Kept]] = {path: {} for module, path in paths.items() if module in called}
    for one in filter(None, (reference() for reference in saved)):  # what nothing returned needs is gone
        key, path = _storage(one.tensor), paths[one.module]
        *_, size = key
        if size and key not in kept[path]:
            t, role = one.tensor, names.get(key, one.role)
            dtype = str(t.dtype).removeprefix("torch.")
            kept[path][key] = Kept(role, tuple(t.shape), dtype, size, counted.get(key), one.step)
            counted.setdefault(key, name_of(path))
    return {path: tuple(of_path.values()) for path, of_path in kept.items()}


def _storage(t: Tensor) -> tuple[Any, ...]:
    """What tells one storage that is alive from another; its bytes come last."""
    storage = t.untyped_storage()
    return t.device, storage.data_ptr(), storage.nbytes()


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _devices(model: nn.Module, x: Tensor) -> set[Any]:
    """The CUDA devices on which something may be drawn at random."""
    return {t.device.index for t in (x, *_named(model).values()) if t.is_cuda}


def _is_step(f: Any) -> bool:
    return isinstance(f, FunctionType) and f.__module__ == steps.__name__
