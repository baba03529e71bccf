"""What a layer keeps for the backward pass, and why, in words."""

from dataclasses import dataclass

from torch import nn

from manualbp import nn as by_hand_layers
from manualbp.convert import NO_ARITHMETIC

MODEL, X = "the model", "x"  # where storages are counted that are there anyway

PRODUCT = {"input": "input, for the weight's gradient", "other": "a padded or cast copy of input or weight"}
OUTPUT = {"output": "output: it tells the slope"}
INPUT = {"input": "input: the output does not tell the slope", "other": "a copy of the input: works in place"}
NORM = {"input": "input, for its distance from the mean", "other": "mean and deviation"}
PLACES = dict.fromkeys(("input", "output", "other"), "place of each maximum ({dtype})")
EXPONENTIAL = {**INPUT, "output": "output: works in place"}
BITS = {**OUTPUT, "other": "a bit a number: what the slope is"}
POOLED = {**PLACES, "output": "pooled output: it tells the slope"}
FOLDED = {**PRODUCT, "other": "the kernel of the two layers in one"}
LINEAR = {"nothing": "linear, its factors are constants"}
PAIR = {"input": "input and target", "other": "made of the target and the weights"}
WHY = {  # by the class's name: what is kept, by its role in the layer's forward pass
    **dict.fromkeys(["Conv1d", "Conv2d", "Conv3d", "Linear"], PRODUCT),
    **dict.fromkeys(["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"], PRODUCT),
    "TrueConv2d": {**PRODUCT, "other": "the rotated kernel, for the input's gradient"},
    "ConnectedConv2d": {**PRODUCT, "other": "the dense kernel, for the input's gradient"},
    **dict.fromkeys(["Sigmoid", "Tanh", "Softmax", "LogSoftmax"], OUTPUT),
    **dict.fromkeys(["ReLU", "ReLU6", "LeakyReLU", "Hardtanh", "Hardsigmoid"], BITS),
    **dict.fromkeys(["Hardshrink", "Softshrink", "Threshold"], BITS),
    **dict.fromkeys(["GELU", "SiLU", "Mish", "Softplus", "LogSigmoid", "Softsign", "Hardswish", "PReLU"], INPUT),
    **dict.fromkeys(["ELU", "SELU", "CELU"], EXPONENTIAL),
    **dict.fromkeys(["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm"], NORM),
    **dict.fromkeys(["MaxPool2d", "AdaptiveMaxPool2d", "MaxUnpool2d"], PLACES),
    **dict.fromkeys(["AvgPool2d", "AdaptiveAvgPool2d"], LINEAR),
    **dict.fromkeys(["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"], LINEAR),
    **dict.fromkeys(["CircularPad2d", "ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"], LINEAR),
    "Dropout": {"other": "the noise", "nothing": "it hands its input on"},
    **dict.fromkeys(["CrossEntropyLoss", "MSELoss", "L1Loss", "SmoothL1Loss", "BCEWithLogitsLoss"], PAIR),
    "NLLLoss": {**PAIR, "input": "target"},
}
AGAIN = dict.fromkeys(("input", "output", "other"), "what its input is computed from again")
STEPS = {  # by the function's name that a fused model calls in place of its layers, as WHY
    "normalised": {**NORM, "output": "what it comes to, map by map"},
    "reactivated": AGAIN,
    **dict.fromkeys(["recorrelated", "retransposed", "relinear"], AGAIN),
    "gated": {**AGAIN, "input": "the gate, and what the factor is computed from again"},
    "activated": OUTPUT,
    "rectified": BITS,
    "activated_pool": POOLED,
    "folded": FOLDED,
}


@dataclass(frozen=True)
class Kept:
    """A storage that a layer keeps: "input", "output" or "other" in its forward pass, or the name of a parameter.

    role "a constant": a tensor that was there before the forward pass and is no parameter or buffer.
    counted_at: the layer that kept it first, "x" (whatever the model is called with) or "the model" (parameters,
    buffers and constants); None where it counts here.
    step: where the layer was run together with others, the function of manualbp.fuse.steps that did it.
    holder: where neither a rule nor a node of PyTorch's saves it: the Function that does, its attribute ("ctx.mask of
    Swish"), or the hooks that packed it.
    """

    role: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    counted_at: str | None
    step: str | None
    holder: str | None = None


def by_hand(made: type) -> bool:
    """Whether the class is one of manualbp.nn."""
    return str(made.__module__).startswith(f"{by_hand_layers.__name__}.")


def in_words(module: nn.Module, found: tuple[Kept, ...]) -> str:
    """What the layer keeps, in words."""
    kind = type(module).__name__
    if isinstance(module, NO_ARITHMETIC) and not found:
        return "nothing: it computes nothing"
    reasons = WHY.get(kind, {}) if by_hand(type(module)) else {}
    phrases: dict[str, list[str | None]] = {}  # and where they are counted
    for kept in found:
        if kept.counted_at != MODEL:
            size = "x".join(map(str, kept.shape)) or "a number of"
            unknown = kept.role if kept.role != "other" else f"{size} {kept.dtype}, neither input nor output"
            of_step = reasons if kept.step is None else STEPS.get(kept.step, {})
            phrase = f"{kept.holder}: {unknown}" if kept.holder else of_step.get(kept.role, unknown)
            phrases.setdefault(phrase.format(dtype=kept.dtype), []).append(kept.counted_at)
    if not phrases:
        there = ", ".join(dict.fromkeys(kept.role for kept in found))
        nothing = f"nothing: {reasons.get('nothing', 'no gradient asked for needs it')}"
        phrases = {f"only {there}, there anyway" if found else nothing: []}
    foreign = type(module).__module__.startswith("torch.nn.") and not isinstance(module, NO_ARITHMETIC)
    whose = f"PyTorch's own, manualbp has no {kind}: " if foreign else ""
    return whose + "; ".join(phrase + _where(places) for phrase, places in phrases.items())


def _where(places: list[str | None]) -> str:
    """At which layers else it is counted."""
    at = [place for place in dict.fromkeys(places) if place not in (None, X)]
    more = f" and {len(at) - 2} more" if len(at) > 2 else ""
    parts = ["x itself"] * (X in places) + [f"counted at {', '.join(map(str, at[:2]))}{more}"] * bool(at)
    some = "in part " if None in places else ""
    return f" ({some}{', '.join(parts)})" if parts else ""
