"""Convolution under a connection table: each output map sees only some input maps (lecture 001, eq. 1.3)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.nn.conv import Conv2d, padded

# Which of the 6 maps of layer S2 each of the 16 maps of layer C3 sees: LeCun, Bottou, Bengio, Haffner,
# "Gradient-based learning applied to document recognition", 1998, table I.
LENET5_C3: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def random_connections(
    in_channels: int, out_channels: int, fan_in: int, generator: torch.Generator | None = None
) -> Tensor:
    """A table in which every output map sees `fan_in` input maps, drawn without replacement.

    -> bool [out_channels, in_channels]. Raises ValueError for a fan_in that is not from 1 to in_channels.
    Source: lecture 001, eq. 1.3.
    """
    if not 1 <= fan_in <= in_channels:
        raise ValueError(f"random_connections: fan_in = {fan_in}; it must be from 1 to the {in_channels} input maps")
    order = torch.rand(out_channels, in_channels, generator=generator).argsort(1)
    return order < fan_in


class ConnectedConv2d(Conv2d):
    """A Conv2d in which each output map sees only the input maps that a table connects it to.

    On `manualbp.functional.connected_conv2d`:

        y = correlate(x, scatter(weight)) + b
        dL/dx = full_convolve(delta, scatter(weight))    dL/dweight = gather(kernel_gradient(x, delta))

    connections: a bool tensor [out_channels, in_channels], or for each output map the input maps that it sees, such as
    `LENET5_C3`. With groups, an output map may be connected to maps of its own group only. The other arguments are
    those of torch.nn.Conv2d.

    weight [K, P, Q]: one kernel for each of the K connections, in the order of the table, row by row; kernels that are
    not connected do not exist. Initial values as in torch.nn.Conv2d, uniform within 1 / sqrt(fan-in), the fan-in being
    that of each output map. The buffers `output_map` and `input_map` [K], the maps of each kernel (the input map is
    counted in its group), are the table: state_dict carries them.

    Kept for backward: x if the gradient of weight is asked for, the dense kernel if that of x is, and the table. Raises
    ValueError or TypeError for a table that does not fit.
    Read: functional/connection_table.py; lecture 001, eq. 1.3.
    """

    output_map: Tensor
    input_map: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        connections: Tensor | Sequence[Sequence[int]],
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        table = _table(connections, in_channels, out_channels)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, "meta"
        )
        o, c = _within_groups(table, groups).nonzero(as_tuple=True)
        self.weight = nn.Parameter(torch.empty(len(o), *self.kernel_size, device=device, dtype=dtype))
        self.register_buffer("output_map", o.to(self.weight.device))
        self.register_buffer("input_map", c.to(self.weight.device))
        if self.bias is not None:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight.is_meta:
            return  # Conv2d's constructor asks for it before the table is known
        o = self.output_map
        fan_in = torch.bincount(o, minlength=self.out_channels) * self.kernel_size[0] * self.kernel_size[1]
        bound = fan_in.to(self.weight.dtype).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound[o, None, None])
            if self.bias is not None:
                self.bias.uniform_(-1, 1).mul_(bound)

    @property
    def connections(self) -> Tensor:
        """The table, bool [out_channels, in_channels]."""
        per_group = self.in_channels // self.groups
        o, c = self.output_map, self.input_map
        table = torch.zeros(self.out_channels, self.in_channels, dtype=torch.bool, device=o.device)
        table[o, o // (self.out_channels // self.groups) * per_group + c] = True
        return table

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = padded(self, input)
        table: Any = self._buffers  # looked up where they lie: by attribute each costs a microsecond more
        o, c, maps = table["output_map"], table["input_map"], (self.out_channels, self.in_channels // self.groups)
        stride, dilation, groups = self.stride, self.dilation, self.groups
        return F.connected_conv2d(input, weight, o, c, maps, bias, stride, padding, dilation, groups, True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, connections={len(self.weight)}"


def _table(connections: Tensor | Sequence[Sequence[int]], C: int, O: int) -> Tensor:
    """The connections as bool [O, C], or a refusal."""
    name = "ConnectedConv2d: connections"
    if not isinstance(connections, Tensor):
        connections = _of_lists(name, [list(row) for row in connections], C)
    if connections.dtype != torch.bool:
        raise TypeError(f"{name} is a tensor of {connections.dtype}; a table must be of torch.bool")
    if tuple(connections.shape) != (O, C):
        raise ValueError(
            f"{name} has shape {list(connections.shape)}; it must be [{O}, {C}], output maps by input maps"
        )
    unconnected = (~connections.any(1)).nonzero().flatten().tolist()
    if unconnected:
        raise ValueError(f"{name}: output maps {unconnected} see no input map; each must see one at least")
    return connections


def _of_lists(name: str, rows: list[list[int]], C: int) -> Tensor:
    """bool [O, C] of the input maps that each output map sees."""
    table = torch.zeros(len(rows), C, dtype=torch.bool, device="cpu")  # also where new tensors go to meta
    for o, row in enumerate(rows):
        if any(isinstance(c, bool) or not isinstance(c, int) for c in row):
            raise TypeError(f"{name}[{o}] = {row}; it must hold ints, the input maps that it sees, or be a bool tensor")
        outside = [c for c in row if not 0 <= c < C]
        if outside:
            raise ValueError(f"{name}[{o}] = {row}; input map {outside[0]} is outside of 0 to {C - 1}")
        if len(set(row)) < len(row):
            raise ValueError(f"{name}[{o}] = {row}; an input map stands there twice")
        table[o, row] = True
    return table


def _within_groups(table: Tensor, groups: int) -> Tensor:
    """bool [O, C / groups]: the part of the table that the groups leave, or a refusal where it is not all."""
    O, C = table.shape
    own = torch.arange(groups, device=table.device).repeat_interleave(O // groups)
    blocks = table.view(O, groups, C // groups)
    within = blocks[torch.arange(O, device=table.device), own]
    if within.sum() < table.sum():
        o = int((within.sum(1) < table.sum(1)).nonzero()[0])
        raise ValueError(
            f"ConnectedConv2d: connections[{o}] = {table[o].nonzero().flatten().tolist()} with groups = {groups}; "
            f"output map {o} is of group {int(own[o])} and sees input maps of that group only"
        )
    return within
