"""What a node of a traced model's graph is: a layer, a function, an activation, a sum; in place or not."""

import inspect
import operator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as T
from torch import fx, nn

from manualbp import nn as by_hand_layers
from manualbp.functional.activation.table import OF_MODULE, Activation, of_call, of_layer
from manualbp.fuse.trace import has_hooks

NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
DROPOUTS = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout
DROPOUT_FUNCTIONS = T.dropout, T.dropout1d, T.dropout2d, T.dropout3d
ADDITIONS = operator.add, operator.iadd, torch.add, "add", "add_"
PRODUCTS = operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"
CHANGES = operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem
# What asks for a value's extents or kind, and not for its numbers.
METADATA = "size", "dim", "numel", "nelement", "is_floating_point", "is_contiguous", "stride", "get_device"
ATTRIBUTES = "shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "layout"
# The bilinear layers, each a step of manualbp.fuse.steps: torch.nn's, their functions, and the arguments of these.
_CONV = ("weight", None), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)
_TRANSPOSED = (*_CONV[:4], ("output_padding", 0), ("groups", 1), ("dilation", 1))
FACTORS: list[tuple[str, tuple[Any, ...], tuple[Any, ...], tuple[tuple[str, Any], ...]]] = [
    ("recorrelated", CONVOLUTIONS, (T.conv1d, T.conv2d, T.conv3d), _CONV),
    ("retransposed", TRANSPOSED, (T.conv_transpose1d, T.conv_transpose2d, T.conv_transpose3d), _TRANSPOSED),
    ("relinear", (nn.Linear,), (T.linear,), _CONV[:2]),
]


@dataclass(frozen=True)
class Call:
    """A layer or function of the input `x`. `settings`: what follows x among the function's arguments.

    They are None for a layer, which is asked for them when it runs. step: the name of what it is run by.
    """

    step: str
    x: fx.Node
    settings: tuple[Any, ...] | None


class Reading:
    """A traced model's graph, and what its nodes are."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph

    def layer(self, node: fx.Node, *kinds: type[nn.Module]) -> Any:
        """The layer that the node calls, if it is exactly of one of the kinds (torch.nn or by hand), without hooks."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        layer = self.model.get_submodule(str(node.target))
        return layer if type(layer) in with_by_hand(kinds) and not has_hooks(layer) else None

    def activation(self, node: fx.Node) -> Activation | None:
        """The activation that the node is, of its first argument."""
        layer = self.layer(node, *OF_MODULE)
        if layer is not None:
            return of_layer(layer)
        if node.op not in ("call_function", "call_method") or not node.args or not isinstance(node.args[0], fx.Node):
            return None
        return of_call(node.target, node.args[1:], dict(node.kwargs))

    def batch_norm(self, node: fx.Node) -> Call | None:
        """Batch norm, as a layer or as a function of numbers that the trace knows."""
        if self.layer(node, *NORMS) is not None:
            return Call("normalised", node.all_input_nodes[0], None)
        if node.op != "call_function" or node.target is not T.batch_norm:
            return None
        try:
            given = inspect.signature(T.batch_norm).bind(*node.args, **node.kwargs)
        except TypeError:
            return None
        given.apply_defaults()
        x, *tensors, training, momentum, eps = given.arguments.values()
        known = all(isinstance(a, bool | int | float) for a in (training, momentum, eps))
        mine = isinstance(x, fx.Node) and all(t is None or (isinstance(t, fx.Node) and t is not x) for t in tensors)
        return Call("normalised", x, (*tensors, training, momentum, eps)) if known and mine else None

    def statistics(self, node: fx.Node, norm: Call) -> str:
        """Where the running mean stands that PyTorch's batch norm, as a layer or as a function, keeps and updates."""
        if norm.settings is None:
            theirs = type(self.model.get_submodule(str(node.target))) in NORMS
            return f"{node.target}.running_mean" if theirs else node.name
        mean = norm.settings[0]
        return str(mean.target) if isinstance(mean, fx.Node) else node.name

    def factor(self, node: fx.Node) -> Call | None:
        """A bilinear layer whose input may be computed again: a convolution, transposed or not, a linear layer."""
        for step, layers, functions, names in FACTORS:
            layer = self.layer(node, *layers)
            if layer is not None:
                zeros = getattr(layer, "padding_mode", "zeros") == "zeros"
                return Call(step, node.all_input_nodes[0], None) if zeros else None
            if node.op == "call_function" and node.target in functions and len(node.args) <= 1 + len(names):
                given = {**dict(names), **dict(zip(("input", *dict(names)), node.args, strict=False)), **node.kwargs}
                x = given.pop("input", None)
                w, b, *others = (given.pop(name) for name, _ in names)
                known = not given and not any(isinstance(a, fx.Node) for a in others)
                mine = all(isinstance(t, fx.Node) for t in (x, w)) and x not in (w, b)
                return Call(step, x, (w, b, *others)) if known and mine else None  # pyright: ignore[reportArgumentType]
        return None

    def _two(self, node: fx.Node, targets: tuple[Any, ...]) -> bool:
        called = node.op in ("call_function", "call_method") and node.target in targets
        return called and len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)

    def adds(self, node: fx.Node) -> bool:
        """Whether it is a sum of two values."""
        return self._two(node, ADDITIONS)

    def multiplies(self, node: fx.Node) -> bool:
        """Whether it is a product of two different values."""
        return self._two(node, PRODUCTS) and len(node.all_input_nodes) == 2

    def of_what_is_made(self, node: fx.Node) -> bool:
        """Whether one of its values may be computed again. Other sums have the layout of what they are written into."""
        kinds = self.batch_norm, self.activation, self.adds, self.multiplies, self.joined
        return any(kind(part) for part in node.all_input_nodes for kind in kinds)

    def joined(self, node: fx.Node) -> tuple[list[fx.Node], int] | None:
        """What the node concatenates, and along which axis."""
        if node.op != "call_function" or node.target not in (torch.cat, torch.concat):
            return None
        given = {**dict(zip(("tensors", "dim"), node.args, strict=False)), **node.kwargs}
        parts, axis = given.pop("tensors", None), given.pop("dim", given.pop("axis", 0))
        if given or not isinstance(axis, int) or not isinstance(parts, list | tuple):
            return None
        nodes = [part for part in parts if isinstance(part, fx.Node)]
        return (nodes, axis) if len(nodes) == len(parts) else None

    def hands_on(self, node: fx.Node) -> bool:
        """Whether the node is its first argument itself: nn.Identity, and a dropout that drops nothing."""
        if self.layer(node, nn.Identity) is not None:
            return True
        layer = self.layer(node, *DROPOUTS)
        if layer is not None:
            return not layer.training or layer.p == 0
        if node.op != "call_function" or node.target not in DROPOUT_FUNCTIONS:
            return False
        given = {**dict(zip(("input", "p", "training"), node.args, strict=False)), **node.kwargs}
        drops_nothing = given.get("training") is False or given.get("p") in (0, 0.0)
        return isinstance(given.get("input"), fx.Node) and drops_nothing

    def in_place(self, node: fx.Node) -> bool:
        """Whether the node writes into its first argument, as far as can be seen."""
        if node.op == "call_module":
            inside = self.model.get_submodule(str(node.target)).modules()
            return any(getattr(layer, "inplace", False) for layer in inside)
        if node.op not in ("call_function", "call_method"):
            return False
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        trailing = name.endswith("_") and not name.endswith("__")
        return trailing or node.target in CHANGES or "out" in node.kwargs or asked_in_place(node)

    def users(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that take its numbers, and not its extents alone."""
        return [user for user in node.users if not asks_extents(user, node)]

    def only_user(self, node: fx.Node) -> fx.Node | None:
        users = self.users(node)
        return users[0] if len(users) == 1 else None

    def kind_of(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))).__name__
        return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


@cache
def with_by_hand(kinds: tuple[type[nn.Module], ...]) -> set[type[nn.Module]]:
    """torch.nn's layers, and manualbp.nn's of the same names."""
    return {*kinds, *(getattr(by_hand_layers, kind.__name__, kind) for kind in kinds)}


def asks_extents(user: fx.Node, node: fx.Node) -> bool:
    """Whether the user asks for the node's extents or kind alone."""
    if user.op == "call_method" and user.target in METADATA:
        return True
    if user.op == "call_method" and user.target in ("expand_as", "view_as", "reshape_as", "type_as"):
        return user.args[0] is not node
    return user.op == "call_function" and user.target is getattr and user.args[1] in ATTRIBUTES


def path_of(node: fx.Node) -> str:
    """Where a layer stands in the model; of a function: where it is called."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    inside = [path for path, _ in stack.values()]
    return f"{inside[-1]}.{node.name}" if inside and inside[-1] else node.name


def asked_in_place(node: fx.Node) -> bool:
    """Whether the function has an argument `inplace`, and it is given."""
    if isinstance(node.target, str):
        return False
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # it has no signature
        return bool(node.kwargs.get("inplace"))
    return bool(given.get("inplace"))
