"""How each module is drawn: its function's arguments, and what the constructor and the forward pass take of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import fuzz_rules as rules
from benchmarks.fuzz_draw import Draw
from benchmarks.fuzz_rules import FUNCTIONS, Call

# (the constructor's arguments, the forward pass's beside its tensors)
Made = tuple[dict[str, Any], dict[str, Any]]
Row = tuple[Callable[[Draw], Call], Callable[[Draw, Call], Made]]


def values(call: Call, name: str) -> torch.Tensor:
    held = call.tensors[name]
    assert held is not None
    return held.values


def settings_alone(d: Draw, call: Call) -> Made:
    return dict(call.settings), {}


def without(*names: str) -> Callable[[Draw, Call], Made]:
    return lambda d, call: ({k: v for k, v in call.settings.items() if k not in names}, {})


def of_convolution(d: Draw, call: Call) -> Made:
    w, groups = values(call, "weight"), call.settings.get("groups", 1)
    mode = d.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
    maps = {"in_channels": w.shape[1] * groups, "out_channels": w.shape[0], "kernel_size": tuple(w.shape[2:])}
    return {**maps, **call.settings, "bias": call.tensors["bias"] is not None, "padding_mode": mode}, {}


def of_transposed(d: Draw, call: Call) -> Made:
    w, groups = values(call, "weight"), call.settings.get("groups", 1)
    maps = {"in_channels": w.shape[0], "out_channels": w.shape[1] * groups, "kernel_size": tuple(w.shape[2:])}
    more = {}
    if "output_padding" not in call.settings and d.chance(0.4):
        more["output_size"] = [d.randint(2, 9) for _ in w.shape[2:]]
    return {**maps, **call.settings, "bias": call.tensors["bias"] is not None}, more


def of_linear(d: Draw, call: Call) -> Made:
    w = values(call, "weight")
    if w.ndim == 1:  # the module has a matrix
        call.tensors["weight"], call.tensors["bias"] = d.tensor(2, len(w)), None
    w = values(call, "weight")
    return {"in_features": w.shape[1], "out_features": w.shape[0], "bias": call.tensors["bias"] is not None}, {}


def of_batch_norm(d: Draw, call: Call) -> Made:
    t, settings = call.tensors, dict(call.settings)
    if settings.get("momentum") == 0.5:
        settings["momentum"] = None  # the mean of all batches
    affine = t["weight"] is not None and t["bias"] is not None
    if not affine:
        t["weight"] = t["bias"] = None
    if t["running_mean"] is not None:
        t["running_mean"].asked = False
    settings.pop("training")
    C = values(call, "input").shape[1]
    return {"num_features": C, "affine": affine, "track_running_stats": t["running_mean"] is not None, **settings}, {}


def of_layer_norm(d: Draw, call: Call) -> Made:
    t = call.tensors
    affine, bias = t["weight"] is not None, t["weight"] is not None and t["bias"] is not None
    if not bias:
        t["bias"] = None
    return {**call.settings, "elementwise_affine": affine, "bias": bias}, {}


def of_group_norm(d: Draw, call: Call) -> Made:
    t = call.tensors
    if t["weight"] is None or t["bias"] is None:
        t["weight"] = t["bias"] = None
    return {**call.settings, "num_channels": values(call, "input").shape[1], "affine": t["weight"] is not None}, {}


def of_loss(d: Draw, call: Call) -> Made:
    weights = {name: t.values for name, t in call.tensors.items() if name in ("weight", "pos_weight") and t is not None}
    return {**call.settings, **weights}, {}


def pads(mode: str) -> Row:
    def draw(d: Draw) -> Call:
        margins = [rules.margin(d, mode) for _ in range(4)]
        shape = [*d.batch(), d.randint(1, 3), d.extent(2, 5), d.extent(2, 5)]
        return Call({"input": d.tensor(*shape)}, {"padding": margins[0] if d.chance(0.3) else tuple(margins)})

    def made(d: Draw, call: Call) -> Made:
        return {**call.settings, **({"value": d.choice([0.0, 1, -2.5])} if mode == "constant" else {})}, {}

    return draw, made


def of_unpooling(d: Draw, call: Call) -> Made:
    size = {"output_size": call.settings["output_size"]} if "output_size" in call.settings else {}
    return {"kernel_size": call.settings["kernel_size"]}, size


def of_upsampling(d: Draw, call: Call) -> Made:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in call.settings.items() if k != "antialias"}, {}


def of_one_mode(d: Draw, call: Call) -> Made:
    return {k: v for k, v in of_upsampling(d, call)[0].items() if k in ("size", "scale_factor")}, {}


def of_prelu(d: Draw, call: Call) -> Made:
    return {"num_parameters": values(call, "weight").shape[0]}, {}


MODULES: dict[str, Row] = {
    **{f"Conv{n}d": (FUNCTIONS[f"conv{n}d"], of_convolution) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": (FUNCTIONS[f"conv_transpose{n}d"], of_transposed) for n in (1, 2, 3)},
    "Linear": (rules.linear, of_linear),
    **{
        f"BatchNorm{n}d": (partial(rules.batch_norm, dims=dims), of_batch_norm)
        for n, dims in ((1, (2, 3)), (2, (4,)), (3, (5,)))
    },
    "LayerNorm": (rules.layer_norm, of_layer_norm),
    "GroupNorm": (rules.group_norm, of_group_norm),
    "MaxPool2d": (rules.max_pool2d, settings_alone),
    "AvgPool2d": (rules.avg_pool2d, settings_alone),
    "AdaptiveAvgPool2d": (FUNCTIONS["adaptive_avg_pool2d"], settings_alone),
    "AdaptiveMaxPool2d": (FUNCTIONS["adaptive_max_pool2d"], settings_alone),
    "MaxUnpool2d": (rules.max_unpool2d, of_unpooling),
    "Upsample": (rules.interpolate, of_upsampling),
    "UpsamplingNearest2d": (rules.interpolate, of_one_mode),
    "UpsamplingBilinear2d": (rules.interpolate, of_one_mode),
    "ZeroPad2d": pads("zeros"),
    "ConstantPad2d": pads("constant"),
    "ReflectionPad2d": pads("reflect"),
    "ReplicationPad2d": pads("replicate"),
    "CircularPad2d": pads("circular"),
    "Dropout": (FUNCTIONS["dropout"], without("training")),
    "Softmax": (rules.softmax, without("dtype")),
    "LogSoftmax": (rules.softmax, without("dtype")),
    "PReLU": (rules.prelu, of_prelu),
    "Threshold": (rules.threshold, settings_alone),
    "Hardtanh": (rules.hardtanh, settings_alone),
    **{
        name: (FUNCTIONS[function], settings_alone)
        for name, function in {
            **{"CELU": "celu", "ELU": "elu", "GELU": "gelu", "SELU": "selu", "Hardshrink": "hardshrink"},
            **{"Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish", "LeakyReLU": "leaky_relu", "Mish": "mish"},
            **{"LogSigmoid": "logsigmoid", "ReLU": "relu", "ReLU6": "relu6", "SiLU": "silu", "Sigmoid": "sigmoid"},
            **{"Softplus": "softplus", "Softshrink": "softshrink", "Softsign": "softsign", "Tanh": "tanh"},
        }.items()
    },
    "CrossEntropyLoss": (rules.of_classes, of_loss),
    "NLLLoss": (FUNCTIONS["nll_loss"], of_loss),
    "MSELoss": (partial(rules.of_numbers, weighted=False), of_loss),
    "L1Loss": (partial(rules.of_numbers, weighted=False), of_loss),
    "SmoothL1Loss": (FUNCTIONS["smooth_l1_loss"], of_loss),
    "BCEWithLogitsLoss": (rules.of_logits, of_loss),
}
