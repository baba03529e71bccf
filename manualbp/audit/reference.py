"""A function that is trusted beside the audited one: outputs, gradients, rounding, time and memory."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from manualbp.audit.checks import same
from manualbp.audit.report import NOTE, WRONG, Finding
from manualbp.audit.subject import NARROW, Subject, drawn

REFERENCE = "reference"
ROUNDS = 7


def beside(subject: Subject, trusted: Callable[..., Any]) -> Iterator[Finding]:
    """Where the two differ; and what each costs."""
    other = replace(subject, f=trusted)
    mine, theirs = subject.pull(), other.pull()
    if [y.shape for y in mine.outputs] != [y.shape for y in theirs.outputs]:
        shapes = " and ".join(str([list(y.shape) for y in run.outputs]) for run in (mine, theirs))
        yield Finding(REFERENCE, WRONG, f"the outputs have shapes {shapes}, the reference's last")
        return
    for k, (y, z) in enumerate(zip(mine.outputs, theirs.outputs, strict=True)):
        if not same(subject, y.detach(), z.detach()):
            off = float((y - z).detach().abs().max())
            yield Finding(REFERENCE, WRONG, f"output {k} is another one than the reference's, by up to {off:.3g}")
    for place, g, h in zip(subject.which, mine.gradients, theirs.gradients, strict=True):
        if not same(subject, g, h):
            off = float((g - h).abs().max())
            what = f"the gradient is another one than the reference's, by up to {off:.3g}"
            yield Finding(REFERENCE, WRONG, what, subject.names[place])
    yield from _rounding(subject, other)
    (forward, backward), (of_f, of_b) = _seconds(subject), _seconds(other)
    what = (
        f"forward {forward * 1e3:.3g} ms and backward {backward * 1e3:.3g} ms, of the reference {of_f * 1e3:.3g} and "
    )
    kept = f"{_kept(subject):,} bytes are kept for backward, {_kept(other):,} by the reference"
    yield Finding(REFERENCE, NOTE, f"{what}{of_b * 1e3:.3g}; {kept}")


def _rounding(subject: Subject, other: Subject) -> Iterator[Finding]:
    """The largest errors in narrow dtypes, in units of the last place of the largest number, of both."""
    of_place: dict[int, list[str]] = {place: [] for place in subject.which}
    for dtype in NARROW:
        narrow = subject.cast(dtype)
        wide = narrow.cast(torch.float64)
        deltas = [d.to(dtype) for d in drawn(other.pull().outputs, 1)]
        try:
            true = replace(wide, f=other.f).pull([d.double() for d in deltas]).gradients
            runs = [s.pull(deltas).gradients for s in (narrow, replace(narrow, f=other.f))]
        except Exception:  # f or the reference does not take this dtype
            continue
        for k, place in enumerate(subject.which):
            unit = torch.finfo(dtype).eps * float(true[k].abs().max())
            if unit:
                ours, theirs = (float((run[k].double() - true[k]).abs().max()) / unit for run in runs)
                of_place[place].append(
                    f"{ours:.1f} in {str(dtype).removeprefix('torch.')} (the reference {theirs:.1f})"
                )
    for place, words in of_place.items():
        if words:
            what = f"off by so many units of the last place: {', '.join(words)}"
            yield Finding(REFERENCE, NOTE, what, subject.names[place])


def _seconds(subject: Subject) -> tuple[float, float]:
    """Of a pass forwards and one backwards, medians."""
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        values = subject.leaves()
        start = time.perf_counter()
        outputs = [y for y in subject.run(values) if y.requires_grad]
        middle = time.perf_counter()
        deltas = drawn(outputs, 1)
        before = time.perf_counter()
        torch.autograd.grad(outputs, [values[i] for i in subject.which], deltas, allow_unused=True)
        times.append((middle - start, time.perf_counter() - before))
    forward, backward = (sorted(t)[ROUNDS // 2] for t in zip(*times, strict=True))
    return forward, backward


def _kept(subject: Subject) -> int:
    """Bytes of the tensors that are saved for backward, each memory once."""
    memory: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        memory[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = subject.run(subject.leaves())
    del outputs
    return sum(memory.values())
