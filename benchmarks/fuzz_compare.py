"""Whether a rule's outcome is PyTorch's.

Where PyTorch computes, the rule must compute the same: values, gradients, shapes, dtypes, channels_last. Where PyTorch
refuses, the rule may compute, or refuse by a ValueError or TypeError that names it. Where the rule refuses what PyTorch
computes, its reason must be one of DOCUMENTED; these are counted.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.fuzz_draw import weights
from benchmarks.fuzz_sides import Outcome, Trial, outcome

# What a rule refuses and PyTorch computes (docs/support.md): a pattern of the message, and the reason that is counted.
DOCUMENTED = {
    r"antialias = True": "antialias",
    r"derived for real numbers": "complex numbers",
    r"(\w+_norm|adaptive_avg_pool2d): input is torch.int64": "integers, of which PyTorch takes none but no numbers",
}
EXACT = 1e-9  # relative, in float64
INEXACT = {"celu": 1e-6, "hardsigmoid": 1e-6}  # PyTorch has 1 / alpha and 1 / 6 in float32
SHAKEN = 1e-13  # relative change of the input that shows whether PyTorch's own numbers hold


@dataclass(frozen=True)
class Verdict:
    """kind: "FAILED", or "same", "refused", "PyTorch refuses" and the like, which are counted; why: the reason."""

    kind: str
    why: str = ""


def size(t: Tensor) -> float:
    """The largest finite magnitude."""
    t = t.detach().abs().double()
    return t[t.isfinite()].max().item() if t.isfinite().any() else 0.0


def differs(ours: Tensor, torchs: Tensor, truth: Tensor | None, exact: float, least: float, strict: bool) -> str:
    """What differs, or "". truth: PyTorch's in float64, where the two are in a lower precision; least: its size.

    What is no number in PyTorch may be one here, but not the other way; strict: not either way.
    """
    if ours.shape != torchs.shape or ours.dtype != torchs.dtype:
        return f"{list(ours.shape)} {ours.dtype} for {list(torchs.shape)} {torchs.dtype}"
    if not torchs.dtype.is_floating_point and not torchs.dtype.is_complex:
        return "" if torch.equal(ours, torchs) else "other integers"
    wide = torch.complex128 if torchs.dtype.is_complex else torch.float64
    a, b = ours.to(wide), torchs.to(wide)
    finite = b.isfinite()
    if truth is None or truth.shape != torchs.shape:
        if strict and not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
            return "other values are not finite"
        if not a[finite].isfinite().all():
            return f"{int((~a[finite].isfinite()).sum())} numbers are not finite"
        far, limit = size(a[finite] - b[finite]), exact * size(b) + 1e-2 * exact
        limit = limit if torchs.dtype in (torch.float64, torch.complex128) else 1e-5 * size(b) + 1e-6
    else:
        if not a[finite].isfinite().all():
            return f"{int((~a[finite].isfinite()).sum())} numbers are not finite"
        finite &= truth.isfinite()
        error, theirs = size(a[finite] - truth[finite]), size(b[finite] - truth[finite])
        roundings = 32 if torchs.dtype == torch.float32 else 8  # halves are summed up in float32
        far, limit = error, 4 * theirs + roundings * torch.finfo(torchs.dtype).eps * (size(truth) + least)
    return f"{far:.1e} off of {size(b):.1e}, allowed {limit:.1e}" if far > limit else ""


def channels_last(t: Tensor) -> bool:
    """Whether it is channels_last, and not contiguous as well."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.ndim in last and t.is_contiguous(memory_format=last[t.ndim]) and not t.is_contiguous()


def ordered(t: Tensor) -> bool:
    return channels_last(t) or 0 in t.stride()


def unequal(trial: Trial, ours: Outcome, torchs: Outcome, truth: Outcome | None) -> str:
    """The first of the named numbers that differs, and how."""
    norm = "norm" in trial.name.lower()  # it divides by a deviation of down to sqrt(eps)
    least = 0.1 if not norm else 8 if trial.dtype == torch.float32 else 1
    exact = INEXACT.get(trial.name.lower(), EXACT)
    for name in torchs.numbers.keys() | ours.numbers.keys():
        if name.startswith("dd") and name not in torchs.numbers:
            continue  # of no numbers PyTorch has no second derivatives, and the rule has empty ones
        if name not in ours.numbers or name not in torchs.numbers:
            return f"{name}: {'PyTorch' if name in torchs.numbers else 'manualbp'} alone has it"
    for name, b in torchs.numbers.items():
        why = differs(ours.numbers[name], b, truth.numbers.get(name) if truth else None, exact, least, name == "y")
        if why:
            return f"{name}: {why}"
    return ""


def otherwise_laid_out(ours: Outcome, torchs: Outcome) -> str:
    """Where PyTorch's output or image gradient is channels_last and the rule's is not; expanded, it has no order."""
    for name in ("y", "dinput"):
        if name in torchs.numbers and channels_last(torchs.numbers[name]) and not ordered(ours.numbers[name]):
            return f"layout: {name} is channels_last in PyTorch, {ours.numbers[name].stride()} here"
    return ""


def shaky(trial: Trial, before: Outcome, ours: Outcome) -> bool:
    """Whether PyTorch's own numbers move as far if its input changes in the 13th digit: a norm of equal numbers."""
    for i, t in enumerate(trial.call.tensors.values()):
        if t is not None and t.values.is_floating_point():
            t.values = t.values * (1 + SHAKEN * weights(t.values.shape, torch.float64, i))
    after = outcome(trial, False, trial.dtype)
    if after.error:
        return False
    moved = [size(after.numbers[k].double() - b.double()) for k, b in before.numbers.items() if b.numel()]
    apart = [size(ours.numbers[k].double() - b.double()) for k, b in before.numbers.items() if b.numel()]
    return all(apart_ <= 100 * moved_ + 1e-8 for apart_, moved_ in zip(apart, moved, strict=True))


def said(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def refusal(trial: Trial, ours: Outcome, torchs: Outcome) -> Verdict:
    """ours has an error."""
    error = ours.error
    if torchs.error is not None:
        if trial.way != "itself" or trial.mode != "backward" or "forward" not in (ours.passed, torchs.passed):
            return Verdict("PyTorch refuses")
        named = isinstance(error, ValueError | TypeError) and re.match(r"\w+: ", str(error))
        named = named or (str(error) == str(torchs.error) and type(error) is type(torchs.error) and trial.of_module)
        if ours.passed == "forward" and torchs.passed == "forward" and not trial.follower and not named:
            return Verdict("FAILED", f"refuses as PyTorch does, by {said(error)}")
        return Verdict("PyTorch refuses")
    reason = next((why for pattern, why in DOCUMENTED.items() if re.search(pattern, str(error))), None)
    if reason and trial.way != "by_hand":
        return Verdict("refused", f"{str(error).split(':')[0]}: {reason}")
    return Verdict("FAILED", f"{ours.passed}: {said(error)}")


def compared(case: str, tell: Callable[[str], None] = lambda side: None) -> tuple[Verdict, Trial]:
    """The verdict on the configuration of this name. tell: is called with the side that runs next."""
    trial = Trial(case)
    tell("PyTorch")
    torchs = outcome(trial, False, trial.dtype)
    lower = trial.dtype.is_floating_point and trial.dtype != torch.float64 and "ropout" not in trial.name
    truth = outcome(trial, False, torch.float64) if lower and torchs.error is None else None
    truth = truth if truth and not truth.error else None
    tell("manualbp")
    ours = outcome(trial, True, trial.dtype)
    if ours.error is not None:
        return refusal(trial, ours, torchs), trial
    if torchs.error is not None:
        return Verdict("PyTorch refuses"), trial
    why = unequal(trial, ours, torchs, truth)
    if not why:
        # With a second derivative ahead PyTorch takes other formulas, of whose layout nothing is promised.
        why = otherwise_laid_out(ours, torchs) if trial.mode == "backward" else ""
        return Verdict("FAILED" if why else "same", why), trial
    tell("PyTorch")
    if "norm" in trial.name.lower() and shaky(Trial(case), torchs, ours):
        return Verdict("same"), trial
    plain = Trial(case)
    plain.plain()
    if not unequal(trial, ours, outcome(plain, False, trial.dtype), truth and outcome(plain, False, torch.float64)):
        return Verdict("PyTorch differs by layout", trial.name), trial
    return Verdict("FAILED", why), trial
