"""What is asked of a backward pass beside its value at the given inputs: the given gradient against itself, otherwise.

Each check is a function of the subject; the table at the end names them.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from manualbp.audit.report import WRONG, Finding
from manualbp.audit.subject import Pulled, Subject, drawn, filled, joined, line_of, seeded

SUBSETS = 4  # inputs, of which all subsets are tried; of more each one alone


def same(subject: Subject, a: Tensor, b: Tensor, size: Tensor | None = None) -> bool:
    """Whether two gradients are the same up to rounding, of numbers as large as b's or `size`'s, NaN in both."""
    if not torch.equal(a.isnan(), b.isnan()):
        return False
    off, *sizes = (t.double().nan_to_num().norm() for t in (a - b, b, *([] if size is None else [size])))
    return bool(off <= subject.eps**0.75 * max(sizes))


def changed(subject: Subject, check: str, what: str, cause: str | None, a: Pulled, b: Pulled) -> Iterator[Finding]:
    """A finding for each input whose gradient is another one in a than in b."""
    sizes = subject.pull().gradients  # of deltas of about 1, as all are here
    for place, *three in zip(subject.which, a.gradients, b.gradients, sizes, strict=True):
        if not same(subject, *three):
            yield Finding(check, WRONG, what, subject.names[place], cause)


def layouts(deltas: Sequence[Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """A name, deltas that lie otherwise in memory, and the same numbers without gaps."""

    def transposed(d: Tensor) -> Tensor:
        return d.transpose(-1, -2).contiguous().transpose(-1, -2) if d.ndim > 1 else sliced(d)

    def sliced(d: Tensor) -> Tensor:
        if not d.ndim:
            return d
        apart = torch.full((*d.shape[:-1], 2 * d.shape[-1]), torch.nan, dtype=d.dtype, device=d.device)
        apart[..., ::2] = d
        return apart[..., ::2]

    def last(d: Tensor) -> Tensor:
        return d.contiguous(memory_format=torch.channels_last) if d.ndim == 4 else transposed(d)

    def expanded(d: Tensor) -> Tensor:
        return d.new_full((), 0.75).expand(d.shape)

    for how in (transposed, sliced, last, expanded):
        made = tuple(how(d) for d in deltas)
        yield how.__name__, made, tuple(d.clone(memory_format=torch.contiguous_format) for d in made)


def incoming(subject: Subject) -> Iterator[Finding]:
    """Deltas that lie otherwise, are 0, are twice as large, or are a sum."""
    deltas = drawn(subject.pull().outputs, 1)
    for name, given, plain in layouts(deltas):
        cause = "delta assumed contiguous"
        try:
            a = subject.pull(given)
        except Exception as error:
            what = f"with a delta that is {name} in memory it fails: {line_of(error)}"
            yield Finding("incoming gradient", WRONG, what, None, cause)
            continue
        what = f"with a delta that is {name} in memory it is another one than with the same numbers without gaps"
        yield from changed(subject, "incoming gradient", what, cause, a, subject.pull(plain))
    zero, one = subject.pull([torch.zeros_like(d) for d in deltas]), subject.pull(deltas)
    for place, g in zip(subject.which, zero.gradients, strict=True):
        if bool((g.nan_to_num(nan=1.0) != 0).any()) and all(bool(t.isfinite().all()) for t in one.gradients):
            what = f"of a delta of zeros it is not 0 (the largest: {float(g.abs().max()):.3g})"
            yield Finding("incoming gradient", WRONG, what, subject.names[place], "delta ignored")
    others = drawn(deltas, 2)
    both = subject.pull([a + 2 * b for a, b in zip(deltas, others, strict=True)])
    apart = [a + 2 * b for a, b in zip(one.gradients, subject.pull(others).gradients, strict=True)]
    for place, g, h in zip(subject.which, both.gradients, apart, strict=True):
        if not same(subject, g, h, one.gradients[subject.which.index(place)]):
            what = "of delta + 2 delta' it is not the sum of theirs: it is not linear in delta"
            yield Finding("incoming gradient", WRONG, what, subject.names[place])
    if len(deltas) > 1:
        yield from _one_output(subject, deltas)


def _one_output(subject: Subject, deltas: Sequence[Tensor]) -> Iterator[Finding]:
    """A loss of one of several outputs: the others' deltas are undefined, which PyTorch fills with zeros or None."""
    for k in range(len(deltas)):
        values = subject.leaves()
        outputs = [y for y in subject.run(values) if y.requires_grad]
        wanted = [values[i] for i in subject.which]
        plain = subject.pull([d if i == k else torch.zeros_like(d) for i, d in enumerate(deltas)])
        try:
            back = torch.autograd.grad(outputs[k], wanted, deltas[k], allow_unused=True)
        except Exception as error:
            what = f"of a loss of output {k} alone it fails: {line_of(error)}"
            yield Finding("incoming gradient", WRONG, what)
            continue
        given = filled(back, wanted)
        what = f"of a loss of output {k} alone it is another one than with deltas of zeros for the others"
        yield from changed(subject, "incoming gradient", what, None, Pulled(values, (), given), plain)


def written(subject: Subject) -> Iterator[Finding]:
    """delta, inputs, and what was kept, after the backward pass."""
    values = subject.leaves()
    before = [v.detach().clone() if isinstance(v, Tensor) else v for v in values]
    outputs = [y for y in subject.run(values) if y.requires_grad]
    results = [y.detach().clone() for y in outputs]
    deltas = drawn(outputs, 1)
    wanted = [values[i] for i in subject.which]
    numbers = [d.clone() for d in deltas]
    first = torch.autograd.grad(outputs, wanted, deltas, allow_unused=True, retain_graph=True)
    first = tuple(None if g is None else g.clone() for g in first)
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(deltas, numbers, strict=True)):
        yield Finding("written to", WRONG, "the backward pass changes its incoming gradient", None, "delta written to")
        deltas = numbers
    for place, (v, was) in enumerate(zip(values, before, strict=True)):
        if place in subject.which and not torch.equal(v.detach().nan_to_num(), was.nan_to_num()):
            what, name = "the backward pass changes its input", subject.names[place]
            yield Finding("written to", WRONG, what, name, "input written to")
            return
    if not all(torch.equal(a.detach().nan_to_num(), b.nan_to_num()) for a, b in zip(outputs, results, strict=True)):
        yield Finding("written to", WRONG, "the backward pass changes the output", None, "kept tensor overwritten")
    try:
        again = torch.autograd.grad(outputs, wanted, deltas, allow_unused=True)
    except Exception as error:
        what = f"a second backward pass (retain_graph=True) fails: {line_of(error)}"
        yield Finding("written to", WRONG, what, None, "kept tensor overwritten")
        return
    for place, a, b in zip(subject.which, first, again, strict=True):
        if (a is None) != (b is None) or (a is not None and b is not None and not same(subject, a, b)):
            what = "a second backward pass (retain_graph=True) gives another gradient than the first"
            yield Finding("written to", WRONG, what, subject.names[place], "kept tensor overwritten")


def subsets(subject: Subject) -> Iterator[Finding]:
    """Each gradient where others are not asked for."""
    which = subject.which
    some = [s for n in range(1, len(which)) for s in combinations(which, n)]
    if len(which) > SUBSETS:
        some = [(place,) for place in which]
    whole = dict(zip(which, subject.pull().gradients, strict=True))
    count = len(subject.pull().outputs)
    for needed in some:
        asked = ", ".join(subject.names[i] for i in needed)
        try:
            alone = subject.pull(needed=needed)
        except Exception as error:
            what = f"where only {asked} require a gradient it fails: {line_of(error)}"
            yield Finding("frozen inputs", WRONG, what, None, "wrong where another input is frozen")
            continue
        if len(alone.outputs) != count:
            continue  # an output that depends on others only
        for place, g in zip(needed, alone.gradients, strict=True):
            if not same(subject, g, whole[place]):
                what = f"where only {asked} require a gradient it is another one than where all do"
                yield Finding("frozen inputs", WRONG, what, subject.names[place], "wrong where another input is frozen")


def calls(subject: Subject) -> Iterator[Finding]:
    """Two calls before the backward passes, which then run in either order."""
    other = subject.of([0.5 * v + 0.25 * v.flip(0) if i in subject.which and v.ndim else v
                        for i, v in enumerate(subject.values)])  # fmt: skip
    try:
        alone = subject.pull(), other.pull(seed=2)
    except Exception:
        return
    for order in ((0, 1), (1, 0)):
        runs = [s.leaves() for s in (subject, other)]
        outputs = [[y for y in s.run(v) if y.requires_grad] for s, v in zip((subject, other), runs, strict=True)]
        for k in order:
            wanted = [runs[k][i] for i in subject.which]
            back = torch.autograd.grad(outputs[k], wanted, drawn(outputs[k], k + 1), allow_unused=True)
            given = filled(back, wanted)
            what = "called twice before the backward passes, it is another gradient than of one call"
            found = changed(subject, "two calls", what, "state shared by calls", Pulled((), (), given), alone[k])
            for finding in found:
                yield finding
                return


def memory(subject: Subject) -> Iterator[Finding]:
    """Memory that was never set: new tensors are filled with NaN."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    before_fill = settings.fill_uninitialized_memory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.use_deterministic_algorithms(True, warn_only=True)
            settings.fill_uninitialized_memory = False
            plain = subject.pull()
            settings.fill_uninitialized_memory = True
            poisoned = subject.pull()
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = before_fill
    what = "it depends on what was in memory before: a buffer is not, or not all, set"
    yield from changed(subject, "uninitialised memory", what, "buffer not initialised", poisoned, plain)


def repeated(subject: Subject) -> Iterator[Finding]:
    """The same again, the random state another one before the backward pass."""

    def back(seed: int) -> tuple[Tensor, ...]:
        values = subject.leaves()
        outputs = [y for y in subject.run(values) if y.requires_grad]
        seeded(seed, values)
        wanted = [values[i] for i in subject.which]
        made = torch.autograd.grad(outputs, wanted, drawn(outputs, 1), allow_unused=True)
        return filled(made, wanted)

    one, two = joined(subject.outputs()), joined(subject.outputs())
    alike = torch.equal(one.nan_to_num(), two.nan_to_num())
    for place, a, b in zip(subject.which, back(1), back(2), strict=True):
        if not same(subject, a, b):
            what = "two runs give different gradients of the same outputs"
            cause = "random numbers drawn again" if alike else None
            yield Finding("determinism", WRONG, what, subject.names[place], cause)


# What spoils every other check comes before the slopes.
FIRST = {"uninitialised memory": memory, "determinism": repeated, "written to": written}
CHECKS = {
    "incoming gradient": incoming,
    "frozen inputs": subsets,
    "two calls": calls,
}
