"""Neighbouring layers of a model run by the rules that are derived for them together, in place, and back."""

import copy
import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx, jit, nn
from torch.fx.immutable_collections import immutable_dict

from manualbp import nn as by_hand_layers
from manualbp.by_hand import by_hand
from manualbp.convert import ForwardByHand, Fused, Report, Row, refuse_fused, refuse_no_module
from manualbp.fuse.rewrite import SETTINGS, Neighbours, RefusalError, has_hooks

Key = tuple[Any, ...]


class Value(fx.Proxy):
    """A value of the graph that tells x += y from x = x + y, which to torch.fx are one."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class Tracer(fx.Tracer):
    """Follows a module's forward down to the layers of torch.nn and manualbp.nn, and to modules that have hooks.

    What a graph cannot hold is refused: modes that are entered on the way, and containers other than Python's own.
    """

    proxy_buffer_attributes = True  # else a buffer that the forward changes would be changed now, and never again

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self.modes = modes()
        return super().trace(root, concrete_args)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Value(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if modes() != self.modes:
            raise RefusalError("it enters a mode, such as no_grad or autocast")
        return super().create_node(*args, **kwargs)

    def create_arg(self, a: Any) -> Any:
        if type(a) is OrderedDict:
            return self.create_node("call_function", OrderedDict, (self.create_arg(list(a.items())),), {})
        if isinstance(a, dict) and type(a) not in (dict, immutable_dict):
            raise RefusalError(f"it returns a {type(a).__name__}")
        return super().create_arg(a)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        package = by_hand_layers.__name__
        own = m.__dict__.get("forward")
        return (
            super().is_leaf_module(m, module_qualified_name)
            or type(m).__module__.startswith(f"{package}.")
            or isinstance(m, jit.ScriptModule)
            or has_hooks(m)
            or not (own is None or isinstance(own, ForwardByHand))
        )

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(m.__dict__.get("forward"), ForwardByHand):
            forward = partial(type(m).forward, m)  # the rules cannot be traced
        return super().call_module(m, forward, args, kwargs)


def modes() -> Key:
    """What else a result depends on, in the thread."""
    devices = "cpu", "cuda"
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *map(torch.is_autocast_enabled, devices),
        *map(torch.get_autocast_dtype, devices),
        torch._C._len_torch_function_stack(),
        torch._C._autograd._top_saved_tensors_default_hooks(True),  # pyright: ignore[reportAttributeAccessIssue]
    )


class FusedForward(Fused):
    """A module's own forward with neighbours taken together. It stands in the module's __dict__.

    It is made anew where the module's structure or one of its training flags has changed. `was`: the forward that stood
    there before. Called with more than what it must be given, the module's own forward runs: the graph is that of the
    defaults.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.was = module, module.__dict__.get("forward")
        self.names, defaults = arguments(module)
        self.required = {name for name in self.names if name not in defaults}
        self.made: dict[Key, Callable[..., Any]] = {}
        self.by_mode: dict[bool, Callable[..., Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": {}, "by_mode": {}}  # functions that were written cannot be pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> "FusedForward":
        other = memo[id(self)] = object.__new__(FusedForward)
        other.__dict__ = copy.deepcopy(self.__dict__, memo)  # but be shared: they take the module as an argument
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward: Callable[..., Any] = type(self.module).forward
        if {*self.names[: len(args)], *kwargs} == self.required:
            if torch.compiler.is_compiling():  # where nothing can be traced: by_mode is empty after unpickling
                forward = self.by_mode.get(self.module.training, forward)
            else:
                forward = self.forward()
        if self.was is None:
            return forward(self.module, *args, **kwargs)
        with by_hand():
            return forward(self.module, *args, **kwargs)

    def forward(self) -> Callable[..., Any]:
        """The forward for the module as it is now, of self and the module's arguments."""
        key = structure(self.module)
        if key not in self.made:
            try:
                self.made[key] = rewritten(self.module)[0]
            except RefusalError:  # it could be followed when it was fused
                self.made[key] = type(self.module).forward
        self.by_mode[self.module.training] = self.made[key]
        return self.made[key]


def structure(module: nn.Module) -> Key:
    """What the traced forward depends on."""
    return tuple((type(m), m.training, has_hooks(m), *map(m.__dict__.get, SETTINGS)) for m in module.modules())


def arguments(module: nn.Module) -> tuple[list[str], dict[str, Any]]:
    """The names of what the module's forward takes, and the defaults. Raises RefusalError for any number of them."""
    _, *parameters = inspect.signature(type(module).forward).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise RefusalError("it takes any number of arguments")
    return [p.name for p in parameters], {p.name: p.default for p in parameters if p.default is not p.empty}


def traced(module: nn.Module) -> fx.Graph:
    """The module's forward as a graph, its optional arguments left out. Raises RefusalError where that is none."""
    _, defaults = arguments(module)
    known = {name: a for name, a in defaults.items() if a is None or isinstance(a, bool | int | float | str)}
    before = held(module)
    try:
        graph, again = (Tracer().trace(module, known or None) for _ in range(2))
    except RefusalError:
        raise
    except Exception as error:  # whatever a forward does with a value that has no numbers
        why = str(error).strip().partition("\n")[0]
        raise RefusalError(f"torch.fx cannot follow it: {why}") from error
    finally:
        changed = put_back(before)
    if changed:  # torch.fx puts tensors that a forward makes into the module
        raise RefusalError("it makes tensors, or changes what the module holds")
    if str(graph) != str(again):
        raise RefusalError("it does not do the same each time")
    return graph


def held(module: nn.Module) -> list[tuple[Any, Any]]:
    """The lists and dicts that the modules hold, their own attributes among them, each with a copy."""
    found = []
    for m in module.modules():
        inside = [m.__dict__, *(held for held in m.__dict__.values() if isinstance(held, dict | list))]
        found += [(container, copy.copy(container)) for container in inside]
    return found


def put_back(found: list[tuple[Any, Any]]) -> bool:
    """Give the containers the contents of their copies. -> whether they had others."""
    changed = False
    for container, was in found:
        pairs = [list(c.items()) if isinstance(c, dict) else list(enumerate(c)) for c in (container, was)]
        if [(k, id(v)) for k, v in pairs[0]] != [(k, id(v)) for k, v in pairs[1]]:
            changed = True
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(was)
    return changed


def rewritten(module: nn.Module) -> tuple[Callable[..., Any], Neighbours]:
    """The module's forward with neighbours taken together, and what was taken. Raises RefusalError."""
    graph = traced(module)
    neighbours = Neighbours(module, graph)
    neighbours.rewrite()
    code = graph.python_code("self")
    names = {**code.globals, **neighbours.constants}
    exec(code.src, names)  # the source that torch.fx wrote for the graph
    return names["forward"], neighbours


def fuse(model: nn.Module) -> Report:
    """Let neighbouring layers of the model be run by the rules that are derived for them together, from now on.

    - sigmoid, tanh or ReLU and max pooling: the maximum first; kept are the pooled output and one byte a window
    - batch norm and activation: keep the norm's input alone; a convolution behind them keeps nothing more, nor does one
      behind GELU, SiLU and hardswish, or behind the sums of a residual network (it computes its input again)
    - ReLU before a sum or average pooling: a bit a number
    - a convolution and average pooling: one convolution, where that is fewer products

    The same numbers to rounding. In place, by a forward of its own for the model; its modules, parameters, state_dict
    stay as they are, and are what runs. What stands behind each other is found by torch.fx, in the model as a whole or,
    where that cannot be followed, in the largest parts that can; layers with hooks stay apart. A forward is traced in
    training and in evaluation, and again when a module, its settings, hooks or training flag have changed; what else it
    decides in Python is decided then. An unpickled copy must be called once before torch.compile takes it fused. Layers
    that are left run as they are: `convert` first if all shall be by hand.
    -> a Report, to print. `unfuse` undoes it. Raises TypeError for what is no torch.nn.Module, ValueError where it is
    fused already.
    """
    refuse_no_module("fuse", model)
    refuse_fused("fuse", model)
    rows: list[Row] = []
    _fuse(model, "", rows)
    return Report("fused", tuple(rows), "places")


def _fuse(module: nn.Module, path: str, rows: list[Row]) -> None:
    """Fuse the module, or else its parts."""
    own = module.__dict__.get("forward")
    if isinstance(module, jit.ScriptModule) or not (own is None or isinstance(own, ForwardByHand)):
        return
    try:
        _, neighbours = rewritten(module)
    except RefusalError as why:
        if any(True for _ in module.children()) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            rows.append(Row(path, type(module).__name__, False, f"left: {why}"))
        for name, child in module.named_children():
            _fuse(child, f"{path}.{name}" if path else name, rows)
        return
    if any(done for *_, done, _ in neighbours.places):
        forward = FusedForward(module)
        _in_both_modes(module, forward)
        module.__dict__["forward"] = forward
    for places, kind, done, remark in neighbours.places:
        inside = ", ".join(f"{path}.{place}" if path else place for place in places.split(", "))
        rows.append(Row(inside, kind, done, remark))
    for place in {str(node.target): None for node in neighbours.graph.nodes if node.op == "call_module"}:
        child = module.get_submodule(place)
        if has_hooks(child) and any(True for _ in child.children()):
            _fuse(child, f"{path}.{place}" if path else place, rows)


def _in_both_modes(module: nn.Module, forward: FusedForward) -> None:
    """Trace it in training and in evaluation: torch.compile cannot do that later."""
    flags = {m: m.training for m in module.modules()}
    try:
        for mode in (not module.training, module.training):
            module.train(mode)
            forward.forward()
    finally:
        for m, training in flags.items():
            m.training = training
    forward.forward()


def unfuse(model: nn.Module) -> Report:
    """Give back exactly the forward that `fuse` found. -> a Report, to print.

    Raises TypeError for what is no torch.nn.Module.
    """
    refuse_no_module("unfuse", model)
    rows = []
    for path, module in model.named_modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, FusedForward):
            del module.__dict__["forward"]
            if forward.was is not None:
                module.__dict__["forward"] = forward.was
            rows.append(Row(path, type(module).__name__, True, "unfused"))
    return Report("unfused", tuple(rows))
