"""Why a gradient is wrong: each cause says what the given Jacobian would be, and is named only if it is that.

J is the true Jacobian, B the given one [numbers of x, numbers of y]. The causes are those that people are known to
make; what none of them explains exactly has no name.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

from manualbp.audit.place import Jacobians, true_jacobian
from manualbp.audit.subject import Subject

MOVES = 3  # rows and columns
# Which of the two it is depends on whether the forward pass rotates.
ROTATION = "kernel not rotated, or rotated twice"


def cause_of(subject: Subject, place: int, both: Jacobians) -> str | None:
    """The first that explains B, from the plain to those that take another Jacobian."""
    if not bool(both.given.isfinite().all()):
        return "NaN at a point"
    for causes in (_of_delta, _of_factor, _of_coupling, _of_numbers, _of_parts, _of_divisors, _of_order, _of_steps):
        name = next(causes(both), None)
        if name is not None:
            return name
    return next(_of_others(subject, place, both), None)


def _of_delta(both: Jacobians) -> Iterator[str]:
    J, B, y = both.true, both.given, both.y[0]
    if not bool((B != 0).any()) and bool((both.x != 0).any()):
        yield "no gradient is given"
    if B.shape[1] > 1 and both.close(B, J.sum(1, keepdim=True).expand_as(J)):
        yield "delta ignored"
    for k, part in enumerate(B.split([t.numel() for t in both.y], 1)):
        true = J.split([t.numel() for t in both.y], 1)[k]
        if len(both.y) > 1 and not bool((part != 0).any()) and bool((true != 0).any()):
            yield "delta ignored"
    if len(both.y) == 1 and y.ndim and y.shape[0] > 1:
        of_rows = J.reshape(len(J), y.shape[0], -1)
        first = torch.zeros_like(of_rows)
        first[:, 0] = of_rows.sum(1)
        if both.close(B, first.reshape(J.shape)):
            yield "first row of delta for all"


def _of_factor(both: Jacobians) -> Iterator[str]:
    J, B, x, y = both.true, both.given, both.x, both.y[0]
    c = float((B * J).sum() / (J * J).sum()) if bool((J != 0).any()) else 0.0
    if not both.close(B, c * J) or c == 0:
        return
    sizes = J.abs()[J.abs() > 1e-9 * J.abs().max()]
    alike = float(sizes.max() - sizes.min()) < 1e-6 * float(sizes.max())
    of_each = float((J.abs() > 1e-9 * J.abs().max()).sum(0).double().mean())  # inputs that an output sees

    def is_(value: float) -> bool:
        return abs(c - value) < 1e-6 * abs(value)

    if is_(-1):
        yield "sign"
    if alike and float(sizes.max()) < 1 and is_(1 / float(sizes.max())) and of_each > 1:
        yield "divisor missing"
    if alike and float(sizes.max()) < 1 and is_(float(sizes.max()) ** -0.5) and of_each > 1:
        yield "divisor is m, not m^2"
    if x.ndim and not y.ndim and any(map(is_, (x.shape[0], x.numel()))):
        yield "divisor missing"
    if (y.ndim and y.shape[0] > 1 and is_(1 / y.shape[0])) or (x.ndim and not y.ndim and is_(1 / x.shape[0])):
        yield "averaged, not summed"
    if x.ndim == 1 and y.ndim > 1 and is_(x.numel() / y.numel()):
        yield "averaged, not summed"
    yield "constant factor"


def _of_parts(both: Jacobians) -> Iterator[str]:
    """B has some of J's numbers, and zeros for the others."""
    J, B, x = both.true, both.given, both.x
    there = J.abs() > both.tolerance + 1e-9 * J.abs().max()
    gone = there & (B.abs() <= both.tolerance)
    if not both.close(torch.where(gone, torch.zeros_like(J), J), B):
        return
    whole = (gone == there).all(1) & there.any(1)  # numbers of x that get nothing
    small = x.shape != both.y[0].shape and _broadcasts(tuple(x.shape), tuple(both.y[0].shape))
    if small and bool((there.sum(0) <= 1).all()):
        yield "bias not summed" if x.ndim == 1 and both.close(J, there.to(J.dtype)) else "broadcast not summed"
    elif bool(whole.any()) and not bool((gone.any(1) & ~whole).any()) and x.ndim:
        yield "rest of the stride forgotten" if _last(whole.reshape(x.shape)) else "off by one at the border"
    elif bool((there.sum(1) > 1).any()) and bool(((there & ~gone).sum(1) <= 1).all()):
        yield "overlap overwritten"


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False


def _of_divisors(both: Jacobians) -> Iterator[str]:
    """Of each y a factor of its own, 1 for some."""
    J, B = both.true, both.given
    there = J.abs() > both.tolerance + 1e-9 * J.abs().max()
    factors = torch.where(there, B / J, torch.zeros_like(J)).sum(0) / there.sum(0).clamp_min(1)
    if both.x.ndim > 2 and bool((J + both.tolerance >= 0).all()) and both.close(B, J * factors):
        yield "divisor of an overhanging window"


def _last(hit: Tensor) -> bool:
    """Whether these are whole last rows, or columns."""
    lines = [hit.movedim(axis, 0).flatten(1).any(1) if hit.ndim > 1 else hit for axis in range(hit.ndim)[-2:]]
    return any(bool(line[-1]) and not bool(line[0]) for line in lines)


def _diagonal(M: Tensor) -> bool:
    return M.shape[0] == M.shape[1] and float((M - M.diag().diag()).abs().max()) <= 1e-6 * float(M.abs().max())


def _of_numbers(both: Jacobians) -> Iterator[str]:
    """y_i = phi(x_i)."""
    J, B, x = both.true, both.given, both.x.flatten()
    if not (_diagonal(J) and _diagonal(B)):
        return
    wrong, d = both.wrong.any(1), J.diag()
    if not bool(x[wrong].any()):
        yield "mask from values"
    leaks = d[wrong].numel() > 1 and float(d[wrong].max() - d[wrong].min()) < 1e-6 and float(d[wrong][0]) != 0
    kinds = [sorted({round(float(n), 9) for n in M.diag()}) for M in (J, B)]
    if kinds[0] == kinds[1] and len(kinds[0]) == 2 and len(d) > 4:
        yield "random numbers drawn again"
    if both.close(B, torch.eye(len(B), dtype=B.dtype)) and not leaks:
        yield "slope missing"


def _of_coupling(both: Jacobians) -> Iterator[str]:
    """Each y sees several x: through a sum, or a mean and a variance."""
    J, B, y = both.true, both.given, both.y[0].double()
    if J.shape[0] != J.shape[1]:
        return
    eye = torch.eye(len(B), dtype=B.dtype)
    if both.close(B, J.T) and both.close(J @ J.T, eye):
        yield "permutation for its inverse"
    if _diagonal(J) and not _diagonal(B):
        yield "training rule in evaluation"
    if _diagonal(J):
        return
    if _diagonal(B):
        for p in (y, y.exp()):
            sums = [bool(((p.sum(axis) - 1).abs() < 1e-6).all()) for axis in range(p.ndim)]
            if any(sums) and bool((p > 0).all()):
                yield "softmax's sum missing"
    size = float(J.abs().max())
    mean_gone = float(J.sum(0).abs().max()) < 1e-3 * size * len(J)
    length_gone = float((both.x.flatten() @ J).abs().max()) < 1e-3 * size * float(both.x.norm())
    if _diagonal(B) and (mean_gone or length_gone):
        yield "statistics taken as constants"
    elif mean_gone and float(B.sum(0).abs().max()) < 1e-6 * size * len(J):
        # Of the mean alone the numbers of a column beside the diagonal are the same.
        off = B - B.diag().diag()
        columns = [c[c.abs() > 1e-9 * size] for c in off.T]
        if all(float(c.max() - c.min()) < 1e-6 * size for c in columns if len(c)):
            yield "variance taken as constant"


def _moved(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """A name and what it does with a tensor's axes."""
    n = len(shape)
    if n > 2:
        space = tuple(range(2, n))
        yield "flipped", lambda t: t.flip(space)
        if n == 4 and shape[2] == shape[3]:
            yield "transposed", lambda t: t.transpose(2, 3)
    if n > 2 and shape[0] == shape[1]:
        yield "exchanged", lambda t: t.transpose(0, 1)
    if n > 2 and shape[1] > 1:
        yield "exchanged", lambda t: t.flip(1)
        yield "exchanged", lambda t: t.roll(1, 1)
    if n > 2 and shape[0] > 1:
        yield "exchanged", lambda t: t.flip(0)


NAMES = {"flipped": ROTATION, "exchanged": "channels exchanged", "transposed": "kernel transposed in space"}


def _of_order(both: Jacobians) -> Iterator[str]:
    """B has J's rows, or its columns, in another order."""
    J, B = both.true, both.given
    for axis, shape in ((0, tuple(both.x.shape)), (1, tuple(both.y[0].shape))):
        if len(both.y) > 1 and axis:
            return
        count = J.shape[axis]
        for name, move in _moved(shape):
            order = move(torch.arange(count).reshape(shape)).flatten()
            if both.close(B, J.index_select(axis, order)):
                yield NAMES[name]
    J, B = (M.reshape(*both.x.shape, -1) for M in (both.true, both.given))
    for axis, n in enumerate(both.x.shape):
        for a, b in ((J, B), (B, J)) if n > 3 else ():
            here, next_one = b.narrow(axis, 0, n - 1), a.narrow(axis, 1, n - 1)
            inside = (a - b).narrow(axis, 1, n - 2).abs().max() > 1e-6 * J.abs().max()
            if bool(inside) and float((here - next_one).abs().max()) < 1e-6 * float(J.abs().max()):
                yield "off by one at the border"
    if both.x.ndim > 3 and min(both.x.shape[2:4]) > 1:
        yield from _moved_in_space(J, B)


def _moved_in_space(J: Tensor, B: Tensor) -> Iterator[str]:
    """B[.., h + a, k + b, ..] = J[.., h, k, ..] wherever both are, for most of J."""
    H, W = J.shape[2:4]
    for a, b in product(range(-MOVES, MOVES + 1), repeat=2):
        if (a, b) == (0, 0) or abs(a) >= H or abs(b) >= W:
            continue
        here = J[:, :, max(0, -a) : H - max(0, a), max(0, -b) : W - max(0, b)]
        there = B[:, :, max(0, a) : H - max(0, -a), max(0, b) : W - max(0, -b)]
        alike = float((here - there).abs().max()) < 1e-6 * float(J.abs().max())
        if alike and 2 * float(here.square().sum()) > float(J.square().sum()):
            yield "moved by rows or columns"


def _of_steps(both: Jacobians) -> Iterator[str]:
    """The windows' step and that of their taps, read off the numbers that are not 0, on the last axis."""
    x, y = both.x, both.y[0]
    if x.ndim != y.ndim or x.ndim < 3 or x.shape[0] != y.shape[0] or len(both.y) > 1:
        return
    true, given = (_steps(M, x.shape[-1], y.shape[-1]) for M in (both.true, both.given))
    if true is None or given is None or true == given:
        return
    (s, d), (t, e) = true, given
    if (t, e) == (d, s):
        yield "stride and dilation exchanged"
    elif t == s and e == 1:
        yield "dilation forgotten"
    elif e == d and t == 1:
        yield "stride forgotten"


def _steps(M: Tensor, W: int, J: int) -> tuple[int, int] | None:
    """(stride, dilation): how far the columns that a window sees move, and how far they are apart."""
    seen = (M.abs() > 1e-9 * M.abs().max()).reshape(-1, W, M.shape[1] // J, J).any(2).any(0)  # [W, J]
    columns = [seen[:, j].nonzero().flatten().tolist() for j in range(J)]
    full = max(map(len, columns))
    inner = [(j, c) for j, c in enumerate(columns) if len(c) == full]
    apart = {b - a for _, c in inner for a, b in pairwise(c)}
    moves = {(c[0] - b[0]) / (j - i) for (i, b), (j, c) in pairwise(inner)}
    if len(apart) != 1 or len(moves) != 1 or next(iter(moves)) % 1:
        return None
    return int(next(iter(moves))), next(iter(apart))


def _of_others(subject: Subject, place: int, both: Jacobians) -> Iterator[str]:
    """B is J where another input, or x itself, is taken for something else."""
    which, x = subject.differentiable(), subject.values[place]

    def explains(i: int, t: Tensor) -> bool:
        other = subject.at(i, t)
        try:
            J, _ = true_jacobian(other, place, which)
        except Exception:
            return False
        return both.close(both.given, J)

    if len(both.y) == 1 and both.y[0].shape == x.shape and _diagonal(both.true) and explains(place, both.y[0]):
        yield "slope at the output"
    for i in subject.which:
        w = subject.values[i]
        for name, move in _moved(tuple(w.shape)) if i != place else ():
            moved = move(w)
            if moved.shape == w.shape and explains(i, moved.contiguous()):
                yield NAMES[name]
    if len(subject.which) > 1:
        others = [i for i in subject.which if i != place and subject.values[i].shape == x.shape]
        for i in others:
            J, _ = true_jacobian(subject, i, which)
            if both.close(both.given, J):
                yield "gradient of another input"
    if _diagonal(both.true) and _diagonal(both.given):
        yield "another formula than forward's"
