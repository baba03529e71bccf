"""Who keeps a value of a traced model's graph for the backward pass, who may change it, whose memory it is in."""

import operator

import torch
import torch.nn.functional as T
from torch import fx, nn

from manualbp import nn as by_hand_layers
from manualbp.functional.activation.table import OF_FUNCTION, OF_MODULE
from manualbp.fuse.reading import (
    ADDITIONS,
    CONVOLUTIONS,
    DROPOUT_FUNCTIONS,
    DROPOUTS,
    NORMS,
    PRODUCTS,
    TRANSPOSED,
    Reading,
    path_of,
)
from manualbp.fuse.trace import RefusalError

# What keeps nothing of its input's numbers, by hand and by PyTorch.
KEEPS_NOTHING = (
    *(*ADDITIONS, operator.sub, torch.sub, "sub", operator.neg, torch.neg, "neg", torch.cat, torch.concat),
    *(T.adaptive_avg_pool2d, T.avg_pool2d, T.adaptive_avg_pool1d, T.avg_pool1d, "mean", torch.mean, "sum", torch.sum),
    *(T.interpolate, *DROPOUT_FUNCTIONS, "detach", torch.stack),
)
LAYERS_THAT_KEEP_NOTHING = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d, nn.ConstantPad2d, *DROPOUTS),
)
# What may be a view of its input, which then lives in it.
VIEWS = (
    *("view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "expand", "chunk", "split"),
    *("contiguous", "unflatten", "narrow", "expand_as", "view_as", "unbind", "t", "movedim"),
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.chunk),
    *(torch.split, operator.getitem, torch.movedim),
)
LAYERS_OF_VIEWS = nn.Flatten, nn.Unflatten, nn.Identity
# What puts its result into memory of its own, so that only its users can have it.
MAKES_MEMORY = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.matmul),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.cat, torch.matmul),
    *("add", "sub", "mul", "div", "mean", "sum", "clone", torch.mean, torch.sum),
    *(T.conv1d, T.conv2d, T.conv3d, T.conv_transpose1d, T.conv_transpose2d, T.conv_transpose3d, T.linear),
    *(T.batch_norm, T.layer_norm, T.group_norm, T.max_pool2d, T.avg_pool2d, T.adaptive_avg_pool2d, T.interpolate),
    *OF_FUNCTION,
)
LAYERS_THAT_MAKE_MEMORY = (
    *(*CONVOLUTIONS, *TRANSPOSED, nn.Linear, *NORMS, nn.LayerNorm, nn.GroupNorm, *OF_MODULE, nn.PReLU),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample),
)


class Keeping(Reading):
    """A traced model's graph, and what becomes of its values."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph)
        self._wanted: dict[fx.Node, bool] = {}

    def makes_memory(self, node: fx.Node) -> bool:
        """Whether the node's value is in memory of its own, as far as the node itself decides it."""
        return not self.in_place(node) and (
            self.layer(node, *LAYERS_THAT_MAKE_MEMORY) is not None or node.target in MAKES_MEMORY
        )

    def has_own_memory(self, node: fx.Node) -> bool:
        """Whether only the node's users have its value: it was made, or it is a view of what nobody else has."""
        if self.in_place(node):
            first = node.args[0] if node.args else None
            return isinstance(first, fx.Node) and self.has_own_memory(first)
        if self.makes_memory(node):
            return True
        parts = node.all_input_nodes
        return bool(parts) and all(len(self.users(part)) == 1 and self.has_own_memory(part) for part in parts)

    def refuse_shared_changes(self, node: fx.Node) -> None:
        """A value that is changed in place while others use it: which of them see it changed is not to be proved.

        A buffer is the model's own: it is changed where it was, before and after the same nodes. A sum or a product,
        which is not written in place any more, may come behind others that have made something else of the value.
        """
        if not self.in_place(node):
            return
        changed = node.args[0] if node.args and "out" not in node.kwargs else None
        if isinstance(changed, fx.Node) and self._is_buffer(changed):
            return
        if not isinstance(changed, fx.Node) or not self.has_own_memory(changed):
            raise RefusalError(f"{path_of(node)} changes in place what others may use")
        others = [user for user in self.users(changed) if user is not node]
        first = (self.adds(node) or self.multiplies(node)) and all(
            user < node and self.makes_memory(user) for user in others
        )
        if others and not first:
            raise RefusalError(f"{path_of(node)} changes in place what others may use")

    def _is_buffer(self, node: fx.Node) -> bool:
        """Whether the node is a buffer of the model, or what a change of one returned, which only changes take."""
        if node.op != "get_attr":
            changes = self.in_place(node) and all(self.in_place(user) and user.args[0] is node for user in node.users)
            return changes and isinstance(node.args[0], fx.Node) and self._is_buffer(node.args[0])
        path, _, name = str(node.target).rpartition(".")
        return name in self.model.get_submodule(path)._buffers

    def may_change(self, node: fx.Node) -> bool:
        """Whether somebody may change the value after the graph's nodes have taken it: it comes in or leaves.

        Inside of the graph a value that several take is never changed (`refuse_shared_changes`), but for a buffer.
        """
        return self._comes_in(node) or any(
            user.op == "output"
            or (self.in_place(user) and node in user.args[:1])
            or (not self.makes_memory(user) and self.may_change(user))
            for user in self.users(node)
        )

    def _comes_in(self, node: fx.Node) -> bool:
        """Whether the value may be in memory of an argument or of a buffer."""
        if node.op == "get_attr":
            return self._is_buffer(node)
        return node.op == "placeholder" or (
            not self.makes_memory(node) and any(map(self._comes_in, node.all_input_nodes))
        )

    def kept_by(self, node: fx.Node) -> fx.Node | None:
        """A user that keeps the value itself, by PyTorch and by hand, and cannot do without."""
        for user in self.users(node):
            if self._takes(user, node) and not self._can_do_without(user, node):
                return user
        return None

    def is_fixed(self, node: fx.Node) -> bool:
        """Whether nobody may change the value later: PyTorch keeps it, too, or nobody else has it."""
        return self._torch_keeps(node) or not self.may_change(node)

    def _torch_keeps(self, node: fx.Node) -> bool:
        """Whether PyTorch keeps the value, or what it is a view of."""
        if any(self._takes(user, node) and not self.in_place(user) for user in self.users(node)):
            return True
        parts = node.all_input_nodes
        return bool(parts) and not self.makes_memory(node) and all(map(self._torch_keeps, parts))

    def _takes(self, user: fx.Node, node: fx.Node) -> bool:
        """Whether the user keeps the value, as PyTorch does."""
        if user.op == "output":
            return False
        if user.op == "call_module":
            layer = self.model.get_submodule(str(user.target))
            by_bytes = type(layer) is by_hand_layers.MaxPool2d and not layer.return_indices
            nothing = by_bytes or self.layer(user, *LAYERS_THAT_KEEP_NOTHING) is not None
        else:
            scaled = user.target in PRODUCTS and not self.multiplies(user) and len(user.all_input_nodes) == 1
            nothing = user.target in KEEPS_NOTHING or scaled
        phi = self.activation(user)
        of_output = phi is not None and phi.of_output
        if user.target in VIEWS or self.layer(user, *LAYERS_OF_VIEWS) is not None:
            return any(self._takes(after, user) for after in self.users(user))
        return not nothing and not of_output

    def _can_do_without(self, user: fx.Node, node: fx.Node) -> bool:
        """Whether the user can be run by a step that computes the value again."""
        factor = self.factor(user)
        first = factor is not None and factor.x is node
        return first or self.activation(user) is not None or self.multiplies(user)

    def wanted(self, node: fx.Node) -> bool:
        """Whether it pays to know what the value is made of: some keep it, and all of them can do without."""
        if node not in self._wanted:
            self._wanted[node] = self.kept_by(node) is None and any(
                self._can_do_without(user, node) or (self._passes(user) and self.wanted(user))
                for user in self.users(node)
            )
        return self._wanted[node]

    def _passes(self, user: fx.Node) -> bool:
        """Whether the user's value is made of this one, and keeps nothing."""
        return self.adds(user) or self.joined(user) is not None

    def keeps_nothing(self, node: fx.Node) -> bool:
        """Whether no user keeps the value. Who takes what the model returns is not known."""
        return not any(user.op == "output" or self._takes(user, node) or self.wanted(user) for user in self.users(node))
