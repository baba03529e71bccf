"""Random numbers, extents, settings and tensors of the fuzzer, each made from the name of its case alone.

A tensor is held in float64 beside the way in which it lies in memory, so that PyTorch, the rule, and PyTorch in float64
get the same numbers: those of the lower precision, where one is drawn.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "offset", "expanded")
One = TypeVar("One")


@dataclass
class Held:
    """Values in float64 (or integers), their layout, and what the trial does with them.

    asked: whether a gradient is asked for. able: whether one may be. wide: it stays float32 where others are halves.
    """

    values: Tensor
    layout: str = "contiguous"
    asked: bool = False
    able: bool = True
    wide: bool = False

    def laid_out(self, rounded: torch.dtype, dtype: torch.dtype) -> Tensor:
        """A fresh leaf in `dtype`, of the numbers that `rounded` has."""
        t = self.values.detach()
        if t.is_floating_point():
            narrow = torch.float32 if self.wide and rounded.is_floating_point and rounded.itemsize == 2 else rounded
            t = (t * 2).round() / 2 if not rounded.is_floating_point and not rounded.is_complex else t
            t = t.to(narrow).to(dtype if dtype != rounded else narrow)
        t = laid_out(t, self.layout)
        return t.requires_grad_() if self.asked and (t.is_floating_point() or t.is_complex()) else t


def laid_out(t: Tensor, layout: str) -> Tensor:
    """The same numbers, in another place in memory."""
    axes = tuple(range(t.ndim))[::-1]
    if layout == "channels_last" and t.ndim in (4, 5):
        return t.clone(memory_format=torch.channels_last if t.ndim == 4 else torch.channels_last_3d)
    if layout in ("transposed", "channels_last"):
        return t.permute(axes).clone(memory_format=torch.contiguous_format).permute(axes)
    if layout == "sliced" and t.ndim:
        big = t.new_zeros(*t.shape[:-1], 2 * t.shape[-1])
        big[..., ::2] = t
        return big[..., ::2]
    if layout == "offset" and t.ndim:
        big = t.new_zeros(t.shape[0] + 1, *t.shape[1:])
        big[1:] = t
        return big[1:]
    if layout == "expanded" and t.ndim and t.shape[0]:
        return t[:1].clone().expand(t.shape)
    return t.clone(memory_format=torch.contiguous_format)


def weights(shape: Sequence[int], dtype: torch.dtype, phase: float = 1.0) -> Tensor:
    """Numbers without a pattern and without a random generator, which vmap would ask about."""
    n = torch.Size(shape).numel()
    made = torch.cos(phase + 1.7 * torch.arange(n, dtype=torch.float64) ** 1.3).reshape(tuple(shape))
    return made.to(dtype)


class Draw(random.Random):
    """What is drawn for a case, from its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.numbers = torch.Generator().manual_seed(self.getrandbits(40))

    def chance(self, p: float) -> bool:
        return self.random() < p

    def extent(self, low: int, high: int) -> int:
        """From low to high, and seldom 0."""
        return 0 if self.chance(0.01) else self.randint(low, high)

    def of_axes(self, n: int, one: Callable[[], One]) -> Any:
        """A number for all axes, one for each, or a list or tuple with a single one."""
        if self.chance(0.4):
            return one()
        if n > 1 and self.chance(0.05):
            return (one(),)
        several = [one() for _ in range(n)]
        return several if self.chance(0.2) else tuple(several)

    def some(self, **settings: Any) -> dict[str, Any]:
        """The settings, some of them left out."""
        return {name: value for name, value in settings.items() if self.chance(0.7)}

    def batch(self, least: int = 1) -> list[int]:
        """The number of images, or none: unbatched."""
        return [] if self.chance(0.15) else [self.extent(least, 3)]

    def layout(self) -> str:
        return "contiguous" if self.chance(0.4) else self.choice(LAYOUTS)

    def tensor(self, *shape: int, kind: str = "", able: bool = True, wide: bool = False) -> Held:
        """Normal numbers, a permutation, or numbers with ties and at the kinks of activations (halves from -4 to 4)."""
        kind = kind or self.choice(("normal", "normal", "normal", "distinct", "ties"))
        n = torch.Size(shape).numel()
        if kind == "ties":
            values = torch.randint(-8, 9, shape, generator=self.numbers) / 2.0
        elif kind == "distinct":
            values = torch.randperm(n, generator=self.numbers).reshape(shape) / 8 - n / 16
        else:
            values = torch.randn(shape, generator=self.numbers, dtype=torch.float64)
        layout = self.layout()
        values = values.double().abs() + 0.1 if kind == "positive" else values.double()
        if layout == "expanded":
            values = values[:1].expand(shape).clone() if shape and shape[0] else values
        return Held(values, layout, able and self.chance(0.7), able, wide)

    def whole(self, low: int, high: int, *shape: int) -> Held:
        """int64 from low to high, both among them."""
        values = torch.randint(low, max(high, low) + 1, shape, generator=self.numbers)
        layout = self.choice(("contiguous", "contiguous", "transposed", "sliced"))
        return Held(values, layout, able=False)

    def maybe(self, p: float, make: Callable[[], Held]) -> Held | None:
        return make() if self.chance(p) else None
