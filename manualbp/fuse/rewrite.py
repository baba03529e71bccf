"""Which layers of a traced model may be run by a rule that is derived for them together: the graph, rewritten.

A value of the graph that an activation made has a recipe: what it is made of. A convolution that takes it keeps that
instead of the value (functional.recompute). A recipe has a few terms at most, since each is one more pass over memory
in backward: a longer sum of a residual network is kept as it is, and the next one starts from it.
"""

import inspect
import operator
from typing import Any

import torch
import torch.nn.functional as T
from torch import fx, nn

from manualbp import nn as by_hand_layers
from manualbp.fuse import pool as fused_pool
from manualbp.fuse.recompute import Recipe
from manualbp.fuse.steps import activated_pool, folded, folds, normalised, reactivated, recorrelated, rectified
from manualbp.fuse.trace import RefusalError, has_hooks

NAMES = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
}


def name_of(activation):
    name = next((NAMES[kind] for kind in type(activation).__mro__ if kind in NAMES), None)
    return "gelu_tanh" if name == "gelu" and activation.approximate == "tanh" else name


MOST_TERMS = 3  # of a recipe: each is a pass over memory in backward
NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
KEEP_INPUT = "gelu", "gelu_tanh", "silu", "hardswish"  # the others keep their output, which the next layer keeps, too
FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((T.relu, torch.relu, T.relu_, torch.relu_, "relu", "relu_"), "relu"),
    **dict.fromkeys((T.sigmoid, torch.sigmoid, "sigmoid"), "sigmoid"),
    **dict.fromkeys((T.tanh, torch.tanh, "tanh"), "tanh"),
    **{T.relu6: "relu6", T.gelu: "gelu", T.silu: "silu", T.hardswish: "hardswish"},
}
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


class Constant:
    """A value that stands in the graph's code by a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Neighbours:
    """A traced model's graph while it is rewritten, and what was done: (paths, kinds, whether, remark) for each place.

    constants: what the names in the graph's code stand for.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph
        self.places: list[tuple[str, str, bool, str]] = []
        self.constants: dict[str, Recipe] = {}
        self.terms: dict[fx.Node, tuple[fx.Node, ...]] = {}
        self.recipes: dict[fx.Node, tuple[Recipe, tuple[fx.Node, ...]]] = {}

    def rewrite(self) -> None:
        """Take together what can be; the graph computes the same."""
        for node in self.graph.nodes:
            self._refuse_shared_changes(node)
        for node in list(self.graph.nodes):
            if node._erased:
                continue
            if self.layer(node, nn.Identity) is not None:
                self._replace(node, node.all_input_nodes[0])
            elif self.layer(node, *NORMS) is not None:
                self._norm(node)
            elif self.activation(node) is not None:
                self._activation(node)
            elif self._adds(node):
                self._sum(node)
            elif self.layer(node, nn.Conv2d) is not None:
                self._convolution(node)

    def layer(self, node: fx.Node, *kinds: type[nn.Module]) -> Any:
        """The layer that the node calls, if it is exactly of one of the kinds (torch.nn or by hand), without hooks."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        layer = self.model.get_submodule(str(node.target))
        known = {*kinds, *(getattr(by_hand_layers, kind.__name__, kind) for kind in kinds)}
        return layer if type(layer) in known and not has_hooks(layer) else None

    def activation(self, node: fx.Node) -> str | None:
        """The name of the activation that the node is."""
        layer = self.layer(node, *NAMES)
        if layer is not None:
            return name_of(layer)
        if node.op not in ("call_function", "call_method") or node.target not in FUNCTIONS or len(node.args) != 1:
            return None
        name, how = FUNCTIONS[node.target], dict(node.kwargs)
        how.pop("inplace", None)
        if name == "gelu":
            name = {"none": "gelu", "tanh": "gelu_tanh"}.get(str(how.pop("approximate", "none")), "")
        return name if name and not how else None

    def _adds(self, node: fx.Node) -> bool:
        called = node.op in ("call_function", "call_method") and node.target in ADDITIONS
        return called and len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)

    def _in_place(self, node: fx.Node) -> bool:
        """Whether the node writes into its first argument, as far as can be seen."""
        if node.op == "call_module":
            inside = self.model.get_submodule(str(node.target)).modules()
            return any(getattr(layer, "inplace", False) for layer in inside)
        if node.op not in ("call_function", "call_method"):
            return False
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        trailing = name.endswith("_") and not name.endswith("__")
        return trailing or node.target in CHANGES or "out" in node.kwargs or asked_in_place(node)

    def _refuse_shared_changes(self, node: fx.Node) -> None:
        """A value that is changed in place while others use it: which of them see it changed is not to be proved."""
        if not self._in_place(node):
            return
        changed = node.args[0] if node.args and "out" not in node.kwargs else None
        if not isinstance(changed, fx.Node) or len(changed.users) > 1 or not self._has_own_memory(changed):
            raise RefusalError(f"{path_of(node)} changes in place what others may use")

    def _has_own_memory(self, node: fx.Node) -> bool:
        """Whether only the node's users have its value: it was made, or it is a view of what nobody else has."""
        if self._in_place(node):
            first = node.args[0] if node.args else None
            return isinstance(first, fx.Node) and self._has_own_memory(first)
        layer = self.layer(node, *LAYERS_THAT_MAKE_MEMORY)
        if layer is not None or node.target in MAKES_MEMORY or self.activation(node) is not None:
            return True
        parts = node.all_input_nodes
        return bool(parts) and all(len(part.users) == 1 and self._has_own_memory(part) for part in parts)

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def _pool_behind(self, node: fx.Node) -> fx.Node | None:
        """The max pooling that alone takes a monotone activation's output."""
        pool = self._only_user(node)
        layer = None if pool is None else self.layer(pool, nn.MaxPool2d)
        monotone = self.activation(node) in fused_pool.ACTIVATIONS
        return pool if monotone and layer is not None and not layer.return_indices else None

    def _norm(self, node: fx.Node) -> None:
        user = self._only_user(node)
        if user is None:
            return self._left(node, "its output goes to several places, or to none")
        phi = self.activation(user)
        joins = self._adds(user) and self._rectified(user) is not None
        if phi is None and not joins:
            return self._left(node, "no activation behind it")
        if phi is not None and self._pool_behind(user) is not None:
            return None  # the two behind it are taken together
        (x,) = node.all_input_nodes
        with self.graph.inserting_before(node):
            three = self.graph.call_function(normalised, (self._module(node), x))
            z, s, t = (self.graph.call_function(operator.getitem, (three, k)) for k in range(3))
        if phi is None:
            self.terms[z] = (x, s, t)
            return self._replace(node, z)
        recipe = Recipe(phi, 1)
        self._took((node, user), "keep their input alone")
        with self.graph.inserting_before(user):
            a = self.graph.call_function(reactivated, (self._module(user), z, self._constant(recipe), x, s, t))
        self.recipes[a] = recipe, (x, s, t)
        self._replace(user, a)
        self._replace(node, z)
        return None

    def _activation(self, node: fx.Node) -> None:
        pool, phi, x = self._pool_behind(node), self.activation(node), node.all_input_nodes[0]
        if pool is not None:
            self._took((node, pool), "pool first; keep the pooled output and a byte a window")
            with self.graph.inserting_before(pool):
                y = self.graph.call_function(activated_pool, (self._module(pool), x, phi, self._flattens(pool)))
            self._replace(pool, y)
            self._replace(node, y)
        elif phi in KEEP_INPUT and not self._in_place(node):
            self.recipes[node] = Recipe(str(phi), 0, plain=True), (x,)
        elif phi == "relu" and all(self._keeps_nothing(user) for user in node.users):
            self._by_bits(node)

    def _flattens(self, node: fx.Node) -> bool:
        """Whether all that the node's value is for is to be one axis for maps and places."""
        return all(
            self.layer(user, nn.Flatten) is not None or user.target in (torch.flatten, "flatten", "view", "reshape")
            for user in node.users
        )

    def _sum(self, node: fx.Node) -> None:
        """The rectified sum of a residual network: batch norms, an image, an earlier sum."""
        if self._in_place(node):  # nobody else has the value; but it may be kept here
            node.target = "add" if node.op == "call_method" else operator.add
        rectified = self._rectified(node)
        parts = node.all_input_nodes
        if rectified is None or len(parts) != 2 or not any(part in self.terms for part in parts):
            return
        sources = [source for part in parts for source in self.terms.get(part, ())]
        rest = [part for part in parts if part not in self.terms]
        base = self.recipes.get(rest[0]) if rest else None
        recipe = Recipe("relu", len(parts) - len(rest), bool(rest) and base is None, base[0] if base else None)
        if depth(recipe) <= MOST_TERMS:
            more = base[1] if base else tuple(rest)
            self.recipes[self._by_bits(rectified)] = recipe, (*sources, *more)
        elif all(self._keeps_nothing(user) for user in rectified.users):
            self._by_bits(rectified)

    def _rectified(self, node: fx.Node) -> fx.Node | None:
        """The ReLU that alone takes a sum."""
        user = self._only_user(node)
        return user if user is not None and self.activation(user) == "relu" else None

    def _by_bits(self, node: fx.Node) -> fx.Node:
        self._took((node,), "keeps a bit a number")
        with self.graph.inserting_before(node):
            bits = self.graph.call_function(rectified, (self._module(node), node.all_input_nodes[0]))
        self._replace(node, bits)
        return bits

    def _keeps_nothing(self, user: fx.Node) -> bool:
        if user.op == "call_module":
            layer = self.model.get_submodule(str(user.target))
            by_bytes = type(layer) is by_hand_layers.MaxPool2d and not layer.return_indices
            return by_bytes or self.layer(user, *POOLS_THAT_KEEP_NOTHING) is not None
        return user.target in KEEPS_NOTHING

    def _convolution(self, node: fx.Node) -> None:
        conv, (x,) = self.layer(node, nn.Conv2d), node.all_input_nodes
        pool = self._only_user(node)
        if conv.padding_mode != "zeros":
            return
        if x in self.recipes:
            recipe, sources = self.recipes[x]
            self._took((node,), "keeps what its input is made of")
            with self.graph.inserting_before(node):
                y = self.graph.call_function(recorrelated, (self._module(node), x, self._constant(recipe), *sources))
            self._replace(node, y)
        elif pool is not None and self.layer(pool, nn.AvgPool2d) and folds(conv, self.layer(pool, nn.AvgPool2d)):
            self._took((node, pool), "are one convolution")
            with self.graph.inserting_before(pool):
                y = self.graph.call_function(folded, (self._module(node), self._module(pool), x))
            self._replace(pool, y)
            self.graph.erase_node(node)

    def _module(self, node: fx.Node) -> fx.Node | None:
        """The layer that the node calls, as a value of the graph; None for a function."""
        return self.graph.get_attr(str(node.target)) if node.op == "call_module" else None

    def _constant(self, recipe: Recipe) -> Any:
        name = next(
            (name for name, known in self.constants.items() if known == recipe), f"RECIPE_{len(self.constants)}"
        )
        self.constants[name] = recipe
        return Constant(name)

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        """Both behind each other or apart: `by` may have been made of `node`."""
        node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)
        self.graph.erase_node(node)

    def _took(self, nodes: tuple[fx.Node, ...], remark: str) -> None:
        self.places.append((", ".join(map(str, map(path_of, nodes))), ", ".join(map(self._kind, nodes)), True, remark))

    def _left(self, node: fx.Node, why: str) -> None:
        self.places.append((path_of(node), self._kind(node), False, f"left: {why}"))

    def _kind(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))).__name__
        return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def depth(recipe: Recipe | None) -> int:
    """How many terms are computed."""
    return 0 if recipe is None else recipe.terms + depth(recipe.base)


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
