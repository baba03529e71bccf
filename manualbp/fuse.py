"""Neighbouring layers of a model run by the rules that are derived for them together, in place, and back."""

from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import fx, jit, nn

from manualbp import nn as by_hand_layers
from manualbp.by_hand import by_hand
from manualbp.convert import ForwardByHand, Report, Row, refuse_no_module
from manualbp.neighbours import Neighbours, RefusalError, has_hooks

Key = tuple[Any, ...]


class Tracer(fx.Tracer):
    """Follows a module's forward down to the layers of torch.nn and manualbp.nn, and to modules that have hooks."""

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


class FusedForward:
    """A module's own forward with neighbours taken together. It stands in the module's __dict__.

    It is made anew where the module's structure or one of its training flags has changed. `was`: the forward that stood
    there before.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.was = module, module.__dict__.get("forward")
        self.made: dict[Key, FunctionType] = {}
        self.by_mode: dict[bool, FunctionType] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": {}, "by_mode": {}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and self.module.training in self.by_mode:
            forward = self.by_mode[self.module.training]
        else:
            forward = self.forward()
        if self.was is None:
            return forward(self.module, *args, **kwargs)
        with by_hand():
            return forward(self.module, *args, **kwargs)

    def forward(self) -> FunctionType:
        """The forward for the module as it is now, of self and the module's arguments."""
        key = structure(self.module)
        if key not in self.made:
            self.made[key] = rewritten(self.module)[0]
        self.by_mode[self.module.training] = self.made[key]
        return self.made[key]


def structure(module: nn.Module) -> Key:
    """What the traced forward depends on."""
    return tuple((type(m), m.training) for m in module.modules())


def traced(module: nn.Module) -> fx.Graph:
    """The module's forward as a graph. Raises RefusalError where it cannot be followed."""
    try:
        graph, again = Tracer().trace(module), Tracer().trace(module)
    except Exception as error:  # whatever a forward does with a value that has no numbers
        why = str(error).strip().partition("\n")[0]
        raise RefusalError(f"torch.fx cannot follow it: {why}") from error
    if str(graph) != str(again):
        raise RefusalError("it does not do the same each time")
    return graph


def rewritten(module: nn.Module) -> tuple[FunctionType, Neighbours]:
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
    training and in evaluation, and again when a module or a training flag has changed; what else it decides in Python
    is decided then. Layers that are left run as they are: `convert` first if all shall be by hand.
    -> a Report, to print. `unfuse` undoes it. Raises TypeError for what is no torch.nn.Module, ValueError where it is
    fused already.
    """
    refuse_no_module("fuse", model)
    if any(isinstance(m.__dict__.get("forward"), FusedForward) for m in model.modules()):
        raise ValueError("fuse: the model is fused already; unfuse it first")
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
