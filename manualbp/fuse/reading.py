"""What a node of a traced model's graph is: a layer, an activation, a sum; in place or not; whose memory it is in."""

import inspect
import operator
from typing import Any

import torch
import torch.nn.functional as T
from torch import fx, nn

from manualbp import nn as by_hand_layers
from manualbp.functional.activation.table import ACTIVATIONS, name_of_layer
from manualbp.fuse.trace import RefusalError, has_hooks

NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
LAYERS = [kind for phi in ACTIVATIONS.values() for kind in phi.modules]
FUNCTIONS = {function: name for name, phi in ACTIVATIONS.items() for function in phi.functions}
ADDITIONS = operator.add, operator.iadd, torch.add, "add", "add_"
CHANGES = operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem
# What keeps nothing of its input, by hand and by PyTorch.
KEEPS_NOTHING = *ADDITIONS, torch.cat, T.adaptive_avg_pool2d, T.avg_pool2d, "mean", torch.mean
POOLS_THAT_KEEP_NOTHING = nn.AvgPool2d, nn.AdaptiveAvgPool2d
# What puts its result into memory of its own, so that only its users can have it.
MAKES_MEMORY = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.matmul),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.cat, torch.matmul),
    *("add", "sub", "mul", "div", "mean", "sum", "clone"),
    *(T.conv1d, T.conv2d, T.conv3d, T.conv_transpose2d, T.linear, T.batch_norm, T.layer_norm, T.group_norm),
    *(T.max_pool2d, T.avg_pool2d, T.adaptive_avg_pool2d, T.interpolate),
)
LAYERS_THAT_MAKE_MEMORY = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample),
)


class Reading:
    """A traced model's graph, and what its nodes are."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph

    def layer(self, node: fx.Node, *kinds: type[nn.Module]) -> Any:
        """The layer that the node calls, if it is exactly of one of the kinds (torch.nn or by hand), without hooks."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        layer = self.model.get_submodule(str(node.target))
        known = {*kinds, *(getattr(by_hand_layers, kind.__name__, kind) for kind in kinds)}
        return layer if type(layer) in known and not has_hooks(layer) else None

    def activation(self, node: fx.Node) -> str | None:
        """The name of the activation that the node is."""
        layer = self.layer(node, *LAYERS)
        if layer is not None:
            return name_of_layer(layer)
        if node.op not in ("call_function", "call_method") or node.target not in FUNCTIONS or len(node.args) != 1:
            return None
        name, how = FUNCTIONS[node.target], dict(node.kwargs)
        how.pop("inplace", None)
        if name == "gelu":
            name = {"none": "gelu", "tanh": "gelu_tanh"}.get(str(how.pop("approximate", "none")), "")
        return name if name and not how else None

    def adds(self, node: fx.Node) -> bool:
        called = node.op in ("call_function", "call_method") and node.target in ADDITIONS
        return called and len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)

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

    def has_own_memory(self, node: fx.Node) -> bool:
        """Whether only the node's users have its value: it was made, or it is a view of what nobody else has."""
        if self.in_place(node):
            first = node.args[0] if node.args else None
            return isinstance(first, fx.Node) and self.has_own_memory(first)
        layer = self.layer(node, *LAYERS_THAT_MAKE_MEMORY)
        if layer is not None or node.target in MAKES_MEMORY or self.activation(node) is not None:
            return True
        parts = node.all_input_nodes
        return bool(parts) and all(len(part.users) == 1 and self.has_own_memory(part) for part in parts)

    def keeps_nothing(self, user: fx.Node) -> bool:
        if user.op == "call_module":
            layer = self.model.get_submodule(str(user.target))
            by_bytes = type(layer) is by_hand_layers.MaxPool2d and not layer.return_indices
            return by_bytes or self.layer(user, *POOLS_THAT_KEEP_NOTHING) is not None
        return user.target in KEEPS_NOTHING

    def only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def refuse_shared_changes(self, node: fx.Node) -> None:
        """A value that is changed in place while others use it: which of them see it changed is not to be proved."""
        if not self.in_place(node):
            return
        changed = node.args[0] if node.args and "out" not in node.kwargs else None
        if not isinstance(changed, fx.Node) or len(changed.users) > 1 or not self.has_own_memory(changed):
            raise RefusalError(f"{path_of(node)} changes in place what others may use")

    def kind_of(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))).__name__
        return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


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
