"""Beyond the first derivative in float64: the second, forward mode, vmap, and the precision in float32."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from manualbp.audit.checks import same
from manualbp.audit.compare import DIRECTIONS, away, compare, direction
from manualbp.audit.report import NOTE, WRONG, Finding
from manualbp.audit.slopes import slope
from manualbp.audit.subject import Subject, drawn, filled, joined, line_of

# In float32 a gradient may have so many times the forward pass's error, or so many roundings, if that is more.
TIMES, ROUNDINGS = 300, 3000
REFUSED = (
    *("once_differentiable", "not implemented", "derivative for", "not differentiable", "support automatic"),
    *("no forward-mode", "jvp"),
)


def second(subject: Subject) -> Iterator[Finding]:
    """The backward pass as a function of inputs and delta, with its own gradient, beside the kinks of the first."""
    subject = away(subject, compare(subject, DIRECTIONS[:1]).kinks)
    pulled = subject.pull()
    count, deltas = len(subject.values), drawn(pulled.outputs, 1)

    def gradients(*all_of_them: Any) -> tuple[Tensor, ...]:
        given, own = all_of_them[:count], all_of_them[count:]
        values = [
            v.detach().requires_grad_() if i in subject.which and not v.requires_grad else v
            for i, v in enumerate(given)
        ]
        outputs = [y for y in subject.run(values) if y.requires_grad]
        wanted = [values[i] for i in subject.which]
        back = torch.autograd.grad(outputs, wanted, own, allow_unused=True, create_graph=True)
        return filled(back, wanted)

    names = (*subject.names, *("delta" for _ in deltas))
    which = (*subject.which, *range(count, count + len(deltas)))
    backward = replace(subject, f=gradients, values=(*subject.values, *deltas), which=which, names=names)
    try:
        compared = compare(backward, DIRECTIONS[:1])
        followed = backward.differentiable()
        if any("Error" in type(y.grad_fn).__name__ for y in backward.run(backward.leaves())):
            raise NotImplementedError("backward is marked as once_differentiable")
    except Exception as error:
        what = f"there is none: {line_of(error)}"
        kind = NOTE if any(word in str(error) for word in REFUSED) else WRONG
        yield Finding("second derivative", kind, what)
        return
    moved = any(bool((g != 0).any()) for g in pulled.gradients)
    if not followed and moved:
        what = "the gradient carries no graph (create_graph=True), and PyTorch gives 0 for its derivative silently"
        yield Finding("second derivative", WRONG, what, None, "second derivative detached")
        return
    for place in sorted({d.place for d in compared.wrong}):
        d = next(d for d in compared.wrong if d.place == place)
        what = f"of the gradient, by {names[place]}: {d.given:.6g} along a direction, the true one is {d.true:.6g}"
        cause = "second derivative detached" if d.given == 0 or not d.relative > 1e-6 else None
        yield Finding("second derivative", WRONG, what, names[place], cause or "second derivative detached")


def _followed(v: Tensor) -> Tensor:
    return v if v.requires_grad else v.detach().requires_grad_()


def forward(subject: Subject) -> Iterator[Finding]:
    """The tangents of forward mode, where there are some."""
    which = subject.differentiable()
    for place in subject.which:
        x = subject.values[place]
        if not x.numel():
            continue
        v = direction(x, "normal", 21)
        try:
            with forward_ad.dual_level(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = list(subject.leaves(()))
                values[place] = forward_ad.make_dual(values[place], v)
                outputs = subject.run(values)
                parts = [forward_ad.unpack_dual(outputs[k]) for k in which]
                given = joined([torch.zeros_like(y) if t is None else t for y, t in parts])
        except Exception:
            return
        phi = subject.along(place, v, which)
        y = phi(0.0)
        found = slope(phi, subject.eps * (y.abs() + y.abs().mean()))
        off = torch.where(found.error.isfinite(), found.excess(given), 0.0)
        if bool((off > 0).any()) and not bool(found.kink.any()):
            k = int(off.argmax())
            what = f"forward mode: output {k} has {float(given[k]):.6g}, the true slope is {float(found.value[k]):.6g}"
            yield Finding("forward mode", WRONG, what, subject.names[place])


def batched(subject: Subject) -> Iterator[Finding]:
    """torch.func.vmap of the gradient over two deltas, where it runs, beside one after the other."""
    deltas = [drawn(subject.pull().outputs, k) for k in (1, 2)]
    values = subject.leaves()
    outputs = [y for y in subject.run(values) if y.requires_grad]
    wanted = [values[i] for i in subject.which]

    def back(*own: Tensor) -> tuple[Tensor, ...]:
        made = torch.autograd.grad(outputs, wanted, own, allow_unused=True, retain_graph=True)
        return filled(made, wanted)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            both = torch.func.vmap(back)(*(torch.stack(pair) for pair in zip(*deltas, strict=True)))
    except Exception:
        return
    for k, own in enumerate(deltas):
        for place, a, b in zip(subject.which, both, back(*own), strict=True):
            if not same(subject, a[k], b):
                what = f"vmap over two deltas gives another gradient for number {k} than that delta alone"
                yield Finding("vmap", WRONG, what, subject.names[place])
                return


def precision(subject: Subject) -> Iterator[Finding]:
    """In float32, beside float64, where f takes both."""
    if any(v.dtype != torch.float64 for v in subject.values if isinstance(v, Tensor) and v.is_floating_point()):
        return
    narrow = subject.cast(torch.float32)
    wide = narrow.cast(torch.float64)
    try:
        deltas = drawn(narrow.pull().outputs, 1)
        a, b = narrow.pull(deltas), wide.pull([d.double() for d in deltas])
    except Exception:
        return
    if any(y.dtype != torch.float32 for y in a.outputs) or any(y.dtype != torch.float64 for y in b.outputs):
        return
    eps = torch.finfo(torch.float32).eps
    of_forward = max(_error(y.detach(), z.detach()) for y, z in zip(a.outputs, b.outputs, strict=True))
    for place, g, h in zip(subject.which, a.gradients, b.gradients, strict=True):
        off = _error(g, h)
        if off > max(TIMES * of_forward, ROUNDINGS * eps):
            what = f"in float32 it is off by {off:.1e} of its size, {off / eps:,.0f} roundings; y by {of_forward:.1e}"
            yield Finding("precision", WRONG, what, subject.names[place], "precision lost")


def _error(a: Tensor, b: Tensor) -> float:
    size = float(b.double().norm())
    return float((a.double() - b.double()).norm()) / size if size else 0.0


ORDERS = {"precision": precision, "second derivative": second, "forward mode": forward, "vmap": batched}
