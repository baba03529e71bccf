"""Slopes by differences, each with its own error, so that no tolerance is chosen.

    D(h) = (phi(h) - phi(-h)) / 2h = phi'(0) + c_2 h^2 + c_4 h^4 + ...

Steps fall by 4 each; D of two steps without the term of h^2, of three without h^4 ... is a table (Richardson), and
where its neighbours agree best is the slope, with their difference as its error (Ridders 1982). The error is never
taken for less than what rounding does: eps |phi| / h.

A gradient g along v is right where <g, v> is the slope within SURE errors. That is the rate of the remainder: for the
right g D(h) - <g, v> falls as h^2 down to rounding, for a wrong one it stays what it is. From each side alone

    (phi(+-h) - phi(0)) / +-h = phi'(0+-) + c_1 h + c_2 h^2 + ...

and where the two sides differ there is a kink: a gradient between them is one of phi's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

FALL, FIRST, LEVELS = 4.0, 2.0**-4, 9
SURE = 20  # errors are estimates
# An error of so much of the gradient is none that tells anything.
BLURRED = 0.02


def best(values: list[Tensor], power: int, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The limit of values at steps that fall by FALL, whose first error is of the order h^power, and its error."""
    value, error = values[0], torch.full_like(values[0], torch.inf)
    row = [values[0]]
    for k in range(1, len(values)):
        new = [values[k]]
        for j in range(1, k + 1):
            factor = FALL ** (power * j)
            new.append((factor * new[-1] - row[j - 1]) / (factor - 1))
            off = torch.maximum((new[j] - new[j - 1]).abs(), (new[j] - row[j - 1]).abs())
            off = torch.maximum(off, noise[k])
            better = (off < error) & new[j].isfinite()
            value, error = torch.where(better, new[j], value), torch.where(better, off, error)
        row = new
    # At a pole, or a jump, the values run away from any limit.
    last, half = values[-1].abs() - SURE * noise[-1], values[len(values) // 2].abs()
    return value, torch.where(last > 2 * FALL * half, torch.inf, error)


@dataclass(frozen=True)
class Slope:
    """phi'(0) and its error; the slopes from the left and from the right, and their error."""

    value: Tensor
    error: Tensor
    left: Tensor
    right: Tensor
    side_error: Tensor

    @property
    def kink(self) -> Tensor:
        return (self.right - self.left).abs() > SURE * self.side_error

    def excess(self, given: Tensor) -> Tensor:
        """By how much a given slope is off, beyond what the differences leave open; 0 where it may be right."""
        low, high = torch.minimum(self.left, self.right), torch.maximum(self.left, self.right)
        outside = torch.maximum(low - given, given - high) - SURE * self.side_error
        off = (given - self.value).abs() - SURE * self.error
        return torch.where(self.kink, outside, off).clamp_min(0).nan_to_num(nan=torch.inf)


def slope(phi: Callable[[float], Tensor], rounding: Tensor, first: float = FIRST, levels: int = LEVELS) -> Slope:
    """Of phi: R -> any tensor of float64, at 0. rounding: of phi, which is known at best up to this."""
    middle = phi(0.0)
    rounding = rounding + (phi(0.0) - middle).abs()  # of a function that does not give the same twice
    steps = [first * FALL**-k for k in range(levels)]
    sides = [(phi(h), phi(-h)) for h in steps]
    noise = [rounding / h for h in steps]
    value, error = best([(a - b) / (2 * h) for (a, b), h in zip(sides, steps, strict=True)], 2, noise)
    right, of_right = best([(a - middle) / h for (a, _), h in zip(sides, steps, strict=True)], 1, noise)
    left, of_left = best([(middle - b) / h for (_, b), h in zip(sides, steps, strict=True)], 1, noise)
    return Slope(value, error, left, right, torch.maximum(of_left, of_right))


def rate(phi: Callable[[float], Tensor], given: float, rounding: float) -> float | None:
    """By which power of h |D(h) - given| falls; None where it is rounding from the first step on."""
    steps = [FIRST * FALL**-k for k in range(5)]
    off = [abs(float((phi(h) - phi(-h)) / (2 * h)) - given) for h in steps]
    kept = [o for o, h in zip(off, steps, strict=True) if o > SURE * rounding / h]
    ratios = sorted(math.log(a / b, FALL) for a, b in pairwise(kept) if b > 0)
    return ratios[len(ratios) // 2] if ratios else None
