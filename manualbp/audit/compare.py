"""The gradients that a backward pass gives beside the slopes of the forward pass, along a few directions.

At a kink each output is asked alone: of a sum, in which kinks meet, a gradient of its parts need not be a slope's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manualbp.audit.slopes import BLURRED, FIRST, SURE, Slope, rate, slope
from manualbp.audit.subject import Subject, drawn, joined, parted

# Of each input: two directions that pass between kinks as they come, and one in which every number grows.
DIRECTIONS = (("normal", 11), ("normal", 12), ("growing", 13))
KINKS, BESIDE = 16, 16  # outputs at a kink that are asked, and at how many places beside it
# A slope is 0 where it is this little of what the function is made of, for a step as large as the input.
NOTHING = 1e-6


@dataclass(frozen=True)
class Difference:
    """<given, v> and <true, v> of the value at a place; relative to the size of the gradient along such a v."""

    place: int
    given: float
    true: float
    error: float
    relative: float
    rate: float | None
    kink: bool
    subject: Subject


@dataclass
class Compared:
    """Where the gradient is not the slope, where the slope is known too badly to tell, and the places with a kink."""

    wrong: list[Difference]
    unknown: list[Difference]
    kinks: set[int]


def direction(x: Tensor, kind: str, seed: int) -> Tensor:
    """Normal numbers as large as those of a row of x in the mean of their squares, all positive where x is to grow."""
    rows = x.double().reshape(x.shape[0] if x.ndim > 1 else 1, -1)
    whole = rows.square().mean().sqrt()
    sizes = rows.square().mean(1, keepdim=True).sqrt()
    sizes = torch.where((sizes > 0) & sizes.isfinite(), sizes, whole if whole > 0 and whole.isfinite() else 1.0)
    v = (drawn([rows], seed)[0] * sizes).reshape(x.shape).to(x)
    return v.abs() if kind == "growing" else v


def compare(subject: Subject, directions: Sequence[tuple[str, int]] = DIRECTIONS) -> Compared:
    """Each audited gradient, of L = sum <delta, output>, along each direction."""
    which, pulled = subject.differentiable(), subject.pull()
    deltas = drawn(pulled.outputs, 1)
    result = Compared([], [], set())
    if not which:
        return result
    for place, gradient in zip(subject.which, pulled.gradients, strict=True):
        x = subject.values[place]
        for kind, seed in directions if x.numel() else ():
            _along(result, subject, place, direction(x, kind, seed), gradient.detach(), which, deltas)
    return result


def wrong_along(subject: Subject, place: int, v: Tensor) -> bool:
    """Whether the gradient is not the slope along this direction."""
    which, pulled = subject.differentiable(), subject.pull()
    found = Compared([], [], set())
    gradient = pulled.gradients[subject.which.index(place)].detach()
    _along(found, subject, place, v, gradient, which, drawn(pulled.outputs, 1))
    return bool(found.wrong)


def away(subject: Subject, places: Collection[int]) -> Subject:
    """Beside the kinks: these inputs moved by a twentieth of their size."""
    moved = [x + 0.05 * direction(x, "normal", 31) if i in places else x for i, x in enumerate(subject.values)]
    return subject.of(moved)


def _along(
    result: Compared,
    subject: Subject,
    place: int,
    v: Tensor,
    gradient: Tensor,
    which: Sequence[int],
    deltas: Sequence[Tensor],
) -> None:
    x, weights, vector = subject.values[place], joined(deltas), subject.along(place, v, which)
    terms, size_of_x = (gradient * v).double(), (gradient * x).double().abs().sum().nan_to_num()
    made_of = max((vector(h) * weights).nan_to_num().abs().sum() for h in (0.0, FIRST))  # y may be 0 at 0

    def phi(h: float) -> Tensor:
        return vector(h) @ weights

    rounding, given = subject.eps * (made_of + size_of_x), terms.sum()
    found = slope(phi, rounding)
    # Of a gradient of this size such a v would show about so much; of one that is 0 the slope itself does.
    size = float(torch.maximum(terms.norm().nan_to_num(), found.value.abs()))
    known = float(found.error) <= (BLURRED * size if given != 0 else NOTHING * float(made_of))
    told = bool(found.error.isfinite()) or bool(found.kink)
    wrong, kink = told and float(found.excess(given)) > 0, bool(found.kink)
    if kink:
        result.kinks.add(place)
        wrong = wrong and _outside(subject, place, v, which, deltas)
    elif wrong and _bent(subject, place, v, which, weights, found):
        result.kinks.add(place)
        wrong, kink = False, True
    if not wrong and (known or kink):
        return
    how = rate(phi, float(given), float(rounding)) if wrong else None
    off = abs(float(given - found.value)) / size if size else 0.0
    numbers = float(given), float(found.value), float(found.error), off
    (result.wrong if wrong else result.unknown).append(Difference(place, *numbers, how, kink, subject))


def _outside(subject: Subject, place: int, v: Tensor, which: Sequence[int], deltas: Sequence[Tensor]) -> bool:
    """Whether of an output alone the gradient is not between its slopes from the two sides."""
    phi = subject.along(place, v, which)
    y = phi(0.0)
    each = slope(phi, subject.eps * (y.abs() + phi(FIRST).nan_to_num().abs().mean()))
    alone = replace(subject, which=(place,))
    for k in each.kink.nonzero().flatten().tolist()[:KINKS]:
        hot = torch.zeros_like(y)
        hot[k] = 1
        given = (alone.pull(parted(hot, deltas)).gradients[0].detach() * v).double().sum()
        if float(each.excess(given.expand_as(y))[k]) > 0:
            # Of three that tie in the middle any may be the one, and the sides show two of them: those beside show all.
            near = [_beside(subject, place, v, which, k, n) for n in range(BESIDE)]
            margin = SURE * float(each.side_error[k])
            if not min(near) - margin <= float(given) <= max(near) + margin:
                return True
    return False


def _beside(subject: Subject, place: int, v: Tensor, which: Sequence[int], k: int, n: int) -> float:
    """The slope of output k along v, a hundredth of its size beside this input."""
    moved = subject.values[place] + 0.01 * direction(subject.values[place], "normal", 50 + n)
    phi = subject.at(place, moved).along(place, v, which)
    y = phi(0.0)[k]
    return float(slope(lambda h: phi(h)[k], subject.eps * y.abs(), FIRST / 256, 6).value)


def _bent(subject: Subject, place: int, v: Tensor, which: Sequence[int], weights: Tensor, along_v: Slope) -> bool:
    """Whether the slope along v + w is not that along v and along w: a kink, as of a median, that no side shows."""
    w = direction(subject.values[place], "normal", 41)
    slopes = [along_v]
    for u in (w, v + w):
        phi = subject.along(place, u, which)
        made_of = max((phi(h) * weights).nan_to_num().abs().sum() for h in (0.0, FIRST))
        slopes.append(slope(lambda h, phi=phi: phi(h) @ weights, subject.eps * made_of))
    of_v, of_w, of_both = slopes
    off = (of_both.value - of_v.value - of_w.value).abs()
    return bool(off > SURE * (of_v.error + of_w.error + of_both.error))
