"""What each layer keeps in memory for the backward pass, in PyTorch, by hand and fused: measured, not estimated."""

import copy
import gc
import weakref
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, jit, nn
from torch.autograd.graph import saved_tensors_hooks

from manualbp.convert import LAYERS, NO_ARITHMETIC, convert, refuse_no_module, restore
from manualbp.coverage import coverage, function_of
from manualbp.functional.rule import Rule
from manualbp.fuse import steps
from manualbp.fuse.model import fuse, unfuse
from manualbp.fuse.written import WRITTEN
from manualbp.graph import dense, nodes, tensors_in
from manualbp.reasons import MODEL, Kept, X, by_hand, in_words
from manualbp.receipt import WAYS, Receipt, Row, name_of

LEAF = "a leaf that the forward pass made"
TORCH = {by_hand_class: torch_class for torch_class, by_hand_class in LAYERS.items()}


def memory(model: nn.Module, x: Any, *more: Any, **named: Any) -> Receipt:
    """What each layer of `model` keeps for the backward pass of `model(x)`, in PyTorch, by hand, fused. -> a Receipt.

    x is a tensor, or what holds tensors (lists, dicts, any object); `more` and `named` are what the model takes beside
    it. What it returns may be as nested. Three forward passes, in the mode that the model is in: with torch.nn's
    layers, after `convert`, and after `convert` and `fuse`. All run on copies of the model and of what it is called
    with; these and the state of PyTorch's random generators stay as they are (the model's own hooks are called).

    Counted are the bytes of the distinct storages that the forward pass made and the graph of the result holds, each
    for the innermost module that was running when it was first kept:
    - what autograd saves, numbers among it that it hides from hooks (the 2 of `2 * x`: 8 bytes)
    - what a torch.autograd.Function leaves on its `ctx`: in attributes, lists, dicts, objects, in what functions close
      over, and the graph behind these tensors; what the hooks of its node close over
    - what the model's own saved_tensors_hooks and checkpoints hold instead: packed tensors, a random generator's state
    What was there before is in no sum. Out of reach are tensors that the hooks of a tensor or of one of PyTorch's nodes
    close over, and those that extensions in C++ keep on their own.

    What layers keep that are run together counts for the one that the step stands for; a function in a fused forward
    counts for the outermost module that `fuse` could follow. A layer of manualbp.nn that torch.nn lacks, and what a
    forward calls in manualbp.functional, is by hand all ways.

    Raises TypeError where model is no torch.nn.Module or cannot be copied, or x is no tensor and holds none, ValueError
    where nothing that the model returns requires a gradient, for tensors without memory (device meta), and inside
    `by_hand()`, where PyTorch's own functions cannot be had.
    """
    refuse_no_module("memory", model)
    given = list(tensors_in(x, more, named))
    if not given:
        raise TypeError(f"memory: x is a {type(x).__name__}; it must be a tensor, or hold tensors")
    if any(t.is_meta for t in given):
        raise ValueError("memory: x is on the device meta, without memory; it must be on another")
    if any(t.is_meta for t in _named(model).values()):
        raise ValueError("memory: model is on the device meta, without memory; it must be on another")
    with torch.enable_grad():
        if coverage(torch.relu(torch.ones(1, requires_grad=True))).by_hand:
            raise ValueError("memory: called inside by_hand(); it must be called outside, to run PyTorch's functions")
    theirs = _copied("model", model, [t for m in model.modules() for t in tensors_in(vars(m)) if t.grad_fn is not None])
    unfuse(theirs)
    restore(theirs)
    for module in theirs.modules():
        if type(module) in TORCH:
            module.__class__ = TORCH[type(module)]
    mine = copy.deepcopy(theirs)
    convert(mine)
    fused = copy.deepcopy(mine)
    with torch.random.fork_rng(_devices(fused, given)):  # it calls the forward, to see what that does
        fuse(fused)
    models = dict(zip(WAYS, (theirs, mine, fused), strict=True))
    kept = {way: _kept(models[way], _copied("x", ((x, *more), named), given)) for way in WAYS}
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
    model_bytes, input_bytes = (
        sum(size for *_, size in {_storage(part) for t in tensors for part in dense(t)})
        for tensors in (_named(theirs).values(), (t.detach().clone() for t in given))
    )
    return Receipt(tuple(rows), model_bytes, input_bytes)


def _copied(argument: str, thing: Any, tensors: Iterable[Tensor]) -> Any:
    """A deep copy; `tensors` in it become leaves, as others than leaves cannot be copied."""
    memo: dict[int, Any] = {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in tensors}
    try:
        return copy.deepcopy(thing, memo)
    except Exception as error:
        raise TypeError(f"memory: {argument} cannot be copied (copy.deepcopy): {error}") from error


class _Call(NamedTuple):
    """A call of a module, or of the step that stands for it, and the storages that came in and out."""

    module: nn.Module
    step: str | None
    inputs: set[Any]
    outputs: set[Any]


class _Saved:
    """A tensor that the graph keeps, and when: the number of the next node. It lives as long as the graph does."""

    def __init__(self, tensor: Tensor, call: _Call) -> None:
        self.tensor, self.call, self.next = tensor, call, _next_node()


def _kept(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, tuple[Kept, ...]]:
    """What each module that ran keeps, by its path."""
    args, kwargs = inputs
    running = [_Call(model, None, set(), set())]
    since = [(0, running[0])]  # the number of the next node, and the call that makes it
    saved: list[weakref.ref[_Saved]] = []
    called = {model}

    def enter(module: nn.Module, args: Any, kwargs: Any, step: str | None = None) -> None:
        # What comes in lives until the module is left: no other storage can have its address before.
        running.append(_Call(module, step, set(_storages(tensors_in(args, kwargs))), set()))
        since.append((_next_node(), running[-1]))
        called.add(module)

    def leave(module: nn.Module, _: Any, y: Any) -> None:
        running.pop().outputs.update(_storages(tensors_in(y)))
        since.append((_next_node(), running[-1]))

    def take(step: FunctionType, layer: nn.Module | None, *args: Any) -> Any:
        """A step of a fused forward, as if the layer that it stands for were called."""
        module, y = layer or running[-1].module, None
        enter(module, args, {}, step.__name__)
        try:
            y = step(layer, *args)
        finally:
            leave(module, args, y)
        return y

    def pack(t: Tensor) -> _Saved:
        # Without its graph: an output that keeps the node that keeps it would never be freed.
        one = _Saved(t.detach(), running[-1])
        saved.append(weakref.ref(one))
        return one

    for module in model.modules():
        for written in module.__dict__.get(WRITTEN, {}).values():
            names = written.forward.__globals__
            names.update({name: partial(take, f) for name, f in names.items() if _is_step(f)})
            written.holds = lambda _: True  # the hooks that come now need no layer to stay apart
    hooks: list[Any] = []
    for module in model.modules():
        if isinstance(module, jit.ScriptModule):
            continue  # it takes no hook of Python's: what it keeps counts for the module around it
        hooks.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    kinds = {Tensor, *_below(Tensor)}  # among millions of objects a set is asked five times as fast as issubclass
    before = [t for t in gc.get_objects() if type(t) in kinds]  # alive, so that no address is taken again
    there = _storages(before)
    with (
        torch.random.fork_rng(_devices(model, tensors_in(args, kwargs))),
        torch.enable_grad(),
        saved_tensors_hooks(pack, lambda one: one.tensor),
    ):
        try:
            y = model(*args, **kwargs)
        except RuntimeError as error:
            if "support saved tensor hooks" not in str(error):
                raise
            raise ValueError(f"memory: model uses torch.func inside, where nothing can be seen: {error}") from error
    for hook in hooks:
        hook.remove()
    if not any(t.requires_grad for t in tensors_in(y)):
        raise ValueError(
            "memory: no tensor that the model returns requires a gradient, so nothing is kept; "
            "let parameters or x require one"
        )
    paths = {module: path for path, module in model.named_modules()}
    names = {key: name.rpartition(".")[2] for name, t in _named(model).items() for key in _storages([t])}
    given = dict.fromkeys(_storages(tensors_in(args, kwargs)), X)
    counted = {**dict.fromkeys((*there, *names), MODEL), **given}
    kept: dict[str, dict[Any, Kept]] = {path: {} for module, path in paths.items() if module in called}
    held, functions = _held(t.grad_fn for t in tensors_in(y, *map(vars, model.modules())))
    alive = [one for one in (reference() for reference in saved) if one is not None]  # the rest nothing returned needs
    found = [(one.next, one.call, one.tensor, functions.get(one.next - 1)) for one in alive]
    for number, t, holder in held:
        _, call = since[bisect(since, number, key=lambda at: at[0]) - 1]
        found.append((number + 1, call, t, holder))
    for _, call, whole, holder in sorted(found, key=lambda one: one[0]):
        path = paths[call.module]
        for t in dense(whole):
            key = _storage(t)
            *_, size = key
            if not size or key in kept[path] or (holder == LEAF and key in counted):
                continue
            role = "output" if key in call.outputs else "input" if key in call.inputs else "other"
            if counted.get(key) == MODEL:
                role = names.get(key, "a constant")
            dtype = str(t.dtype).removeprefix("torch.")
            kept[path][key] = Kept(role, tuple(t.shape), dtype, size, counted.get(key), call.step, holder)
            counted.setdefault(key, name_of(path))
    return {path: tuple(of_path.values()) for path, of_path in kept.items()}


def _held(roots: Iterable[Any]) -> tuple[list[tuple[int, Tensor, str | None]], dict[int, str]]:
    """What the nodes hold that no hook of ours saw: (the node's number, the tensor, who holds it).

    And the Functions that are no rules, by their nodes' numbers.
    """
    held: list[tuple[int, Tensor, str | None]] = []
    functions: dict[int, str] = {}
    seen: dict[int, Any] = {}
    waiting = [*roots]
    for node in nodes(waiting):
        number, function = node._sequence_nr(), function_of(node)
        parts: list[tuple[Iterable[Tensor], str | None]] = []
        if function is not None:
            parts += [(tensors_in(value), f"ctx.{name} of {function.__name__}") for name, value in vars(node).items()]
            hooks = (one for one in gc.get_referents(node) if one is not vars(node))
            parts.append((tensors_in(*hooks), f"a hook of {function.__name__}"))
            if not issubclass(function, Rule):
                functions[number] = function.__name__
        for data, unpack in _packed(node):
            if unpack is None:  # no hook was asked: a number that PyTorch made a tensor
                parts.append((tensors_in(data), None))
            elif not isinstance(data, _Saved):
                parts.append((tensors_in(data, unpack, seen=seen), "packed by saved_tensors_hooks"))
        parts.append((tensors_in(getattr(node, "variable", None)), LEAF))
        for tensors, holder in parts:
            for t in tensors:
                held.append((number, t, holder))
                waiting.append(t.grad_fn)
    return held, functions


def _packed(node: Any) -> Iterator[tuple[Any, Any]]:
    """What stands in the graph for each tensor that the node saved, and the hook that unpacks it."""
    for name in dir(node):
        if not name.startswith("_raw_saved_"):
            continue
        try:
            saved = getattr(node, name)
        except RuntimeError:  # a backward pass inside the forward has freed it
            continue
        for one in saved if isinstance(saved, tuple | list) else (saved,):
            if one is not None:
                yield one.data, one.unpack_hook


def _below(kind: type) -> Iterator[type]:
    """All classes below a class."""
    for one in type.__subclasses__(kind):
        yield one
        yield from _below(one)


def _next_node() -> int:
    """The number of the node that autograd makes next, in this thread."""
    return torch.autograd._get_sequence_nr()  # pyright: ignore[reportPrivateImportUsage]


def _storage(t: Tensor) -> tuple[Any, ...]:
    """What tells one storage that is alive from another; its bytes come last."""
    storage = t.untyped_storage()
    return t.device, storage.data_ptr(), storage.nbytes()


def _storages(tensors: Iterable[Tensor]) -> set[tuple[Any, ...]]:
    """Those of the tensors that have one: fake, lazy and opaque tensors have none."""
    found = set()
    for t in tensors:
        try:
            found |= {_storage(part) for part in dense(t)}
        except (RuntimeError, NotImplementedError, ValueError):
            continue
    return found


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _devices(model: nn.Module, inputs: Iterable[Tensor]) -> set[Any]:
    """The CUDA devices on which something may be drawn at random."""
    return {t.device.index for t in (*inputs, *_named(model).values()) if t.is_cuda}


def _is_step(f: Any) -> bool:
    return isinstance(f, FunctionType) and f.__module__ == steps.__name__
