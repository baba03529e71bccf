"""Neighbouring layers of a model run by the rules that are derived for them together, in place, and back."""

from typing import Any

from torch import fx, jit, nn

from manualbp.classes import plain, put_before, take_away
from manualbp.convert import Report, Row, refuse_fused, refuse_no_module
from manualbp.fuse.rewrite import Neighbours
from manualbp.fuse.trace import RefusalError, arguments, has_hooks, traced
from manualbp.fuse.written import SETTINGS, WRITTEN, FusedForward, Part, Written

MODES = {True: "training", False: "evaluation"}


def fuse(model: nn.Module) -> Report:
    """Let neighbouring layers of the model be run by the rules that are derived for them together, from now on.

    - sigmoid, ReLU and others that never fall, and max pooling: the maximum first; kept: the pooled output and a byte a
      window
    - batch norm and activation: keep the norm's input alone; a convolution or linear layer behind them keeps nothing
      more, nor does one behind sums, concatenations and gates of these, or behind GELU, SiLU and others that keep their
      input (it computes its own again)
    - ReLU before a sum or average pooling: a bit a number
    - a convolution and average pooling: one convolution, where that is fewer products

    The same numbers to rounding. In place, by a forward of its own for the model; its modules, parameters, state_dict
    stay as they are, and are what runs, in copies and pickles the copy's own. What stands behind each other is found by
    torch.fx, in the model as a whole or, where that cannot be followed, in the largest parts that can; layers with
    hooks stay apart. A forward is traced here, once in training and once in evaluation; what it decides in Python is
    decided then. Where a module, one of its settings, hooks or training flags has changed since, the model's own
    forward runs, and a warning says so: fuse again. Layers that are left run as they are: `convert` first if all shall
    be by hand.
    -> a Report, to print; its `code` is the source that was written. `unfuse` undoes it. Raises TypeError for what is
    no torch.nn.Module, ValueError where it is fused already.
    """
    refuse_no_module("fuse", model)
    refuse_fused("fuse", model)
    rows: list[Row] = []
    codes: list[str] = []
    _fuse(model, "", rows, codes)
    return Report("fused", tuple(rows), "places", "\n".join(codes))


def _fuse(module: nn.Module, path: str, rows: list[Row], codes: list[str]) -> None:
    """Fuse the module, or else its parts."""
    if isinstance(module, jit.ScriptModule) or "forward" in module.__dict__:
        return
    try:
        written, neighbours = _written(module)
    except RefusalError as why:
        if any(True for _ in module.children()) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            rows.append(Row(path, plain(type(module)).__name__, False, f"left: {why}"))
        for name, child in module.named_children():
            _fuse(child, f"{path}.{name}" if path else name, rows, codes)
        return
    calls = [str(node.target) for node in neighbours.graph.nodes if node.op == "call_module"]
    for places, kind, done, remark in neighbours.places:
        inside = ", ".join(f"{path}.{place}" if path else place for place in places.split(", "))
        rows.append(Row(inside, kind, done, remark))
    if any(done for *_, done, _ in neighbours.places):
        by_mode = {module.training: written}
        try:
            by_mode[not module.training] = _in_the_other_mode(module)
        except RefusalError as why:
            rows.append(Row(path, plain(type(module)).__name__, False, f"left in {MODES[not module.training]}: {why}"))
        for mode, one in by_mode.items():
            codes.append(f"# {path or '(the model)'}, in {MODES[mode]}\n{one.source.strip()}\n")
        put_before(module, FusedForward)
        module.__dict__[WRITTEN] = by_mode
    for place in dict.fromkeys(calls):
        child = module.get_submodule(place)
        if has_hooks(child) and any(True for _ in child.children()):
            _fuse(child, f"{path}.{place}" if path else place, rows, codes)


def _in_the_other_mode(module: nn.Module) -> Written:
    """What is written for training if the module is in evaluation, and the other way round."""
    flags = {m: m.training for m in module.modules()}
    try:
        module.train(not module.training)  # a model may have its own `train`, which returns nothing
        return _written(module)[0]
    finally:
        for m, training in flags.items():
            m.training = training


def _written(module: nn.Module) -> tuple[Written, Neighbours]:
    """The module's forward with neighbours taken together, and what was taken. Raises RefusalError."""
    graph, called = traced(module)
    layers = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    neighbours = Neighbours(module, graph)
    neighbours.rewrite()
    code = graph.python_code("self")
    names, defaults = arguments(module)
    title = f"{plain(type(module)).__name__} in {MODES[module.training]}"
    known = {**code.globals, **neighbours.constants}
    written = Written(title, code.src.strip() + "\n", known, names, {name for name in names if name not in defaults})
    written.children = tuple(module._modules)
    written.parts = _parts(module, called, layers, graph)
    return written, neighbours


def _parts(module: nn.Module, called: set[str], layers: set[str], graph: fx.Graph) -> tuple[Part, ...]:
    """What the modules that the trace called must be. `layers` are those that it did not follow.

    The rewritten `graph` calls some of these; those answer for their own hooks and training flags.
    """
    left = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    used = {path.rpartition(".")[0] for path in called} | called
    while more := {path.rpartition(".")[0] for path in used} - used:
        used |= more
    places, parts = {"": 0}, []
    for path, m in module.named_modules():
        if path not in used or not path:
            continue
        parent, _, name = path.rpartition(".")
        settings = tuple((k, m.__dict__[k]) for k in SETTINGS if k in m.__dict__) if path in layers else ()
        children = None if path in layers else tuple(m._modules)
        places[path] = len(places)
        parts.append(Part(places[parent], name, type(m), path not in left, m.training, children, settings))
    return tuple(parts)


def unfuse(model: nn.Module) -> Report:
    """Give back exactly the forward that `fuse` found. -> a Report, to print.

    A class that something else has exchanged since (a parametrisation) stays, and the report says so. Raises TypeError
    for what is no torch.nn.Module.
    """
    refuse_no_module("unfuse", model)
    rows = []
    for path, module in model.named_modules():
        kind: Any = plain(type(module)).__name__
        if take_away(module, FusedForward):
            module.__dict__.pop(WRITTEN, None)
            rows.append(Row(path, kind, True, "unfused"))
        elif isinstance(module, FusedForward):
            rows.append(Row(path, kind, False, "left: its class was exchanged after `fuse`"))
    return Report("unfused", tuple(rows))
