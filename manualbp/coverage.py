"""Which backward nodes of a computed output are by hand, and which are PyTorch's."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from manualbp.functional.rule import Rule

# By the names of PyTorch's nodes, without "Backward0". What is in neither list counts as a layer.
ARITHMETIC = {
    *("Abs", "Add", "Clamp", "ClampMax", "ClampMin", "Cumsum", "Div", "Exp", "Log", "MaskedFill", "Maximum", "Mean"),
    *("Minimum", "Mul", "Neg", "Norm", "Pow", "Prod", "Reciprocal", "Rsqrt", "Rsub", "Sqrt", "Sub", "Sum", "Var"),
    *("Where", "Zero"),
}
VIEWS = {
    *("Alias", "AsStrided", "Cat", "ChannelShuffle", "Chunk", "Clone", "Copy", "CopySlices", "Diagonal"),
    *("Expand", "Flip", "Gather", "Index", "IndexSelect", "Mt", "Narrow", "Permute", "PixelShuffle", "PixelUnshuffle"),
    *("Repeat", "ReshapeAlias", "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T"),
    *("ToCopy", "Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View"),
}


@dataclass(frozen=True)
class Coverage:
    """The nodes of a graph by their names, each with the number of times that it is there; prints as a table.

    by_hand: rules of manualbp. arithmetic and views: PyTorch's nodes for sums, products and means, and for numbers
    that only change places. layers: all others, which is what `by_hand` and `convert` are there to replace; inside
    `by_hand` also what a rule refuses, as interpolate's bicubic: it runs as PyTorch's own.
    """

    by_hand: Mapping[str, int]
    arithmetic: Mapping[str, int]
    views: Mapping[str, int]
    layers: Mapping[str, int]

    def __str__(self) -> str:
        parts = {
            "by hand": self.by_hand,
            "PyTorch, layers": self.layers,
            "PyTorch, arithmetic": self.arithmetic,
            "PyTorch, views": self.views,
        }
        lines = []
        for title, nodes in parts.items():
            lines.append(f"{title:24}{sum(nodes.values()):6}")
            lines += [f"  {name:22}{n:6}" for name, n in sorted(nodes.items(), key=lambda node: (-node[1], node[0]))]
        return "\n".join(lines)


def coverage(output: Any) -> Coverage:
    """The backward nodes that lead from `output` to the leaves, counted by name.

    output: a tensor, or tensors in lists, tuples and dicts (what a model returns). The graph must be there still: ask
    before or after backward, under grad mode. What torch.compile made is one node of PyTorch's, whatever is inside.
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
    counts = {part: Counter[str]() for part in ("by_hand", "arithmetic", "views", "layers")}
    for node in _nodes(roots):
        name = re.sub(r"Backwards?\d*$", "", node.name().rpartition("::")[2])
        if isinstance(node, BackwardCFunction):
            function = type(node)._forward_cls  # pyright: ignore[reportAttributeAccessIssue]
            part = "by_hand" if issubclass(function, Rule) else "layers"
        else:
            part = "arithmetic" if name in ARITHMETIC else "views" if name in VIEWS else "layers"
        if name != "AccumulateGrad":
            counts[part][name] += 1
    return Coverage(**counts)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors of what a model takes or returns: one, or lists, tuples and dicts of them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_in(value)


def _nodes(roots: Iterable[Any]) -> Iterator[Any]:
    """Every node that can be reached, once."""
    seen, waiting = set(), list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions if following is not None]
