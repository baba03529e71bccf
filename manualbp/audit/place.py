"""Where a gradient is wrong: both Jacobians, number by number, and in words which numbers differ.

J[i, k] = d y_k / d x_i by differences, B[i, k] what the backward pass gives for a delta that is 1 at k: the gradient of
<delta, y> is J delta, the given one B delta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from manualbp.audit.compare import direction, wrong_along
from manualbp.audit.report import Report
from manualbp.audit.slopes import SURE, slope
from manualbp.audit.subject import Subject, drawn, joined, parted

# More numbers take too long, or too much memory.
INPUTS, ENTRIES, LEVELS = 3000, 2**22, 5
SLICES = 32  # into which an axis is cut, each asked by itself
IMAGE, KERNEL = ("image", "map", "row", "column"), ("output map", "input map", "tap row", "tap column")


@dataclass(frozen=True)
class Jacobians:
    """J and B of one input, the numbers of x and y in float64, and up to what J is known."""

    true: Tensor
    given: Tensor
    tolerance: Tensor
    x: Tensor
    y: tuple[Tensor, ...]

    @property
    def wrong(self) -> Tensor:
        off = (self.given - self.true).abs()
        return (off > self.tolerance) | ~off.isfinite()

    def close(self, a: Tensor, b: Tensor) -> bool:
        """Whether two such matrices are the same, up to that."""
        size = float(self.true.abs().max()) + float(a.abs().max())
        return a.shape == b.shape and bool(((a - b).abs() <= self.tolerance + 1e-6 * size).all())


@dataclass(frozen=True)
class Placed:
    """Words that follow the numbers, and the likely cause."""

    where: str = ""
    cause: str | None = None


def placed(subject: Subject, place: int, report: Report) -> Placed:
    """Where the gradient of this input is wrong, and why; the report is given the first such gradient to draw."""
    from manualbp.audit.causes import cause_of  # which takes other inputs' Jacobians from here

    both = jacobians(subject, place)
    if both is None:
        return Placed(_by_slices(subject, place))
    weights = joined(drawn(both.y, 1))
    if report.given is None:
        report.given, report.true = ((m @ weights).reshape(both.x.shape) for m in (both.given, both.true))
    wrong = both.wrong.any(1).reshape(both.x.shape)
    if not bool(wrong.any()):
        one, two = (subject.pull(seed=k).gradients[subject.which.index(place)] for k in (1, 2))
        return Placed("; it is the same for every delta", "delta ignored") if torch.equal(one, two) else Placed()
    off = (both.given - both.true).abs().nan_to_num(nan=torch.inf)
    i, k = divmod(int(off.argmax()), off.shape[1])
    at = [int(n) for n in torch.unravel_index(torch.tensor(i), wrong.shape)]
    numbers = f"d y[{k}] is {float(both.given[i, k]):.4g}, true {float(both.true[i, k]):.4g}"
    cause = cause_of(subject, place, both)
    if cause == "constant factor":
        numbers += f"; {float((both.given * both.true).sum() / both.true.square().sum()):.6g} times the true gradient"
    return Placed(f"; {described(wrong, both.y[0].shape)}, most at {at}: {numbers}", cause)


def jacobians(subject: Subject, place: int) -> Jacobians | None:
    """Both; None where there are too many numbers."""
    which, x = subject.differentiable(), subject.values[place]
    outputs = tuple(y for k, y in enumerate(subject.outputs()) if k in which)
    count = sum(y.numel() for y in outputs)
    if x.numel() > INPUTS or x.numel() * count > ENTRIES:
        return None
    true, tolerance = true_jacobian(subject, place, which)
    alone = replace(subject, which=(place,))
    given = torch.empty_like(true)
    for k in range(count):
        hot = torch.zeros(count, dtype=torch.float64)
        hot[k] = 1
        given[:, k] = joined(alone.pull(parted(hot, outputs)).gradients)
    return Jacobians(true, given, tolerance, x.detach().double(), outputs)


def true_jacobian(subject: Subject, place: int, which: Sequence[int]) -> tuple[Tensor, Tensor]:
    """J by differences, and SURE times its error."""
    x = subject.values[place]
    size = float(x.double().square().mean().sqrt()) or 1.0
    y = joined([y for k, y in enumerate(subject.outputs()) if k in which])
    rounding = subject.eps * (y.abs() + y.abs().mean() + size * 1e-3)
    rows, errors = [], []
    for i in range(x.numel()):
        unit = torch.zeros_like(x)
        unit.view(-1)[i] = size
        found = slope(subject.along(place, unit, which), rounding, levels=LEVELS)
        rows.append(found.value / size)
        errors.append(SURE * torch.maximum(found.error, (found.right - found.left).abs() * found.kink) / size)
    return torch.stack(rows), torch.stack(errors)


def described(wrong: Tensor, y_shape: Sequence[int]) -> str:
    """Which numbers of an input, axis by axis; an axis of which all are wrong is not named."""
    others = [[a for a in range(wrong.ndim) if a != axis] for axis in range(wrong.ndim)]
    words = _axes([wrong.any(dim=dims) if dims else wrong for dims in others], wrong.shape, y_shape)
    count, all_of_them = int(wrong.sum()), wrong.numel()
    much = "all numbers" if count == all_of_them else f"{count} of {all_of_them} numbers"
    return f"{much} are wrong" + (f" ({words})" if words else "")


def _by_slices(subject: Subject, place: int) -> str:
    """Of an input that is too large for Jacobians the slices, axis by axis, along which the gradient is wrong."""
    x, hits = subject.values[place], []
    v = direction(x, "normal", 61)
    for axis, n in enumerate(x.shape):
        hit = torch.zeros(n, dtype=torch.bool)
        for some in torch.arange(n).tensor_split(min(n, SLICES)):
            alone = torch.zeros_like(v).index_copy_(axis, some, v.index_select(axis, some))
            hit[some] = wrong_along(subject, place, alone)
        hits.append(hit if hit.any() else ~hit)
    words = _axes(hits, x.shape, subject.outputs()[0].shape)
    return f"; wrong in {words}" if words else "; wrong in every part"


def _axes(hits: Sequence[Tensor], shape: Sequence[int], y_shape: Sequence[int]) -> str:
    names = [f"axis {axis}" for axis in range(len(shape))]
    if len(shape) == 4:
        names = list(IMAGE if len(y_shape) == 4 and shape[0] == y_shape[0] else KERNEL)
    return ", ".join(f"{name} {_indices(hit)}" for name, hit in zip(names, hits, strict=True) if not bool(hit.all()))


def _indices(hit: Tensor) -> str:
    """As "the last", "the border", "2 to 5", "every 2nd from 1"."""
    found, n = hit.nonzero().flatten().tolist(), len(hit)
    if found == [0, n - 1] and n > 2:
        return "the border"
    if len(found) == 1:
        return "the first" if found == [0] else "the last" if found == [n - 1] else str(found[0])
    steps = {b - a for a, b in pairwise(found)}
    if steps == {1}:
        return f"{found[0]} to {found[-1]} of {n}"
    if len(steps) == 1:
        return f"every {steps.pop()}. from {found[0]}"
    return ", ".join(map(str, found[:4])) + (" ..." if len(found) > 4 else "")
