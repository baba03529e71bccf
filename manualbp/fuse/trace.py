"""A module's forward as a graph, or the reason why it is none.

torch.fx exchanges methods of `nn.Module` for the whole process while it traces, so that another thread's model fails
meanwhile. So nothing here runs inside a forward pass: `fuse` traces when it is called.
"""

import copy
import inspect
import operator
import random
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import fx, jit, nn
from torch.fx.immutable_collections import immutable_dict

from manualbp import nn as by_hand_layers
from manualbp.classes import plain


class RefusalError(Exception):
    """The model does something that the rules here do not allow for."""


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
        self.modes, self.called = modes(), set[str]()
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
        return (
            super().is_leaf_module(m, module_qualified_name)
            or type(m).__module__.startswith(f"{by_hand_layers.__name__}.")
            or isinstance(m, jit.ScriptModule)
            or has_hooks(m)
            or "forward" in m.__dict__
        )

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.called.add(self.path_of_module(m))
        if plain(type(m)) is not type(m):
            forward = partial(plain(type(m)).forward, m)  # the rules cannot be traced
        return super().call_module(m, forward, args, kwargs)


def modes() -> tuple[Any, ...]:
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


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called beside the module's forward."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def arguments(module: nn.Module) -> tuple[list[str], dict[str, Any]]:
    """The names of what the module's forward takes, and the defaults. Raises RefusalError for any number of them."""
    _, *parameters = inspect.signature(plain(type(module)).forward).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise RefusalError("it takes any number of arguments")
    return [p.name for p in parameters], {p.name: p.default for p in parameters if p.default is not p.empty}


def traced(module: nn.Module) -> tuple[fx.Graph, set[str]]:
    """The module's forward as a graph, its optional arguments left out, and the paths of the modules that it called.

    Raises RefusalError where that is none.
    """
    _, defaults = arguments(module)
    known = {name: a for name, a in defaults.items() if a is None or isinstance(a, bool | int | float | str)}
    before, drawn, kind = held(module), (random.getstate(), torch.get_rng_state()), type(module)
    try:
        module.__class__ = plain(kind)  # whose forward is the module's own
        tracer = Tracer()
        graph = tracer.trace(module, known or None)
    except RefusalError:
        raise
    except Exception as error:  # whatever a forward does with a value that has no numbers
        why = str(error).strip().partition("\n")[0]
        raise RefusalError(f"torch.fx cannot follow it: {why}") from error
    finally:
        module.__class__ = kind
        changed = put_back(before)
        drew = random.getstate() != drawn[0] or not torch.equal(torch.get_rng_state(), drawn[1])
        random.setstate(drawn[0])
        torch.set_rng_state(drawn[1])
    if changed:  # torch.fx puts tensors that a forward makes into the module
        raise RefusalError("it makes tensors, or changes what the module holds")
    if drew:
        raise RefusalError("it does not do the same each time: it draws at random")
    return graph, tracer.called


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
