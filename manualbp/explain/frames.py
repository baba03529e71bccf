"""The pictures of the lectures as numbers of cells: padded, with gaps, cut out. And places as text, counted from 1."""

import torch
from torch import Tensor

from manualbp.explain.data import Grid


def places(grid: Grid) -> list[tuple[int, ...]]:
    """The places of a grid's cells, row by row."""
    return [tuple(place) for place in torch.cartesian_prod(*map(torch.arange, grid.shape)).tolist()]


def named(grid: Grid) -> list[tuple[int, ...]]:
    """The places of a grid's cells in the tensor that they are cut from."""
    if grid.of is None or grid.at is None:
        return places(grid)
    own = places(grid.of)
    return [own[k] for k in grid.at.flatten().tolist()]


def spread(cells: Tensor, steps: tuple[int, ...]) -> Tensor:
    """The sheets with steps - 1 empty rows and columns (-1) between."""
    (s, r), (H, W) = steps, cells.shape[-2:]
    wide = cells.new_full((*cells.shape[:-2], s * (H - 1) + 1, r * (W - 1) + 1), -1)
    wide[..., ::s, ::r] = cells
    return wide


def moved(cells: Tensor, start: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The sheets in frames of that size, that many rows and columns from its first one; -1 where nothing lies."""
    (rows, columns), (H, W) = (torch.arange(n) - first for first, n in zip(start, size, strict=True)), cells.shape[-2:]
    inside = ((rows >= 0) & (rows < H))[:, None] & (columns >= 0) & (columns < W)
    return cells[..., rows.clamp(0, H - 1)[:, None], columns.clamp(0, W - 1)].where(inside, -1)


def affine(*products: tuple[int, int | str], plus: int) -> str:
    """2i+p-1, of (2, "i"), (1, "p") and -1. A letter that is a number is counted in."""
    text = ""
    for factor, letter in products:
        if isinstance(letter, int):
            plus += factor * letter
        else:
            text += f"{'+' if factor > 0 else '-'}{abs(factor) if abs(factor) > 1 else ''}{letter}"
    if text.startswith("-") and plus > 0:
        return f"{plus}{text}"
    return text.removeprefix("+") + (f"{plus:+d}" if plus and text else "" if text else str(plus))
