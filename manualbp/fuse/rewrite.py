"""Which layers of a traced model may be run by a rule that is derived for them together: the graph, rewritten.

A value of the graph that an activation made has a recipe: what it is made of. A convolution that takes it keeps that
instead of the value (fuse.recompute). A recipe has a few terms at most, since each is one more pass over memory
in backward: a longer sum of a residual network is kept as it is, and the next one starts from it.
"""

import operator
from typing import Any

import torch
from torch import fx, nn

from manualbp.functional.activation.table import ACTIVATIONS
from manualbp.fuse.pool import MONOTONE
from manualbp.fuse.reading import NORMS, Reading, path_of
from manualbp.fuse.recompute import Recipe
from manualbp.fuse.steps import activated_pool, folded, folds, normalised, reactivated, recorrelated, rectified

MOST_TERMS = 3  # of a recipe: each is a pass over memory in backward


class Constant:
    """A value that stands in the graph's code by a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Neighbours(Reading):
    """A traced model's graph while it is rewritten, and what was done: (paths, kinds, whether, remark) for each place.

    constants: what the names in the graph's code stand for.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph)
        self.places: list[tuple[str, str, bool, str]] = []
        self.constants: dict[str, Recipe] = {}
        self.terms: dict[fx.Node, tuple[fx.Node, ...]] = {}
        self.recipes: dict[fx.Node, tuple[Recipe, tuple[fx.Node, ...]]] = {}

    def rewrite(self) -> None:
        """Take together what can be; the graph computes the same."""
        for node in self.graph.nodes:
            self.refuse_shared_changes(node)
        for node in list(self.graph.nodes):
            if node._erased:
                continue
            if self.layer(node, nn.Identity) is not None:
                self._replace(node, node.all_input_nodes[0])
            elif self.layer(node, *NORMS) is not None:
                self._norm(node)
            elif self.activation(node) is not None:
                self._activation(node)
            elif self.adds(node):
                self._sum(node)
            elif self.layer(node, nn.Conv2d) is not None:
                self._convolution(node)

    def _pool_behind(self, node: fx.Node) -> fx.Node | None:
        """The max pooling that alone takes a monotone activation's output."""
        pool = self.only_user(node)
        layer = None if pool is None else self.layer(pool, nn.MaxPool2d)
        monotone = self.activation(node) in MONOTONE
        return pool if monotone and layer is not None and not layer.return_indices else None

    def _norm(self, node: fx.Node) -> None:
        user = self.only_user(node)
        if user is None:
            return self._left(node, "its output goes to several places, or to none")
        phi = self.activation(user)
        joins = self.adds(user) and self._rectified(user) is not None
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
        elif phi is not None and not ACTIVATIONS[phi].of_output and not self.in_place(node):
            self.recipes[node] = Recipe(str(phi), 0, plain=True), (x,)
        elif phi == "relu" and all(self.keeps_nothing(user) for user in node.users):
            self._by_bits(node)

    def _flattens(self, node: fx.Node) -> bool:
        """Whether all that the node's value is for is to be one axis for maps and places."""
        return all(
            self.layer(user, nn.Flatten) is not None or user.target in (torch.flatten, "flatten", "view", "reshape")
            for user in node.users
        )

    def _sum(self, node: fx.Node) -> None:
        """The rectified sum of a residual network: batch norms, an image, an earlier sum."""
        if self.in_place(node):  # nobody else has the value; but it may be kept here
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
        elif all(self.keeps_nothing(user) for user in rectified.users):
            self._by_bits(rectified)

    def _rectified(self, node: fx.Node) -> fx.Node | None:
        """The ReLU that alone takes a sum."""
        user = self.only_user(node)
        return user if user is not None and self.activation(user) == "relu" else None

    def _by_bits(self, node: fx.Node) -> fx.Node:
        self._took((node,), "keeps a bit a number")
        with self.graph.inserting_before(node):
            bits = self.graph.call_function(rectified, (self._module(node), node.all_input_nodes[0]))
        self._replace(node, bits)
        return bits

    def _convolution(self, node: fx.Node) -> None:
        conv, (x,) = self.layer(node, nn.Conv2d), node.all_input_nodes
        pool = self.only_user(node)
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
        self.places.append(
            (", ".join(map(str, map(path_of, nodes))), ", ".join(map(self.kind_of, nodes)), True, remark)
        )

    def _left(self, node: fx.Node, why: str) -> None:
        self.places.append((path_of(node), self.kind_of(node), False, f"left: {why}"))


def depth(recipe: Recipe | None) -> int:
    """How many terms are computed."""
    return 0 if recipe is None else recipe.terms + depth(recipe.base)
