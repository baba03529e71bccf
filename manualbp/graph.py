"""The graph that a computed output has: its nodes, and the tensors that are reached from an object."""

import gc
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

# What is not looked into: it is not made by a forward pass, or leads to everything there is.
ENDS = type, ModuleType, FrameType, CodeType, nn.Module, str, bytes, int, float, complex


def tensors_in(*held: Any, seen: dict[int, Any] | None = None) -> Iterator[Tensor]:
    """The tensors that are reached from these objects, each once.

    In lists, tuples, dicts, dataclasses, attributes and slots of any object, and what functions close over. Modules are
    not looked into, nor is what functions name globally. seen: what need not be looked into again, by its id.
    """
    seen = {} if seen is None else seen  # keeps what it has seen, or else another object could take its id
    waiting = [*reversed(held)]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, ENDS):
            continue
        seen[id(one)] = one
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, FunctionType):
            waiting += [one.__closure__, one.__defaults__, one.__kwdefaults__]
        else:
            waiting += reversed(gc.get_referents(one))


def nodes(waiting: list[Any]) -> Iterator[Any]:
    """Every node that is reached from these, once. The list may grow while it is walked; None in it is passed over."""
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def dense(t: Tensor) -> Iterator[Tensor]:
    """The tensors with a storage of their own that t is made of: itself, or the parts of a sparse or a nested one."""
    if hasattr(t, "__tensor_flatten__"):
        for name in t.__tensor_flatten__()[0]:  # pyright: ignore[reportAttributeAccessIssue]
            part = getattr(t, name)  # or what is no tensor, as a DTensor's mesh
            yield from dense(part) if isinstance(part, Tensor) else ()
        return
    layout = str(t.layout)
    if layout == "torch.sparse_coo":
        yield from (t._indices(), t._values())
    elif layout in ("torch.sparse_csr", "torch.sparse_bsr"):
        yield from (t.crow_indices(), t.col_indices(), t.values())
    elif layout in ("torch.sparse_csc", "torch.sparse_bsc"):
        yield from (t.ccol_indices(), t.row_indices(), t.values())
    elif layout != "torch._mkldnn":
        yield t
