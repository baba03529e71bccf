"""Is this backward pass right, where is it wrong, and why? `audit` asks what gradcheck asks, and what it does not."""

import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from manualbp.audit.checks import CHECKS, FIRST
from manualbp.audit.compare import Compared, compare
from manualbp.audit.elsewhere import ELSEWHERE
from manualbp.audit.nodes import NODES, kept_on_ctx
from manualbp.audit.orders import ORDERS
from manualbp.audit.place import placed
from manualbp.audit.reference import REFERENCE, beside
from manualbp.audit.report import NOTE, UNKNOWN, WRONG, Finding, Report
from manualbp.audit.subject import CannotAuditError, Subject, line_of, subject_of
from manualbp.audit.variations import extents, values

__all__ = ["CannotAuditError", "Finding", "Report", "assert_correct", "audit"]

SLOPE = "slope"
# An error of so little, where float64 is computed in, is one of rounding.
LOW_PRECISION = 1e-5


def audit(
    f: Any,
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    skip: Collection[str] = (),
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Report:
    """Whether the backward pass of f is right at inputs like these; truthy where it is.

    f: a function, a torch.autograd.Function, a module (its parameters are audited, too) or a method of one, that
    returns a tensor or several. inputs: tensors; or their shapes, as (2, 3, 8, 8) or "2x3x8x8", filled with normal
    numbers; anything else is handed on as it is. Of the tensors those that require a gradient are audited, or all
    floating ones where none does. reference: a function of the same inputs that is trusted, whose outputs, gradients,
    time and memory are put beside those of f. skip: names of checks to leave out, as in `Report.checks`. dtype: of
    what is computed; float64, where f takes it, if it is not given. seed: of all that is drawn; the same one gives the
    same report.

    The gradient is compared with slopes by differences, whose own error is the only tolerance (audit/slopes.py): at a
    kink, as ReLU at 0 or a tie of max pooling, any gradient between the slopes of the two sides is right. Once a check
    has found a mistake, later ones are left out: they would show the same one. Nothing of the caller's is changed: not
    the tensors, the module, the random state, or flags; meanwhile PyTorch takes one thread.
    Raises CannotAuditError, a ValueError, naming what cannot be audited: complex or sparse tensors, no floating input,
    a function that fails, changes its input, or returns no tensor with a gradient.
    """
    varied = {"values": partial(_varied, "values", values), "extents": partial(_varied, "extents", extents)}
    checks = {**FIRST, SLOPE: _slope, **varied, **CHECKS, **NODES, **ORDERS, **ELSEWHERE}
    unknown = sorted({*skip} - {*checks, REFERENCE})
    if unknown:
        raise CannotAuditError(f"audit: skip = {unknown}; it must be of {', '.join(checks)}")
    with _undisturbed():
        subject = subject_of(f, inputs, seed, dtype)
        if reference is not None:
            checks[REFERENCE] = partial(beside, trusted=reference)
        report = Report(_name(f), seed)
        for name, check in checks.items():
            if name in skip:
                report.left_out[name] = "as asked for"
                continue
            if report.verdict == WRONG:  # what comes after would only show the same mistake again
                report.left_out[name] = "since a mistake was found before"
                continue
            start = time.perf_counter()
            try:
                report.findings += check(subject, report) if name in (SLOPE, *varied) else check(subject)
            except Exception as error:
                broken = next((e for e in [line_of(error)] if name in FIRST or name == SLOPE), None)
                what = f"the backward pass fails: {broken}" if broken else f"the check fails: {line_of(error)}"
                report.findings.append(Finding(name, WRONG if broken else UNKNOWN, what))
            report.checks[name] = time.perf_counter() - start
    return report


@contextmanager
def _undisturbed() -> Iterator[None]:
    """With one thread, since what is audited is small, and all as it was before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


def assert_correct(f: Any, *inputs: Any, **settings: Any) -> None:
    """AssertionError with the report unless `audit`, with these settings, finds the backward pass right."""
    report = audit(f, *inputs, **settings)
    if not report:
        raise AssertionError(str(report))


audit.assert_correct = assert_correct  # pyright: ignore[reportFunctionMemberAccess] `manualbp.audit` is the function


def _name(f: Any) -> str:
    return getattr(f, "__qualname__", type(f).__name__)


def _slope(subject: Subject, report: Report) -> Iterator[Finding]:
    """The gradient at the given inputs, beside slopes."""
    compared = compare(subject)
    yield from _told(SLOPE, "", subject, compared, report)
    for place in sorted({d.place for d in compared.unknown} - {d.place for d in compared.wrong}):
        d = next(d for d in compared.unknown if d.place == place)
        what = f"the slope is {d.true:.3g} up to {d.error:.1g}, the gradient says {d.given:.3g}"
        yield Finding(SLOPE, UNKNOWN, what, subject.names[place])
    for place in sorted(compared.kinks):
        what = "there are kinks at these inputs; a gradient between the slopes of the two sides is right there"
        yield Finding(SLOPE, NOTE, what, subject.names[place])


def _varied(
    name: str, variations: Callable[[Subject], Iterator[tuple[str, Subject]]], subject: Subject, report: Report
) -> Iterator[Finding]:
    """The gradient at other inputs; of each input the first of these where it is wrong."""
    for what, other in variations(subject):
        try:
            compared = compare(other)
        except Exception as error:
            cause = _by_extents(subject, other) if name == "extents" else None
            # What grows and leaves y as it was may be of an extent that the function only fails to refuse.
            grown = [y.shape for y in other.outputs()] != [y.shape for y in subject.outputs()]
            kind = WRONG if grown or name != "extents" else NOTE
            yield Finding(name, kind, f"with {what} the backward pass fails: {line_of(error)}", None, cause)
            return
        found = [*_told(name, f"with {what} ", other, compared, report)]
        if name == "extents":
            found = [replace(f, cause=f.cause or _by_extents(subject, other)) for f in found]
        yield from found
        if found:
            return


def _by_extents(subject: Subject, other: Subject) -> str | None:
    """Right where height is width, at other extents, too, and wrong where it is not."""

    def square(s: Subject) -> bool:
        return all(s.values[i].shape[-1] == s.values[i].shape[-2] for i in s.which if s.values[i].ndim > 2)

    def right(s: Subject) -> bool:
        try:
            return not compare(s).wrong
        except Exception:
            return False

    squares = [s for _, s in extents(subject) if square(s)]
    if square(subject) and not square(other) and squares and all(map(right, squares)):
        return "height for width"
    return None


def _told(check: str, where: str, subject: Subject, compared: Compared, report: Report) -> Iterator[Finding]:
    for place in sorted({d.place for d in compared.wrong}):
        d = max((d for d in compared.wrong if d.place == place), key=lambda d: d.relative)
        found = placed(subject, place, report)
        cause = found.cause
        if _low(subject, place, d.relative):
            cause = "precision lost"
        elif d.given != d.given or abs(d.given) == float("inf"):
            cause = "NaN at a point"
        elif d.kink and check != "extents":
            cause = "ties all counted"
        if cause == "constant factor" and any(t._version for _, own in kept_on_ctx(subject) for t in own.values()):
            cause = "kept tensor overwritten"
        what = f"{where}{d.given:.6g} along a direction, the true slope is {d.true:.6g}{found.where}"
        yield Finding(check, WRONG, what, subject.names[place], cause)


def _low(subject: Subject, place: int, relative: float) -> bool:
    """Whether a gradient in float64 is one of float32, or of half precision."""
    if subject.eps > torch.finfo(torch.float64).eps:
        return False
    g = subject.pull().gradients[subject.which.index(place)]
    rounded = relative < 0.1 and any(torch.equal(g, g.to(d).double()) for d in (torch.float32, torch.bfloat16))
    return rounded or relative < LOW_PRECISION
