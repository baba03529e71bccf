"""Which backward nodes of a computed output are by hand, and which are PyTorch's."""

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.autograd.function import BackwardCFunction

from manualbp.functional.rule import Rule
from manualbp.graph import nodes, tensors_in

TITLES = {
    "by_hand": "by hand",
    "layers": "PyTorch, layers",
    "arithmetic": "PyTorch, arithmetic",
    "views": "PyTorch, views",
    "others": "others' Functions and custom ops",
    "compiled": "compiled, not seen inside",
    "checkpoints": "checkpoints, not seen inside",
    "hooks": "hooks of modules",
}
ALWAYS = "by_hand", "layers", "arithmetic", "views"  # shown also where there are none
# By the names of PyTorch's nodes, without "Backward0". What is in neither list counts as a layer.
ARITHMETIC = {
    *("Abs", "Add", "Addcdiv", "Addcmul", "Amax", "Amin", "Ceil", "Clamp", "ClampMax", "ClampMin", "Cos", "Cumsum"),
    *("Div", "Erf", "Exp", "Expm1", "Floor", "Fmod", "Frac", "Lerp", "Log", "Log1P", "Log2", "Log10", "MaskedFill"),
    *("Max", "Maximum", "Mean", "Min", "Minimum", "Mul", "Neg", "Norm", "Pow", "Prod", "Reciprocal", "Remainder"),
    *("Round", "Rsqrt", "Rsub", "Sgn", "Sign", "Sin", "Sqrt", "Std", "Sub", "Sum", "Tan", "Trunc", "Var", "Where"),
    "Zero",
}
VIEWS = {
    *("Alias", "AsStrided", "Cat", "ChannelShuffle", "Chunk", "Clone", "Copy", "CopySlices", "Detach", "Diagonal"),
    *("Expand", "Flip", "Gather", "Index", "IndexPut", "IndexSelect", "MaskedScatter", "MaskedSelect", "Mt", "Narrow"),
    *("Permute", "PixelShuffle", "PixelUnshuffle", "Repeat", "ReshapeAlias", "Roll", "Scatter", "Select", "Slice"),
    *("Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Tril", "Triu", "Unbind", "Unfold"),
    *("UnsafeSplit", "UnsafeView", "Unsqueeze", "View", "ViewAsComplex", "ViewAsReal"),
}


@dataclass(frozen=True)
class Coverage:
    """The nodes of a graph by their names, each with the number of times that it is there; prints as a table.

    by_hand: rules of manualbp. arithmetic and views: PyTorch's nodes for sums, products and means, and for numbers
    that only change places. layers: PyTorch's others, which is what `by_hand` and `convert` are there to replace;
    inside `by_hand` also what a rule refuses, as interpolate's antialias: it runs as PyTorch's own.

    others: the torch.autograd.Functions of the model's own or of another package, and custom operators with a gradient
    of theirs. compiled and checkpoints: one node for a function that torch.compile made, or that a reentrant checkpoint
    will run again; whether its inside is by hand is not seen. hooks: what a module's full backward hooks put in.
    """

    by_hand: Mapping[str, int]
    arithmetic: Mapping[str, int]
    views: Mapping[str, int]
    layers: Mapping[str, int]
    others: Mapping[str, int]
    compiled: Mapping[str, int]
    checkpoints: Mapping[str, int]
    hooks: Mapping[str, int]

    def __str__(self) -> str:
        shown = [(title, getattr(self, part)) for part, title in TITLES.items()]
        shown = [(title, found) for title, found in shown if found or title in map(TITLES.get, ALWAYS)]
        names = max(len(name) for _, found in shown for name in ["", *found])
        room = max(24, 2 + names, *(len(title) for title, _ in shown))
        lines = []
        for title, found in shown:
            lines.append(f"{title:{room}}{sum(found.values()):6}")
            in_order = sorted(found.items(), key=lambda node: (-node[1], node[0]))
            lines += [f"  {name:{room - 2}}{n:6}" for name, n in in_order]
        return "\n".join(lines)


def coverage(output: Any) -> Coverage:
    """The backward nodes that lead from `output` to the leaves, counted by name.

    output: a tensor, or what holds tensors: lists, tuples, dicts, dataclasses, any object (what a model returns). The
    graph must be there still: ask before or after backward, under grad mode.
    Raises ValueError where no tensor of the output has a graph, TypeError where there is no tensor.
    """
    tensors = list(tensors_in(output))
    if not tensors:
        raise TypeError(f"coverage: output is a {type(output).__name__}; it must be a tensor, or hold tensors")
    roots = [t.grad_fn for t in tensors if t.grad_fn is not None]
    if not roots:
        raise ValueError(
            "coverage: no tensor of output has a graph (grad_fn is None); compute it from inputs or parameters that "
            "require a gradient, with grad mode on"
        )
    counts = {part: Counter[str]() for part in TITLES}
    for node in nodes(roots):
        part, name = _part_and_name(node)
        if name != "AccumulateGrad":
            counts[part][name] += 1
    return Coverage(**counts)


def function_of(node: Any) -> type | None:
    """The torch.autograd.Function that a node runs the backward of: of those that vmap made, the one they stand for."""
    if not isinstance(node, BackwardCFunction):
        return None
    function = type(node)._forward_cls  # pyright: ignore[reportAttributeAccessIssue]
    while function.__module__ == "torch._functorch.autograd_function":
        inner = inspect.getclosurevars(function.forward).nonlocals.get("autograd_function")
        if inner is None:
            break
        function = inner
    return function


def _part_and_name(node: Any) -> tuple[str, str]:
    """The part that the node counts in, and its name there."""
    function = function_of(node)
    if function is None:
        of_cpp = re.match(r"torch::autograd::CppNode<(?:.*::)?(\w+)", node.name())
        if of_cpp:
            return "others", of_cpp[1]
        name = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
        return "arithmetic" if name in ARITHMETIC else "views" if name in VIEWS else "layers", name
    name, module = function.__name__, function.__module__
    if issubclass(function, Rule):
        return "by_hand", name
    if module == "torch._library.autograd":
        return "others", re.sub(r"^GeneratedBackwardFor_(\w+?)(_default)?$", r"\1", name)
    if module.startswith("torch._functorch._aot_autograd."):
        return "compiled", name
    if module == "torch.utils.checkpoint":
        return "checkpoints", name
    if module == "torch.nn.modules._functions" and name == "BackwardHookFunction":
        return "hooks", name
    return "layers" if module.startswith("torch.") else "others", name
