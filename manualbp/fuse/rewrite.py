"""Which layers of a traced model may be run by a rule that is derived for them together: the graph, rewritten.

A value of the graph has a recipe where something keeps what it is made of anyway: a batch norm its input. A layer that
takes the value keeps that instead of the value (fuse.recompute). A recipe has a few terms at most, since each is one
more pass over memory in backward: a longer sum of a residual network is kept as it is, and the next one starts from it.
"""

import operator
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from manualbp.functional.activation.table import Activation
from manualbp.fuse import steps
from manualbp.fuse.keeping import Keeping
from manualbp.fuse.reading import Call, path_of
from manualbp.fuse.recompute import Recipe, Term

MOST_TERMS = 3  # of a recipe: each is a pass over memory in backward
Made = tuple[Recipe, tuple[fx.Node, ...]]  # a recipe and its sources
Terms = tuple[tuple[Term, ...], tuple[fx.Node, ...]]


class Constant:
    """A value that stands in the graph's code by a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Neighbours(Keeping):
    """A traced model's graph while it is rewritten, and what was done: (paths, kinds, whether, remark) for each place.

    constants: what the names in the graph's code stand for.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph)
        self.places: list[tuple[str, str, bool, str]] = []
        self.constants: dict[str, Any] = {}
        self.recipes: dict[fx.Node, Made] = {}
        self.fixed: dict[fx.Node, bool] = {}  # the values that nobody may change later
        # Each norm that was taken: its step's nodes, the call that it was, and its place.
        self.norms: list[tuple[list[fx.Node], tuple[Any, ...], int]] = []

    def rewrite(self) -> None:
        """Take together what can be; the graph computes the same."""
        for node in list(self.graph.nodes):
            if self.hands_on(node):
                self._replace(node, node.all_input_nodes[0])
        for node in self.graph.nodes:
            self.refuse_shared_changes(node)
        for node in self.graph.nodes:
            if (self.adds(node) or self.multiplies(node)) and self.in_place(node) and self.of_what_is_made(node):
                self._out_of_place(node)
        self.fixed = {node: self.is_fixed(node) for node in self.graph.nodes}
        norms = [(node, norm) for node in self.graph.nodes if (norm := self.batch_norm(node)) is not None]
        self.updates = Counter(self.statistics(node, norm) for node, norm in norms)
        for node in list(self.graph.nodes):
            if node._erased:
                continue
            norm, phi, factor = self.batch_norm(node), self.activation(node), self.factor(node)
            if norm is not None:
                self._norm(node, norm)
            elif phi is not None:
                self._activation(node, phi)
            elif self.adds(node):
                self._sum(node)
            elif self.multiplies(node):
                self._product(node)
            elif self.joined(node) is not None:
                self._joined(node)
            elif factor is not None:
                self._factor(node, factor)
        for norm in self.norms:
            self._give_back(*norm)

    def _out_of_place(self, node: fx.Node) -> None:
        """A sum or product in memory of its own. Nobody else has what it is written into; but that may be kept here."""
        by_method, by_function = ("add", operator.add) if self.adds(node) else ("mul", operator.mul)
        node.target = by_method if node.op == "call_method" else by_function

    def _pool_behind(self, node: fx.Node) -> fx.Node | None:
        """The max pooling that alone takes a monotone activation's output."""
        pool, phi = self.only_user(node), self.activation(node)
        layer = None if pool is None else self.layer(pool, nn.MaxPool2d)
        return pool if phi is not None and phi.monotone and layer is not None and not layer.return_indices else None

    def _norm(self, node: fx.Node, norm: Call) -> None:
        user = self.only_user(node)
        phi = None if user is None else self.activation(user)
        if user is not None and phi is not None and self._pool_behind(user) is not None:
            return  # the two behind it are taken together
        again = self.updates[self.statistics(node, norm)] > 1  # one pass would keep what the other updates
        if again or not self.wanted(node):
            why = "it runs more than once" if again else self._why_left(node)
            self.places.append((path_of(node), self.kind_of(node), False, f"left: {why}"))
            return
        with self.graph.inserting_before(node):
            args = self._module(node), norm.x, norm.settings, phi and self._constant(phi)
            three = self.graph.call_function(steps.normalised, args)
            z, s, t = (self.graph.call_function(operator.getitem, (three, k)) for k in range(3))
        if user is not None and phi is not None:
            self._took((node, user), "keep their input alone")
            self._replace(user, z)
            self._give(z, Recipe(phi, ("affine",)), (norm.x, s, t))
        else:
            self.recipes[z] = Recipe(None, ("affine",)), (norm.x, s, t)
            self.norms.append(([three, z, s, t], (node.op, node.target, node.args, node.kwargs), len(self.places)))
            self._took((node,), "keeps its input alone")
        self._replace(node, z)

    def _give_back(self, made: list[fx.Node], call: tuple[Any, ...], place: int) -> None:
        """The norm as it was, if nothing was made of its recipe: a sum of too many terms, or of what may change."""
        three, z, s, _ = made
        if s.users:
            return
        with self.graph.inserting_before(three):
            z.replace_all_uses_with(self.graph.create_node(*call))
        layer = three.args[0]
        for node in [*reversed(made), *([layer] if isinstance(layer, fx.Node) else [])]:
            self.graph.erase_node(node)
        paths, kinds, _, _ = self.places[place]
        self.places[place] = paths, kinds, False, "left: nothing behind it computes its output again"

    def _why_left(self, node: fx.Node) -> str:
        keeper = self.kept_by(node)
        if keeper is None:
            return "nothing behind it keeps its output"
        trained = ", whose slope is trained," if self.kind_of(keeper) == "PReLU" else ""
        return f"{self.kind_of(keeper)}{trained} keeps its output"

    def _activation(self, node: fx.Node, phi: Activation) -> None:
        pool, x = self._pool_behind(node), node.all_input_nodes[0]
        made = self.recipes.get(x)
        if pool is not None:
            self._pooled(node, pool, x, phi)
        elif made is None and phi.name == "relu" and self.keeps_nothing(node):
            self._by_bits(node)
        elif made is not None and phi.name == "relu" and made[0].terms != ("affine",):
            a = self._by_bits(node)
            self._give(a, activated(phi, made[0]), made[1])
        elif made is not None or (not phi.of_output and self.wanted(node)):
            recipe, sources = made or (Recipe(None, ("plain",)), (x,))
            recipe = activated(phi, recipe)
            a = self._step(node, steps.reactivated, x, self._constant(recipe), *sources)
            self._give(a, recipe, sources)
        elif phi.of_output and self.in_place(node):  # what is written into x is kept beside what x was
            self._took((node,), "keeps its output once")
            self._step(node, steps.activated, x, self._constant(phi))

    def _pooled(self, node: fx.Node, pool: fx.Node, x: fx.Node, phi: Activation) -> None:
        fixed = self.fixed[pool]
        self._took((node, pool), f"pool first; keep the pooled {'output' if fixed else 'input'} and a byte a window")
        how = self._constant(phi), fixed, self._flattens(pool)
        self._step(pool, steps.activated_pool, x, *how)
        self.graph.erase_node(node)

    def _flattens(self, node: fx.Node) -> bool:
        """Whether all that the node's value is for is to be one axis for maps and places."""
        return all(
            self.layer(user, nn.Flatten) is not None or user.target in (torch.flatten, "flatten", "view", "reshape")
            for user in node.users
        )

    def _by_bits(self, node: fx.Node) -> fx.Node:
        self._took((node,), "keeps a bit a number")
        return self._step(node, steps.rectified, node.all_input_nodes[0])

    def _sum(self, node: fx.Node) -> None:
        """A sum of a residual network: batch norms, an image, earlier sums."""
        parts = [*dict.fromkeys(node.all_input_nodes)]
        terms = self._terms(parts)
        plain = [part for part in parts if part not in self.recipes]
        if len(parts) == 2 and len(plain) < 2 and terms is not None:
            self._give(node, Recipe(None, terms[0]), terms[1])

    def _joined(self, node: fx.Node) -> None:
        """A concatenation, of which some part is made of what is kept anyway."""
        parts, axis = self.joined(node) or ([], 0)
        terms = self._terms(parts, axis)
        if terms is not None and any(part in self.recipes for part in parts):
            self._give(node, Recipe(None, terms[0], axis=axis), terms[1])

    def _terms(self, parts: list[fx.Node], axis: int | None = None) -> Terms | None:
        """What the parts are made of, those as they are last in a sum; None where somebody may change one of these."""
        pairs: list[Terms] = []
        for part in parts if axis is not None else sorted(parts, key=lambda part: part not in self.recipes):
            recipe, sources = self.recipes.get(part, (None, (part,)))
            if recipe is None:
                if not self.fixed.get(part, False):
                    return None
                pairs.append((("plain",), sources))
            elif axis is None and replace(recipe, terms=()) == Recipe(None, ()):
                pairs.append((recipe.terms, sources))
            else:
                pairs.append(((recipe,), sources))
        return tuple(term for terms, _ in pairs for term in terms), tuple(x for _, xs in pairs for x in xs)

    def _product(self, node: fx.Node) -> None:
        """An image times a gate, which is made of the image: of the two, the image comes first in the graph."""
        order = {part: k for k, part in enumerate(self.graph.nodes)}
        parts = sorted(node.all_input_nodes, key=lambda part: order[part])
        a = next((part for part in parts if part in self.recipes), None)
        if a is None:
            return
        (g,) = (part for part in parts if part is not a)
        recipe, sources = self.recipes[a]
        self._took((node,), "keeps what its factor is made of, and the gate")
        p = self._step(node, steps.gated, a, g, self._constant(recipe), *sources)
        gated = replace(recipe, gated=True) if not recipe.gated else Recipe(None, (recipe,), gated=True)
        self._give(p, gated, (*sources, g))

    def _factor(self, node: fx.Node, factor: Call) -> None:
        pool, conv = self.only_user(node), self.layer(node, nn.Conv2d)
        average = None if pool is None else self.layer(pool, nn.AvgPool2d)
        if factor.x in self.recipes:
            recipe, sources = self.recipes[factor.x]
            calls = self._of_one_value(node, factor)
            once = "keeps what its input is made of", "keep what their input is made of: it is computed again once"
            self._took(tuple(calls), once[len(calls) > 1])
            with self.graph.inserting_before(node):
                (layer, settings), *more = [(self._module(one), call.settings) for one, call in calls.items()]
                args = layer, factor.x, settings, tuple(more), self._constant(recipe), *sources
                ys = self.graph.call_function(getattr(steps, factor.step), args)
                parts = [self.graph.call_function(operator.getitem, (ys, k)) for k in range(len(calls))]
            for one, y in zip(calls, parts, strict=True):
                self._replace(one, y)
        elif pool is not None and conv is not None and average is not None and steps.folds(conv, average):
            self._took((node, pool), "are one convolution")
            with self.graph.inserting_before(pool):
                y = self.graph.call_function(steps.folded, (self._module(node), self._module(pool), factor.x))
            self._replace(pool, y)
            self.graph.erase_node(node)

    def _of_one_value(self, node: fx.Node, factor: Call) -> dict[fx.Node, Call]:
        """The layers that take the factor's value, of its kind, and can run where the first of them, the node, does.

        For that their weights must be there: parameters are, which no fused forward changes; a buffer may change.
        """
        calls: dict[fx.Node, Call] = {}
        for user in sorted(self.users(factor.x)):
            call = self.factor(user)
            if call is None or call.x is not factor.x or call.step != factor.step:
                continue
            later = [part for part in user.all_input_nodes if node < part]
            if user is node or all(part.op == "get_attr" and not self._comes_in(part) for part in later):
                calls[user] = call
                for part in later:
                    node.prepend(part)
        return calls

    def _give(self, node: fx.Node, recipe: Recipe, sources: tuple[fx.Node, ...]) -> None:
        """The value's recipe, if it pays to have one: what takes the value will keep the sources."""
        if self.wanted(node) and recipe.cost <= MOST_TERMS:
            self.recipes[node] = recipe, sources

    def _step(self, node: fx.Node, step: Any, *args: Any) -> fx.Node:
        """The step in place of the node, for its layer."""
        with self.graph.inserting_before(node):
            y = self.graph.call_function(step, (self._module(node), *args))
        self._replace(node, y)
        return y

    def _module(self, node: fx.Node) -> fx.Node | None:
        """The layer that the node calls, as a value of the graph; None for a function."""
        return self.graph.get_attr(str(node.target)) if node.op == "call_module" else None

    def _constant(self, value: Any) -> Any:
        kind = "RECIPE" if isinstance(value, Recipe) else "ACTIVATION"
        known = (name for name, other in self.constants.items() if other == value)
        name = next(known, f"{kind}_{len(self.constants)}")
        self.constants[name] = value
        return Constant(name)

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        """Both behind each other or apart: `by` may have been made of `node`. What was asked of the one holds."""
        self.fixed.setdefault(by, self.fixed.get(node, False))
        if node in self._wanted:
            self._wanted.setdefault(by, self._wanted[node])
        node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)
        self.graph.erase_node(node)

    def _took(self, nodes: tuple[fx.Node, ...], remark: str) -> None:
        self.places.append(
            (", ".join(map(str, map(path_of, nodes))), ", ".join(map(self.kind_of, nodes)), True, remark)
        )


def activated(phi: Activation, recipe: Recipe) -> Recipe:
    """phi of what the recipe makes."""
    plain = recipe.activation is None and not recipe.gated
    return replace(recipe, activation=phi) if plain else Recipe(phi, (recipe,))
