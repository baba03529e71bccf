"""Other inputs than those given, which show what convenient ones hide.

Other numbers of the same signs; rows that differ by orders of magnitude; zeros and equal numbers among the others,
where a gradient must be one of those between two slopes; images of other extents, where windows do not divide and
height is not width. What the function cannot be run on, or makes no finite numbers of, is passed over.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from manualbp.audit.subject import Subject

# By how much the last two axes grow.
GROWN = ((0, 1), (1, 0), (1, 2), (2, 2))


def values(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """(what was changed, the subject with it): the numbers."""
    numbers = torch.Generator().manual_seed(subject.seed)

    def uniform(x: Tensor) -> Tensor:
        return torch.rand(x.shape, generator=numbers, dtype=torch.float64).to(x)

    others = [x * (0.5 + uniform(x)) if i in subject.which else x for i, x in enumerate(subject.values)]
    yield from _kept("other numbers", subject.of(others))
    for i in subject.which:
        x, name = subject.values[i], subject.names[i]
        if x.ndim > 1 and x.shape[0] > 1:
            powers = torch.linspace(-2, 2, x.shape[0], dtype=torch.float64).to(x)
            rows = x * (10**powers).reshape(-1, *[1] * (x.ndim - 1))
            yield from _kept(f"rows of {name} from 0.01 to 100 times as large", subject.at(i, rows))
        if x.numel() > 1:
            with_zeros = torch.where(uniform(x) < 0.25, torch.zeros_like(x), x)
            with_zeros.view(-1)[0] = 0
            yield from _kept(f"zeros in {name}", subject.at(i, with_zeros))
            nothing = x.clone()
            nothing[: 1 if x.ndim > 1 else None] = 0
            yield from _kept(f"a row of zeros in {name}", subject.at(i, nothing))
            step = float(x.double().square().mean().sqrt()) or 1.0
            yield from _kept(f"equal numbers in {name}", subject.at(i, (x / step).round() * step))

        for k in subject.which:
            if k < i and subject.values[k].shape == x.shape:
                same = torch.where(uniform(x) < 0.5, subject.values[k], x)
                yield from _kept(f"numbers of {name} equal to {subject.names[k]}'s", subject.at(i, same))


def extents(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """The same of the extents: of an image, then of all inputs of its shape."""
    for i in subject.which:
        x = subject.values[i]
        if not x.numel():
            continue
        for more in GROWN[: 4 if x.ndim > 2 else 2] if x.ndim > 1 else ((1,),) * x.ndim:
            grown = _grown(x, more)
            alike = [
                _grown(v, more) if isinstance(v, Tensor) and v.is_floating_point() and v.shape == x.shape else v
                for v in subject.values
            ]
            name = f"{subject.names[i]} of {'x'.join(map(str, grown.shape))}"
            alone = [*_kept(name, subject.at(i, grown))]
            yield from alone or _kept(name, subject.of(alike))


def _grown(x: Tensor, more: tuple[int, ...]) -> Tensor:
    """Its last axes longer, by its own numbers in another order."""
    for axis, extra in enumerate(more, start=-len(more)):
        behind = torch.arange(extra, device=x.device) * 3 % x.shape[axis]
        places = torch.cat([torch.arange(x.shape[axis], device=x.device), behind])
        # The numbers behind are the mean of two: not equal to any, and where the function is defined for those.
        longer = x.index_select(axis, places)
        if extra:
            tail = longer.narrow(axis, x.shape[axis], extra)
            tail.add_(x.narrow(axis, x.shape[axis] - 1, 1)).div_(2)
        x = longer
    return x


def _kept(name: str, other: Subject) -> Iterator[tuple[str, Subject]]:
    try:
        outputs = other.outputs()
    except Exception:
        return
    if outputs and all(bool(y.isfinite().all()) for y in outputs) and other.differentiable():
        yield name, other
