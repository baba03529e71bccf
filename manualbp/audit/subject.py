"""What is audited: a function of tensors, which is run on copies of what it was given and never on that itself.

A function, an autograd.Function, a module or a method of one becomes `f(*values)`: the inputs and, of a module, its
parameters and buffers. Each run begins from the same random state, so a function that draws numbers draws the same.
"""

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

SIZE = re.compile(r"[0-9]+(x[0-9]+)*")
NARROW = (torch.float32, torch.float16, torch.bfloat16)


class CannotAuditError(ValueError):
    """What was given cannot be audited; the message names it."""


@dataclass(frozen=True)
class Pulled:
    """A run forwards and backwards: the leaves, the differentiable outputs, dL/d(leaf) of each that is audited."""

    values: tuple[Any, ...]
    outputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True)
class Subject:
    """f(*values), the places of the values whose gradients are audited, all their names, the seed of each run.

    eps: the rounding of the coarsest dtype that f takes, gives, or rounds its inputs to.
    """

    f: Callable[..., Any]
    values: tuple[Any, ...]
    which: tuple[int, ...]
    names: tuple[str, ...]
    seed: int
    eps: float = 0.0

    def of(self, values: Sequence[Any]) -> "Subject":
        return replace(self, values=tuple(values))

    def at(self, place: int, value: Any) -> "Subject":
        """With another value at a place."""
        return self.of([value if i == place else v for i, v in enumerate(self.values)])

    def cast(self, dtype: torch.dtype) -> "Subject":
        """With the floating values in another dtype."""
        return self.of([v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in self.values])

    def leaves(self, needed: Sequence[int] | None = None) -> tuple[Any, ...]:
        """Copies of the values; those asked for require a gradient."""
        wanted = self.which if needed is None else needed
        return tuple(
            v.detach().clone().requires_grad_(i in wanted) if isinstance(v, Tensor) else v
            for i, v in enumerate(self.values)
        )

    def run(self, values: Sequence[Any]) -> tuple[Tensor, ...]:
        """The floating outputs."""
        seeded(self.seed, values)
        made = self.f(*values)
        outputs = tuple(y for y in (made if isinstance(made, tuple | list) else (made,)) if isinstance(y, Tensor))
        return tuple(y for y in outputs if y.is_floating_point())

    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs, of inputs that require no gradient."""
        return tuple(y.detach() for y in self.run([v.clone() if isinstance(v, Tensor) else v for v in self.values]))

    def differentiable(self) -> list[int]:
        """Which of the outputs have a gradient."""
        return [k for k, y in enumerate(self.run(self.leaves())) if y.requires_grad]

    def along(self, place: int, v: Tensor, which: Sequence[int]) -> Callable[[float], Tensor]:
        """h -> these outputs as one vector of float64, where the value at a place has moved by h v."""

        still = self.outputs()

        def phi(h: float) -> Tensor:
            moved = self.at(place, self.values[place] + h * v)
            try:
                outputs = moved.outputs() if h else still
            except Exception:  # f refuses such numbers
                return torch.full_like(joined([still[k] for k in which]), torch.nan)
            return joined([outputs[k] for k in which])

        return phi

    def pull(
        self,
        deltas: Sequence[Tensor] | None = None,
        needed: Sequence[int] | None = None,
        create_graph: bool = False,
        seed: int = 1,
    ) -> Pulled:
        """The gradients of sum <delta, output>, zeros for None; without deltas they are drawn."""
        values = self.leaves(needed)
        outputs = tuple(y for y in self.run(values) if y.requires_grad)
        wanted = [values[i] for i in (self.which if needed is None else needed)]
        if not outputs:
            return Pulled(values, (), tuple(torch.zeros_like(v) for v in wanted))
        given = drawn(outputs, seed) if deltas is None else tuple(deltas)
        back = torch.autograd.grad(outputs, wanted, given, allow_unused=True, create_graph=create_graph)
        return Pulled(values, outputs, filled(back, wanted))


def seeded(seed: int, values: Sequence[Any]) -> None:
    """The random state of where the values are; torch.manual_seed, which asks all devices, takes longer than f."""
    torch.default_generator.manual_seed(seed)
    if any(isinstance(v, Tensor) and v.is_cuda for v in values):
        torch.cuda.manual_seed_all(seed)


def filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Zeros for those that are None."""
    return tuple(torch.zeros_like(v) if g is None else g for g, v in zip(gradients, like, strict=True))


def joined(ts: Sequence[Tensor]) -> Tensor:
    """Their numbers, one behind the other, in float64."""
    return torch.cat([t.detach().double().flatten() for t in ts])


def parted(vector: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The other way."""
    parts = vector.split([t.numel() for t in like])
    return tuple(part.reshape(t.shape).to(t) for part, t in zip(parts, like, strict=True))


def drawn(like: Sequence[Tensor], seed: int) -> tuple[Tensor, ...]:
    """Normal numbers of these shapes and dtypes, the same for the same seed."""
    numbers = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(t.shape, generator=numbers, dtype=torch.float64).to(t) for t in like)


def subject_of(f: Any, inputs: Sequence[Any], seed: int, dtype: torch.dtype | None = None) -> Subject:
    """The subject, in float64 if f can be run in it, or CannotAuditError."""
    values = [_input(i, a, seed) for i, a in enumerate(inputs)]
    f, names, more = _function(f, len(values))
    values += [t.detach() for t in more.values()]
    floating = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.is_floating_point()]
    asked = [i for i, a in enumerate([*inputs, *more.values()]) if isinstance(a, Tensor) and a.requires_grad]
    if all(i >= len(inputs) for i in asked):  # of the inputs none says that it wants a gradient: then all do
        asked += [i for i in floating if i < len(inputs)]
    which = tuple(sorted(asked))
    if not which:
        raise CannotAuditError("audit: no input is a floating tensor; one must be, to have a gradient")
    given = Subject(f, tuple(values), which, (*names, *more), seed)
    if dtype is not None:
        given = given.cast(dtype)
    first = _tried(given, len(inputs))
    given = replace(given, eps=max(torch.finfo(t.dtype).eps for t in (*first, *(values[i] for i in which))))
    if dtype is not None:
        return given
    wide = given.cast(torch.float64)
    try:
        outputs = wide.pull().outputs
    except Exception:
        return given
    finite = [y.isfinite().all() for y in outputs] == [y.isfinite().all() for y in first]
    if len(outputs) != len(first) or not finite:
        return given
    own = max(torch.finfo(y.dtype).eps for y in outputs)
    return replace(wide, eps=max([own, *(torch.finfo(d).eps for d in NARROW if _rounds(wide, d))]))


def _rounds(subject: Subject, dtype: torch.dtype) -> bool:
    """Whether f makes the same of inputs that were rounded to a coarser dtype, as if it rounded them itself."""

    def outputs(change: Callable[[Tensor], Tensor]) -> Tensor:
        values = [change(v) if isinstance(v, Tensor) and v.is_floating_point() else v for v in subject.values]
        return joined(subject.of(values).outputs())

    own = outputs(lambda v: v * 1.000000123)
    if not torch.equal(own, outputs(lambda v: (v * 1.000000123).to(dtype).double())):
        return False
    step = 8 * torch.finfo(dtype).eps  # that it sees, unless it is constant from jump to jump
    seen, much = (own != outputs(lambda v, by=by: v * (1.000000123 + by)) for by in (step, 0.5))
    return bool(2 * seen.sum() >= much.sum() > 0)


def _input(i: int, a: Any, seed: int) -> Any:
    """A tensor as it is; of a shape, (2, 3, 8, 8) or "2x3x8x8", normal numbers; anything else is a setting."""
    if isinstance(a, str) and SIZE.fullmatch(a):
        a = tuple(map(int, a.split("x")))
    if isinstance(a, tuple | list) and a and all(type(n) is int and n >= 0 for n in a):
        return torch.randn(*a, generator=torch.Generator().manual_seed(seed + i))
    if not isinstance(a, Tensor):
        return a
    if a.is_complex():
        raise CannotAuditError(f"audit: input {i} is {a.dtype}; gradients of complex numbers are not audited")
    if a.layout is not torch.strided or a.is_nested or a.is_quantized:
        kind = "nested" if a.is_nested else "quantised" if a.is_quantized else str(a.layout)
        raise CannotAuditError(f"audit: input {i} is a {kind} tensor; it must be a dense one, of layout torch.strided")
    return a.detach()


def _function(f: Any, count: int) -> tuple[Callable[..., Any], list[str], dict[str, Tensor]]:
    """f as a function of inputs and, of a module, of its own tensors; the names of the inputs; these tensors."""
    if isinstance(f, type) and issubclass(f, torch.autograd.Function):
        takes = [*inspect.signature(f.forward).parameters]
        old = f.setup_context is torch.autograd.Function.setup_context  # forward has a ctx, too
        return f.apply, _named(takes[1:] if old else takes, count), {}
    if inspect.ismethod(f) and isinstance(f.__self__, nn.Module):
        takes, module = _parameters(f), copy.deepcopy(_Method(f.__self__, f.__name__))
    elif isinstance(f, nn.Module):
        takes, module = _parameters(f.forward), copy.deepcopy(f)
    elif callable(f):
        return f, _named(_parameters(f), count), {}
    else:
        raise CannotAuditError(f"audit: f is a {type(f).__name__}; it must be a function, a Function or a module")
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    more = {name: t.detach().requires_grad_(t.requires_grad) for name, t in tensors.items() if t.is_floating_point()}

    def run(*values: Any) -> Any:
        return functional_call(module, dict(zip(more, values[count:], strict=True)), values[:count])

    return run, _named(takes, count), more


class _Method(nn.Module):
    """A method of a module as a module."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.name)(*args)


def _parameters(f: Callable[..., Any]) -> list[str]:
    try:
        found = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _named(takes: Sequence[str], count: int) -> list[str]:
    return [takes[i] if i < len(takes) else f"input {i}" for i in range(count)]


def _tried(subject: Subject, inputs: int) -> tuple[Tensor, ...]:
    """The outputs, or a refusal that says in one line what does not run."""
    values = subject.leaves()
    before = [v.detach().clone() if isinstance(v, Tensor) else v for v in values]
    try:
        made = subject.f(*values)
    except Exception as error:
        raise CannotAuditError(f"audit: f fails on these inputs: {type(error).__name__}: {line_of(error)}") from error
    for name, v, was in zip(subject.names[:inputs], values, before, strict=False):
        if isinstance(v, Tensor) and not torch.equal(v.detach().nan_to_num(), was.nan_to_num()):
            raise CannotAuditError(f"audit: f changes its input {name} in place; audit f of a clone")
    outputs = made if isinstance(made, tuple | list) else (made,)
    if not any(isinstance(y, Tensor) for y in outputs):
        raise CannotAuditError(f"audit: f returns {_kinds(outputs)}; it must return a tensor, or a tuple with one")
    if any(isinstance(y, Tensor) and y.is_complex() for y in outputs):
        raise CannotAuditError("audit: f returns a complex tensor; gradients of complex numbers are not audited")
    if any(isinstance(y, Tensor) and y.layout is not torch.strided for y in outputs):
        raise CannotAuditError("audit: f returns a tensor that is not dense; it must be of layout torch.strided")
    differentiable = tuple(y for y in outputs if isinstance(y, Tensor) and y.requires_grad)
    if not differentiable:
        raise CannotAuditError("audit: no output of f requires a gradient; f may detach its input or return integers")
    return differentiable


def _kinds(outputs: Sequence[Any]) -> str:
    return " and ".join(sorted({"None" if y is None else f"a {type(y).__name__}" for y in outputs})) or "nothing"


def line_of(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
