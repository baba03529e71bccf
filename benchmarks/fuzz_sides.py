"""One configuration of a rule or a module, drawn from its case's name, and run by PyTorch and by hand."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from benchmarks.fuzz_draw import Draw, Held, laid_out, weights
from benchmarks.fuzz_modules import MODULES
from benchmarks.fuzz_rules import FUNCTIONS
from manualbp import functional as F
from manualbp import nn as by_hand_layers

FORWARD = ("input", "target", "indices")


def row_zero(y: Tensor) -> None:
    y[0] = 0


# What comes in place behind the output: both sides do it with their own functions.
FOLLOWERS: dict[str, Callable[[Any, Tensor], Any]] = {
    "add_": lambda M, y: y.add_(1.25),
    "mul_": lambda M, y: y.mul_(-0.75),
    "y[0] = 0": lambda M, y: row_zero(y),
    "relu": lambda M, y: M.relu(y, inplace=True),
    "leaky_relu": lambda M, y: M.leaky_relu(y, 0.1, inplace=True),
    "hardtanh": lambda M, y: M.hardtanh(y, inplace=True),
    "silu": lambda M, y: M.silu(y, inplace=True),
    "dropout": lambda M, y: M.dropout(y, 0.0, inplace=True),
    "view, add_": lambda M, y: y.view(-1).add_(1.25),
    "first, add_": lambda M, y: y.select(-1, 0).add_(1.25),
}
# At a NaN PyTorch's own gradient of these is one number or another, by the place in memory (a vector, or what is left).
NAN_BY_PLACE = ("relu6", "hardtanh", "hardswish", "hardshrink", "softshrink", "elu", "selu", "celu")
DELTAS = ("contiguous", "contiguous", "channels_last", "transposed", "sliced", "expanded", "number")


@dataclass
class Outcome:
    """Named numbers, or the error and the pass in which it came."""

    numbers: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    passed: str = "forward"


class Trial:
    """What a case is: the call, the way of calling, dtype, delta, follower, derivatives."""

    def __init__(self, case: str) -> None:
        self.name = case.split(":")[0]
        d = Draw(case)
        self.of_module = self.name in MODULES
        self.seed = d.randint(0, 10**6)
        self.ctor, self.forward_settings = {}, {}
        if self.of_module:
            draw, made = MODULES[self.name]
            self.call = draw(d)
            self.ctor, self.forward_settings = made(d, self.call)
            self.training = d.chance(0.7)
        else:
            self.call = FUNCTIONS[self.name](d)
        self.way = d.choice(("itself", "itself", "by_hand", "convert") if self.of_module else ("itself", "by_hand"))
        if self.call.tensors.get("weight") is not None and self.name == "l1_loss":
            self.way = "itself"  # PyTorch loses this weight on its way to by_hand()
        dtypes = [torch.float64] * 6 + [torch.float32] * 2 + [torch.bfloat16, torch.float16]
        self.dtype = d.choice(dtypes) if d.chance(0.97) else d.choice([torch.int64, torch.complex64])
        inexact = self.dtype.is_floating_point and self.dtype != torch.float64
        self.mode = "backward" if inexact else d.choice(["backward"] * 6 + ["double", "jvp", "vmap"])
        self.follower = d.choice(list(FOLLOWERS)) if self.mode == "backward" and d.chance(0.3) else ""
        if inexact and self.follower not in ("", "add_", "mul_", "y[0] = 0"):
            self.follower = ""  # a kink at a rounded number: the sign may differ, rightly
        self.delta = d.choice(DELTAS)
        self.positional = d.chance(0.8)
        x = self.call.tensors["input"]
        assert x is not None
        if self.mode != "backward":
            # PyTorch's second derivatives of norms are wrong where only the bias asks for one.
            x.asked = (
                x.asked or "norm" in self.name.lower() or not any(t.asked for t in self.call.tensors.values() if t)
            )
            x.values = x.values + 0.0137  # at a kink PyTorch's own second and forward derivatives do not fit together
        elif d.chance(0.02) and x.values.numel() and self.name.lower() not in NAN_BY_PLACE:
            x.values.view(-1)[d.randrange(x.values.numel())] = d.choice([torch.nan, torch.nan, torch.inf])
            self.follower = ""

    def leaves(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        return {k: t and t.laid_out(self.dtype, dtype) for k, t in self.call.tensors.items()}

    def plain(self) -> None:
        """The same numbers, everything contiguous."""
        for t in self.call.tensors.values():
            if t is not None:
                t.layout = "contiguous"
        self.delta = "filled" if self.delta in ("number", "expanded") else "contiguous"

    def described(self) -> str:
        tensors = ", ".join(f"{k} {told(t)}" for k, t in self.call.tensors.items() if t is not None)
        settings = {**self.ctor, **self.forward_settings} if self.of_module else self.call.settings
        settings = {k: f"tensor {list(v.shape)}" if isinstance(v, Tensor) else v for k, v in settings.items()}
        flags = f"{self.way}, {self.mode}, {str(self.dtype).removeprefix('torch.')}, delta {self.delta}"
        more = f", then {self.follower}" if self.follower else ""
        mode = f", training={self.training}" if self.of_module else ""
        return f"{self.name}({tensors}; {settings}{mode}; {flags}{more})"


def told(t: Held) -> str:
    return f"{list(t.values.shape)} {t.layout}{' asked' if t.asked else ''}{' wide' if t.wide else ''}"


class Side:
    """PyTorch, or by hand: from leaves to the output, and what is read after it."""

    def __init__(self, trial: Trial, ours: bool, dtype: torch.dtype) -> None:
        self.trial, self.ours, self.dtype = trial, ours, dtype
        self.M: Any = F if ours and trial.way == "itself" else T
        self.leaves = trial.leaves(dtype)
        self.module = self.made() if trial.of_module else None

    def made(self) -> nn.Module:
        """The layer, with the drawn numbers as its parameters and buffers."""
        trial = self.trial
        layers = by_hand_layers if self.ours and trial.way == "itself" else nn
        kind = getattr(layers, trial.name)
        module = kind(**copy.deepcopy(trial.ctor)).train(trial.training)
        module = module.to(self.dtype) if self.dtype.is_floating_point else module
        for name, t in self.leaves.items():
            if name in FORWARD or t is None:
                continue
            if name in module._parameters:
                parameter = nn.Parameter(t.detach(), t.requires_grad)
                setattr(module, name, parameter)
                self.leaves[name] = parameter
            else:
                setattr(module, name, t.detach())
                self.leaves[name] = None
        if self.ours and trial.way == "convert":
            manualbp.convert(module)
        return module

    @cached_property
    def asked(self) -> list[str]:
        return [name for name, t in self.leaves.items() if t is not None and t.requires_grad]

    def output(self, leaves: dict[str, Tensor | None]) -> Any:
        if self.ours and self.trial.way == "by_hand":
            with manualbp.by_hand():
                return self.first(leaves)
        return self.first(leaves)

    def first(self, leaves: dict[str, Tensor | None]) -> Any:
        """The output after its follower, and the positions behind it if there are any."""
        trial = self.trial
        torch.manual_seed(trial.seed)
        x = leaves["input"]
        settings = dict(trial.call.settings)
        if (trial.ctor if trial.of_module else settings).get("inplace"):
            assert x is not None
            leaves = {**leaves, "input": x.clone()}
        if self.module is not None:
            forward = [t for name, t in leaves.items() if name in FORWARD]
            own = {name: t for name, t in leaves.items() if name in self.module._parameters and t is not None}
            if trial.mode in ("vmap", "jvp"):
                y = torch.func.functional_call(self.module, own, tuple(forward), trial.forward_settings)
            else:
                y = self.module(*forward, **trial.forward_settings)
        else:
            f = getattr(self.M, trial.name)
            positional = [leaves["input"]] if trial.positional else []
            named = {k: t for k, t in leaves.items() if k != "input" or not trial.positional}
            y = f(*positional, **named, **settings)
        if trial.follower:
            FOLLOWERS[trial.follower](self.M, y[0] if isinstance(y, tuple) else y)
        return y

    def delta(self, y: Tensor) -> Tensor:
        if self.trial.delta in ("number", "expanded", "filled"):
            delta = torch.full((), 0.5, dtype=y.dtype).expand(y.shape)
            return delta.contiguous() if self.trial.delta == "filled" else delta
        return laid_out(weights(y.shape, torch.float64).to(self.trial.dtype).to(y.dtype), self.trial.delta)

    def backward(self, found: Outcome) -> None:
        y = self.output(self.leaves)
        y, places = y if isinstance(y, tuple) else (y, None)
        found.numbers["y"] = y.detach()
        if places is not None:
            found.numbers["places"] = places
        found.passed = "backward"
        inputs = [t for t in self.leaves.values() if t is not None and t.requires_grad]
        if inputs and not y.requires_grad:
            found.numbers["no graph"] = torch.zeros(())
        if inputs and y.requires_grad:
            twice = self.trial.mode == "double"
            delta = self.delta(y)
            delta = delta.detach().clone().requires_grad_() if twice else delta
            firsts = torch.autograd.grad(
                y, inputs, delta, create_graph=twice, allow_unused=True, materialize_grads=True
            )
            found.numbers |= {f"d{name}": g.detach() for name, g in zip(self.asked, firsts, strict=True)}
            combination: Any = sum((g * weights(g.shape, g.dtype, 2 + i)).sum() for i, g in enumerate(firsts))
            if twice and combination.requires_grad:
                found.passed = "double backward"
                seconds = torch.autograd.grad(combination, [delta, *inputs], allow_unused=True, materialize_grads=True)
                found.numbers |= {f"dd{name}": g for name, g in zip(["delta", *self.asked], seconds, strict=True)}
        for name in ("running_mean", "running_var"):
            if self.leaves.get(name) is not None:
                found.numbers[name] = self.leaves[name].detach()  # pyright: ignore[reportOptionalMemberAccess]
        found.numbers |= dict(self.module.named_buffers()) if self.module is not None else {}

    def pure(self) -> tuple[Callable[..., Tensor], list[Tensor]]:
        """The first output as a function of the leaves that are asked for."""
        asked = [t.detach() for t in self.leaves.values() if t is not None and t.requires_grad]
        rest = {name: t for name, t in self.leaves.items() if name not in self.asked}
        order = list(self.leaves)

        def f(*given: Tensor) -> Tensor:
            leaves = {**rest, **dict(zip(self.asked, given, strict=True))}
            y = self.output({name: leaves[name] for name in order})
            return y[0] if isinstance(y, tuple) else y

        return f, asked

    def jvp(self, found: Outcome) -> None:
        f, given = self.pure()
        tangents = tuple(weights(t.shape, t.dtype, 3 + i) for i, t in enumerate(given))
        found.numbers = dict(zip(("y", "tangent"), torch.func.jvp(f, tuple(given), tangents), strict=True))

    def vmap(self, found: Outcome) -> None:
        f, given = self.pure()

        def total(*given: Tensor) -> Tensor:
            y = f(*given)
            return (y * weights(y.shape, y.dtype)).sum()

        batches = [torch.stack([t, 0.75 * t + 0.1]) for t in given]
        grads = torch.func.vmap(torch.func.grad(total, tuple(range(len(given)))), randomness="same")(*batches)
        found.numbers = {f"d{name}": g for name, g in zip(self.asked, grads, strict=True)}


def outcome(trial: Trial, ours: bool, dtype: torch.dtype) -> Outcome:
    """What PyTorch, or the rule, makes of the trial in this dtype."""
    found = Outcome()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            side = Side(trial, ours, dtype)
            how = {"backward": side.backward, "double": side.backward, "jvp": side.jvp, "vmap": side.vmap}
            how[trial.mode](found)
    except Exception as error:
        found.error = error
    return found
