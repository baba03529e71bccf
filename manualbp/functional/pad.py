"""Padding: linear, so its backward is its adjoint.

constant                     y = x within margins of zeros (or a value); the adjoint crops the margins off again, which
                             is padding by the negative margins: the pair is one rule. <delta, pad x> = <crop delta, x>
reflect, replicate, circular y[i] = x[source(i)] on each padded axis; the adjoint adds delta[i] at source(i):
                             <delta, y> = sum_i delta[i] x[source(i)] = sum_h x[h] sum_{i: source(i) = h} delta[i]

Nothing is kept but the margins. Letters: x input, y output, delta = dL/dy.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from manualbp.functional.checks import INTEGERS, require_floating, require_real
from manualbp.functional.rule import LinearRule, run
from manualbp.kernels import pad as kernels
from manualbp.kernels.layout import maps_last
from manualbp.kernels.pad import Margins


class Pad(LinearRule):
    """y[i] = x[source(i)], or the value where there is no source. dL/dx = the adjoint; kept: nothing."""

    @staticmethod
    def forward(x: Tensor, margins: Margins, value: float) -> Tensor:
        return kernels.pad(x, margins, value)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        margins, _ = ctx.settings
        if margins.mode == "constant":
            return run(Pad, delta, margins.inward(), 0.0), None, None
        return run(Fold, delta, margins), None, None

    @staticmethod
    def tangent(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        """The tangent is padded alike, a constant by zeros."""
        return run(Pad, dx, ctx.settings[0], 0.0)


class Fold(LinearRule):
    """dx[h] = sum of delta[i] over source(i) = h: the adjoint of reflect, replicate, circular. Kept: nothing."""

    @staticmethod
    def forward(delta: Tensor, margins: Margins) -> Tensor:
        return kernels.fold(delta, margins)

    @staticmethod
    def backward(ctx: Any, eps: Tensor) -> tuple[Tensor, None]:
        return run(Pad, eps, *ctx.settings, 0.0), None


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """torch.nn.functional.pad with a backward pass by hand.

    input [..., H, W] of any real dtype; pad: (left, right, top, bottom ...), pixels, last axis first -> the axes grown
    by them. mode "constant" takes any number of axes, negative margins (they crop) and a value (default 0);
    "reflect", "replicate" and "circular" pad the last 1, 2 or 3 axes of an input with one or two axes more; there, too,
    negative margins crop. Nothing is kept for backward. Raises ValueError for what does not fit, TypeError for complex
    numbers. Source: adjoint pair, derivation at the head of this file.
    """
    require_real("pad", input=input)
    sides = tuple(pad)
    axes = len(sides) // 2
    if len(sides) % 2 or axes > input.ndim:
        raise ValueError(
            f"pad: pad = {list(sides)} for an input of shape {list(input.shape)}; it must hold two numbers for each "
            "padded axis, last axis first"
        )
    x_size = tuple(input.shape[input.ndim - axes :][::-1])
    grown = [W + before + after for W, before, after in zip(x_size, sides[::2], sides[1::2], strict=True)]
    left = [
        W + min(before, 0) + min(after, 0) for W, before, after in zip(x_size, sides[::2], sides[1::2], strict=True)
    ]
    if min((*grown, *(left if mode in ("constant", "circular") else ())), default=0) < 0:
        raise ValueError(f"pad: pad = {list(sides)} crops more than an input of shape {list(input.shape)} has")
    if mode == "constant":
        return run(Pad, input, Margins(sides, x_size, mode), 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"pad: mode = {mode!r}; it must be 'constant', 'reflect', 'replicate' or 'circular'")
    if value is not None and value != 0:
        raise ValueError(f"pad: value = {value} with mode = {mode!r}; only mode 'constant' has a value")
    if axes not in (1, 2, 3) or input.ndim - axes not in (1, 2):
        raise ValueError(
            f"pad: mode = {mode!r}, pad = {list(sides)}, input of shape {list(input.shape)}; this mode pads the last "
            "1, 2 or 3 axes of an input with one or two axes more"
        )
    if mode != "circular":
        require_floating("pad", *INTEGERS, input=input)
        if 0 in input.shape[input.ndim - axes - 1 :]:
            raise ValueError(
                f"pad: mode = {mode!r} for an input of shape {list(input.shape)}; its axes must not be empty"
            )
    x, outward, inward = input, tuple(max(side, 0) for side in sides), tuple(min(side, 0) for side in sides)
    if mode == "circular":  # PyTorch repeats what is left after cropping here, and crops last in the other modes
        x, inward = _crop(x, inward, x_size), ()
        x_size = tuple(x.shape[x.ndim - axes :][::-1])
    for W, before, after in zip(x_size, outward[::2], outward[1::2], strict=True):
        most = {"reflect": W - 1, "circular": W, "replicate": max(before, after) if W else 0}[mode]
        if max(before, after) > most:
            raise ValueError(
                f"pad: margins {before} and {after} of an axis of {W} pixels with mode = {mode!r}; they must be {most} "
                "at most"
            )
    margins = Margins(outward, x_size, mode, maps_last(x))
    return _crop(run(Pad, x, margins, 0.0), inward, margins.inward().x_size)


def _crop(x: Tensor, sides: tuple[int, ...], x_size: tuple[int, ...]) -> Tensor:
    """x without its margins; `sides` are not positive."""
    return run(Pad, x, Margins(sides, x_size, "constant"), 0.0) if any(sides) else x
