"""The same backward pass elsewhere: beside a NaN or an infinity, under autocast, under torch.compile."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from manualbp.audit.checks import changed, same
from manualbp.audit.report import NOTE, WRONG, Finding
from manualbp.audit.subject import Pulled, Subject, drawn, joined, line_of, parted

AUTOCAST = torch.bfloat16
# Under autocast a gradient may be off by so many times what the outputs are, or by so much of its size.
TIMES, MUCH = 30, 0.5


def spread(subject: Subject) -> Iterator[Finding]:
    """A NaN in an input, an infinity in delta: do they reach gradients that have nothing to do with them?

    dL/dx_i is a sum of delta_k J_ik. An input i is clean of the outputs K if J_ik = 0 for k in K, at the given inputs
    and at others, where a ReLU is open. No NaN at an output k may come to it as delta_k J_ik, and no NaN of an x_j
    that is only seen by outputs K.
    """
    deltas = drawn(subject.pull().outputs, 1)
    which = subject.differentiable()
    for place in subject.which:
        x = subject.values[place]
        if not x.numel():
            continue
        broken = x.clone(memory_format=torch.contiguous_format)
        broken.view(-1)[x.numel() // 2] = torch.nan
        other = subject.at(place, broken)
        with suppress(Exception):  # f may refuse a NaN
            outputs = other.outputs()
            seen = joined([outputs[k] for k in which]).isnan()
            reached = _reached(subject, other.pull(deltas), seen)
            if reached:
                what = f"a NaN in {subject.names[place]} reaches {reached}, which no output that saw it depends on"
                yield Finding("NaN and infinity", NOTE, what)
    vector = joined(deltas)
    at = torch.arange(len(vector)) == len(vector) // 2
    with suppress(Exception):
        pulled = subject.pull(parted(torch.where(at, torch.inf, vector), deltas))
        reached = _reached(subject, pulled, at)
        if reached:
            what = f"an infinity in delta[{len(vector) // 2}] reaches {reached}, which that output does not depend on"
            yield Finding("NaN and infinity", NOTE, what)


def _reached(subject: Subject, pulled: Pulled, seen: Tensor) -> str:
    """How many numbers of which inputs have no finite gradient, though they are clean of the outputs that are seen."""
    words = []
    for place, g, clean in zip(subject.which, pulled.gradients, _clean(subject, seen), strict=True):
        count = int((clean & ~g.isfinite()).sum())
        if count:
            words.append(f"the gradient of {count} numbers of {subject.names[place]}")
    return " and ".join(words)


def _clean(subject: Subject, seen: Tensor) -> list[Tensor]:
    """Of each audited input the numbers that none of these outputs depends on."""
    turned = [-v if i in subject.which else v for i, v in enumerate(subject.values)]
    clean = [torch.ones_like(subject.values[i], dtype=torch.bool) for i in subject.which]
    for s in (subject, subject.of(turned)):
        outputs = s.pull().outputs
        numbers = joined(drawn(outputs, 3)).abs() + 0.5
        gradients = s.pull(parted(torch.where(seen, numbers, 0.0), outputs)).gradients
        clean = [c & (g == 0) for c, g in zip(clean, gradients, strict=True)]
    return clean


def autocast(subject: Subject) -> Iterator[Finding]:
    """float32 inputs, the forward pass under autocast in bfloat16, and the backward pass after it."""
    narrow = subject.cast(torch.float32)
    kind = next(v.device.type for v in narrow.values if isinstance(v, Tensor))

    def f(*values: Any) -> Any:
        with torch.autocast(kind, AUTOCAST):
            return subject.f(*values)

    try:
        true = narrow.pull()
    except Exception:  # f does not take float32
        return
    try:
        made = replace(narrow, f=f).pull()
    except Exception as error:
        what = f"in {AUTOCAST} it fails: {line_of(error)}; torch.amp.custom_fwd and custom_bwd are made for it"
        yield Finding("autocast", NOTE, what)
        return
    off = _off(made.outputs, true.outputs)
    for place, g, h in zip(subject.which, made.gradients, true.gradients, strict=True):
        if not _off([g], [h]) <= max(TIMES * off, MUCH) and bool(h.isfinite().all()):
            what = f"in {AUTOCAST} it is off by {_off([g], [h]):.1g} of its size, the outputs by {off:.1g}"
            yield Finding("autocast", NOTE, what, subject.names[place])


def _off(ours: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """How far apart they are, in parts of the true ones' size."""
    a, b = joined(ours), joined(true)
    size = float(b.norm())
    return float((a - b).norm()) / size if size else 0.0


def compiled(subject: Subject) -> Iterator[Finding]:
    """torch.compile, without a code generator, beside eager."""
    again = replace(subject, seed=subject.seed + 1)
    if not torch.equal(joined(subject.outputs()).nan_to_num(), joined(again.outputs()).nan_to_num()):
        return  # it draws numbers, and compiled it draws others

    def once(*values: Any) -> Any:
        return subject.f(*values)

    # PyTorch remembers what it compiled by the code object, and gives up after eight.
    own = FunctionType(once.__code__.replace(), globals(), closure=once.__closure__)
    eager = subject.pull()
    try:
        made = replace(subject, f=torch.compile(own, backend="aot_eager", dynamic=False)).pull()
    except Exception as error:
        yield Finding("torch.compile", NOTE, f"it fails: {line_of(error)}")
        return
    for k, (y, z) in enumerate(zip(made.outputs, eager.outputs, strict=True)):
        if not same(subject, y.detach(), z.detach()):
            yield Finding("torch.compile", WRONG, f"output {k} is another one than without it")
            return
    yield from changed(subject, "torch.compile", "compiled it is another one than eager", None, made, eager)


ELSEWHERE = {"NaN and infinity": spread, "autocast": autocast, "torch.compile": compiled}
