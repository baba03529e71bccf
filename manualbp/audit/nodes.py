"""What the autograd.Functions of a subject keep, and what exactly they return: PyTorch mends some of it silently."""

import gc
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function

from manualbp.audit.report import NOTE, Finding
from manualbp.audit.subject import Subject, drawn

CALLS = 100


def left_behind(subject: Subject) -> Iterator[Finding]:
    """Outputs that live on after 100 calls, when nobody holds them, until the cyclic collector runs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        alive = []
        for _ in range(CALLS):
            pulled = subject.pull()
            alive += [weakref.ref(y) for y in pulled.outputs]
            del pulled
        count = sum(y() is not None for y in alive)
    finally:
        if enabled:
            gc.enable()
    if count > 1:
        what = f"{count} outputs of {CALLS} calls are still in memory: one kept on ctx is in a cycle with its node"
        yield Finding("memory left", NOTE, what)


def on_ctx(subject: Subject) -> Iterator[Finding]:
    """Tensors that a Function put on its ctx past save_for_backward."""
    for function, names in kept_on_ctx(subject):
        what = f"{function} keeps {', '.join('ctx.' + name for name in names)} past save_for_backward: changes in place"
        yield Finding("ctx", NOTE, f"{what} and cycles go unnoticed, and second derivatives are lost")


def kept_on_ctx(subject: Subject) -> list[tuple[str, dict[str, Tensor]]]:
    """The Functions in the graph of the outputs that have tensors on their ctx, by name, with these by name."""
    found = []
    for node in functions(subject.run(subject.leaves())):
        tensors = {name: t for name, t in node.__dict__.items() if isinstance(t, Tensor)}
        if tensors:
            found.append((name_of(node), tensors))
    return found


def functions(outputs: tuple[Tensor, ...]) -> list[Any]:
    """The nodes of the graph behind the outputs that are autograd.Functions."""
    nodes, seen = [y.grad_fn for y in outputs if y.grad_fn is not None], set()
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions if following is not None]
    return [node for node in seen if isinstance(node, BackwardCFunction)]


def name_of(node: Any) -> str:
    return type(node).__name__.removesuffix("Backward")


def returned(subject: Subject) -> Iterator[Finding]:
    """The gradients that a Function returns, before PyTorch sums, casts, moves or drops them."""
    unasked: dict[str, set[int]] = {}
    mended: dict[str, None] = {}

    def look(node: Any, gradients: tuple[Any, ...]) -> None:
        name, following = name_of(node), iter([(to, k) for to, k in node.next_functions if to is not None])
        for i, (g, asked) in enumerate(zip(gradients, node.needs_input_grad, strict=False)):
            if not asked:
                if g is not None:
                    unasked.setdefault(name, set()).add(i)
                continue
            to, k = next(following)
            if g is not None:
                mended.update(dict.fromkeys(_mended(g, to._input_metadata[k], f"{name} returns, for argument {i},")))

    for place in subject.which:  # the others are frozen
        values = subject.leaves([place])
        outputs = tuple(y for y in subject.run(values) if y.requires_grad)
        for node in functions(outputs):
            _watch(node, look)
        if outputs:
            torch.autograd.grad(outputs, values[place], drawn(outputs, 1), allow_unused=True)
    for name, places in unasked.items():
        which = " and ".join(map(str, sorted(places)))
        what = f"{name} works for nobody: it returns a gradient for argument {which}, also where that requires none"
        yield Finding("result", NOTE, what)
    for what in mended:
        yield Finding("result", NOTE, what)


def _watch(node: Any, look: Callable[[Any, tuple[Any, ...]], None]) -> None:
    """Have what this node's backward returns looked at: the node takes its Function from this attribute."""
    function = type(node)._forward_cls
    backward = function.vjp if function.backward is Function.backward else function.backward

    def watched(ctx: Any, *deltas: Tensor | None) -> Any:
        made = backward(ctx, *deltas)
        look(ctx, made if isinstance(made, tuple) else (made,))
        return made

    node._forward_cls = SimpleNamespace(backward=watched, vjp=Function.vjp)


def _mended(g: Tensor, like: Any, begin: str) -> Iterator[str]:
    """In what a gradient is not as what it is of, a tensor's metadata."""
    for what, has, wanted in (
        ("shape", list(g.shape), list(like.shape)),
        ("dtype", g.dtype, like.dtype),
        ("device", g.device, like.device),
    ):
        if has != wanted:
            yield f"{begin} a gradient of {what} {has} in place of {wanted}; PyTorch mends it silently"
    if any(step == 0 and n > 1 for step, n in zip(g.stride(), g.shape, strict=True)):
        yield f"{begin} a gradient that is expanded (stride 0): nobody can change it in place"


NODES = {"result": returned, "memory left": left_behind, "ctx": on_ctx}
