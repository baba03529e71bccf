"""How the arguments of each rule are drawn: a row a name.

A row draws the tensors and the settings, both by PyTorch's names. Most arguments fit; some do not, and then both sides
must refuse. The rows of the modules are in fuzz_modules.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as T

from benchmarks.fuzz_draw import Draw, Held


@dataclass
class Call:
    """Tensors (None: not given) and settings of a function, by name."""

    tensors: dict[str, Held | None]
    settings: dict[str, Any] = field(default_factory=dict)


def image(d: Draw, axes: int = 2, least: int = 1, most: int = 7) -> list[int]:
    maps = d.choice([1, 2, 3, 4, 16, 17])
    return [*d.batch(), 0 if d.chance(0.01) else maps, *(d.extent(least, most) for _ in range(axes))]


def anything(d: Draw) -> list[int]:
    return [d.extent(1, 5) for _ in range(d.choice([0, 1, 2, 3, 4, 4, 4, 5]))]


def convolution(d: Draw, axes: int) -> Call:
    groups = d.choice([1, 1, 1, 2, 3])
    C, O = (groups * d.choice([1, 1, 2, 3, 16 if d.chance(0.2) else 1]) for _ in range(2))
    kernel = [d.randint(1, 3 if axes < 3 else 2) for _ in range(axes)]
    dilation = d.of_axes(axes, lambda: d.choice([1, 1, 1, 2, 3]))
    padding: Any = d.of_axes(axes, lambda: d.choice([0, 0, 1, 2, 4]))
    stride = d.of_axes(axes, lambda: d.choice([1, 1, 2, 3, 5]))
    if d.chance(0.15):
        padding, stride = d.choice(["same", "valid"]), stride if d.chance(0.1) else 1
    size = [d.extent(1, 4) + (d.choice([0, 2, 4]) if k > 1 else 0) for k in kernel]
    bias = d.maybe(0.7, lambda: d.tensor(O))
    x, w = d.tensor(*d.batch(), C, *size), d.tensor(O, C // groups, *kernel)
    return Call(
        {"input": x, "weight": w, "bias": bias},
        {**d.some(stride=stride, padding=padding, dilation=dilation), **({"groups": groups} if groups > 1 else {})},
    )


def transposed(d: Draw, axes: int) -> Call:
    groups = d.choice([1, 1, 1, 2, 3])
    C, O = (groups * d.choice([1, 1, 2, 3]) for _ in range(2))
    kernel = [d.randint(1, 3 if axes < 3 else 2) for _ in range(axes)]
    stride = [d.choice([1, 1, 2, 3, 4]) for _ in range(axes)]
    settings = d.some(
        stride=stride,
        padding=d.of_axes(axes, lambda: d.choice([0, 0, 1, 2])),
        dilation=d.of_axes(axes, lambda: d.choice([1, 1, 2, 3])),
        output_padding=d.of_axes(axes, lambda: d.choice([0, 0, 0, 1])),
    )
    x = d.tensor(*d.batch(), C, *(d.extent(1, 4) for _ in range(axes)))
    bias = d.maybe(0.7, lambda: d.tensor(O))
    weight = d.tensor(C, O // groups, *kernel)
    return Call(
        {"input": x, "weight": weight, "bias": bias}, {**settings, **({"groups": groups} if groups > 1 else {})}
    )


def linear(d: Draw) -> Call:
    I = d.extent(1, 5)
    O = [d.extent(1, 4)] if d.chance(0.85) else []
    leading = [d.extent(1, 3) for _ in range(d.choice([0, 1, 1, 2, 3]))]
    return Call({"input": d.tensor(*leading, I), "weight": d.tensor(*O, I), "bias": d.maybe(0.7, lambda: d.tensor(*O))})


def window(d: Draw) -> dict[str, Any]:
    kernel = [d.randint(1, 4) for _ in range(2)]
    padding = [d.randint(0, k // 2) for k in kernel]
    more = d.some(stride=d.of_axes(2, lambda: d.choice([1, 2, 3, 5])), padding=padding, ceil_mode=d.chance(0.5))
    return {"kernel_size": kernel[0] if kernel[0] == kernel[1] and d.chance(0.5) else tuple(kernel), **more}


def max_pool2d(d: Draw) -> Call:
    """A dilation beyond the image lets a window see padding alone, where PyTorch writes out of bounds: not drawn."""
    shape = image(d, most=9)
    settings = window(d)
    if d.chance(0.25):
        settings["dilation"] = d.randint(1, max(1, min(3, shape[-1], shape[-2])))
    if d.chance(0.3):
        settings["return_indices"] = True
    return Call({"input": d.tensor(*shape)}, settings)


def avg_pool2d(d: Draw) -> Call:
    settings = window(d) | d.some(count_include_pad=d.chance(0.5))
    if d.chance(0.25):
        settings["divisor_override"] = d.choice([1, 3, 7, -2])
    return Call({"input": d.tensor(*image(d, most=9))}, settings)


def adaptive(d: Draw, indices: bool) -> Call:
    size = d.of_axes(2, lambda: d.choice([None, 0, 1, 1, 2, 3, 5]))
    settings = {"return_indices": True} if indices and d.chance(0.4) else {}
    return Call({"input": d.tensor(*image(d))}, {"output_size": size, **settings})


def max_unpool2d(d: Draw) -> Call:
    shape = [*d.batch(), d.randint(1, 3), d.randint(3, 8), d.randint(3, 8)]
    k = d.randint(1, 3)
    of = torch.randn(shape, generator=d.numbers, dtype=torch.float64)
    y, places = T.max_pool2d(of, k, return_indices=True)
    size = {"output_size": tuple(shape[-2:])} if d.chance(0.6) else {}
    if not size:  # the positions of the whole image are too large then
        I, J = y.shape[-2:]
        places = torch.arange(I * J).reshape(I, J).expand(y.shape)
    indices = Held(places, d.choice(["contiguous", "sliced", "transposed"]), able=False)
    return Call({"input": d.tensor(*y.shape), "indices": indices}, {"kernel_size": k, **size})


def interpolate(d: Draw) -> Call:
    mode = d.choice(["nearest", "nearest", "nearest-exact", "bilinear", "bilinear", "bicubic", "area"])
    how: dict[str, Any] = {"size": d.of_axes(2, lambda: d.randint(1, 9))}
    if d.chance(0.5):
        how = {"scale_factor": d.of_axes(2, lambda: d.choice([0.5, 1.0, 2.0, 2, 3, 1.7, 0.3]))}
        how |= {"recompute_scale_factor": d.chance(0.5)} if d.chance(0.3) else {}
    if mode in ("bilinear", "bicubic"):
        how |= d.some(align_corners=d.choice([True, False, None]))
        how |= {"antialias": True} if d.chance(0.05) else {}
    shape = image(d) if d.chance(0.1) else [d.extent(1, 3), *image(d)[-3:]]
    return Call({"input": d.tensor(*shape)}, {**how, **({"mode": mode} if mode != "nearest" or d.chance(0.5) else {})})


def margin(d: Draw, mode: str) -> int:
    """PyTorch leaves numbers unwritten where circular padding has a margin below 0 beside one above: not drawn."""
    return d.choice([0, 1, 2, 3]) if mode == "circular" or d.chance(0.8) else d.choice([-2, -1])


def pad(d: Draw, modes: tuple[str, ...] = ("constant", "constant", "reflect", "replicate", "circular")) -> Call:
    mode = d.choice(modes)
    shape = image(d) if mode != "constant" or d.chance(0.5) else anything(d)
    pairs = d.randint(0, len(shape)) if mode == "constant" else 2
    margins = tuple(margin(d, mode) for _ in range(2 * pairs))
    settings: dict[str, Any] = {"pad": margins, **({"mode": mode} if mode != "constant" or d.chance(0.5) else {})}
    if mode == "constant":
        settings |= d.some(value=d.choice([0, 1, -2.5, None]))
    return Call({"input": d.tensor(*shape)}, settings)


def activation(d: Draw, inplace: bool = True, **settings: list[Any]) -> Call:
    drawn = d.some(**{name: d.choice(values) for name, values in settings.items()})
    return Call(
        {"input": d.tensor(*anything(d))}, {**drawn, **({"inplace": True} if inplace and d.chance(0.3) else {})}
    )


def threshold(d: Draw) -> Call:
    settings = {"threshold": d.choice([0, 0.5, -1, 2.0]), "value": d.choice([0.0, -3, 5, 0.5])}
    return Call(activation(d, inplace=False).tensors, {**settings, **({"inplace": True} if d.chance(0.3) else {})})


def hardtanh(d: Draw) -> Call:
    return activation(d, min_val=[-1.0, -2, 0, -0.5], max_val=[1.0, 2, 6, 0.5])


def prelu(d: Draw) -> Call:
    shape = anything(d)
    one = len(shape) < 2 or d.chance(0.4)
    return Call({"input": d.tensor(*shape), "weight": d.tensor(1 if one else shape[1])})


def batch_norm(d: Draw, dims: tuple[int, ...] = (2, 3, 4, 4, 4, 5)) -> Call:
    shape = [d.extent(1, 4), d.choice([1, 2, 3, 17]), *(d.extent(1, 4) for _ in range(d.choice(dims) - 2))]
    C = shape[1]
    training, wide = d.chance(0.65), d.chance(0.3)
    stats = d.chance(0.6) or not training
    mean = d.tensor(C, able=d.chance(0.05), wide=wide) if stats else None
    var = d.tensor(C, kind="positive", able=False, wide=wide) if stats else None
    for t in (mean, var):
        if t is not None and t.layout == "expanded":
            t.layout = "contiguous"  # it is written into
    weight, bias = (d.maybe(0.7, lambda: d.tensor(C, wide=wide)) for _ in range(2))
    settings = {
        **d.some(momentum=d.choice([0.1, 0.0, 1.0, 0.5]), eps=d.choice([1e-5, 1e-3, 0.1])),
        "training": training,
    }
    tensors = {"input": d.tensor(*shape), "running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
    return Call(tensors, settings)


def layer_norm(d: Draw) -> Call:
    shape = [d.extent(1, 4) for _ in range(d.randint(1, 4))]
    over, wide = shape[-d.randint(1, len(shape)) :], d.chance(0.3)
    weight, bias = (d.maybe(0.7, lambda: d.tensor(*over, wide=wide)) for _ in range(2))
    return Call(
        {"input": d.tensor(*shape), "weight": weight, "bias": bias},
        {"normalized_shape": d.choice([list, tuple])(over), **d.some(eps=d.choice([1e-5, 1e-3, 0.1]))},
    )


def group_norm(d: Draw) -> Call:
    groups, wide = d.choice([1, 2, 3]), d.chance(0.3)
    C = groups * d.randint(1, 3)
    shape = [d.extent(1, 3), C, *(d.extent(1, 4) for _ in range(d.choice([0, 1, 2, 2, 3])))]
    weight, bias = (d.maybe(0.7, lambda: d.tensor(C, wide=wide)) for _ in range(2))
    x = d.tensor(*shape)
    return Call(
        {"input": x, "weight": weight, "bias": bias}, {"num_groups": groups, **d.some(eps=d.choice([1e-5, 1e-3, 0.1]))}
    )


def softmax(d: Draw) -> Call:
    shape = anything(d)
    dim = d.randint(-max(1, len(shape)), max(0, len(shape) - 1))
    return Call({"input": d.tensor(*shape)}, {"dim": dim, **({"dtype": torch.float64} if d.chance(0.1) else {})})


def reduction(d: Draw) -> dict[str, Any]:
    if d.chance(0.04):
        return {"reduce": d.chance(0.5), "size_average": d.chance(0.5)}
    return d.some(reduction=d.choice(["none", "mean", "sum"]))


def of_classes(d: Draw, probabilities: bool = True) -> Call:
    C = d.randint(1, 5)
    N = [d.extent(1, 4)] if d.chance(0.85) else []
    behind = [d.extent(1, 3) for _ in range(d.choice([0, 0, 0, 1, 2, 3]))] if N else []
    settings = reduction(d)
    weight = d.maybe(0.4, lambda: d.tensor(C, kind="positive", able=False))
    if probabilities:
        settings |= d.some(label_smoothing=d.choice([0.0, 0.1, 1.0]))
    if probabilities and d.chance(0.3):
        target = d.tensor(*N, C, *behind, kind="positive")
    else:
        target = d.whole(0, C - 1, *N, *behind)
        ignored = d.choice([-100, 0, C - 1, -1])
        if d.chance(0.4):
            settings["ignore_index"] = ignored
        if d.chance(0.3) and target.values.numel():
            target.values.view(-1)[:: d.randint(1, 3)] = ignored if d.chance(0.9) else d.choice([-7, C, 200])
    return Call({"input": d.tensor(*N, C, *behind), "target": target, "weight": weight}, settings)


def of_numbers(d: Draw, weighted: bool = True, **settings: list[Any]) -> Call:
    shape = anything(d)
    other = shape if d.chance(0.9) else [1 if d.chance(0.5) else e for e in shape]
    weight = {"weight": d.tensor(*shape, able=False)} if weighted and d.chance(0.1) else {}
    drawn = d.some(**{name: d.choice(values) for name, values in settings.items()})
    return Call({"input": d.tensor(*shape), "target": d.tensor(*other), **weight}, reduction(d) | drawn)


def of_logits(d: Draw) -> Call:
    shape = anything(d)
    weight, pos_weight = (
        d.maybe(0.3, lambda: d.tensor(*(shape if d.chance(0.5) else shape[-1:]), kind="positive", able=False))
        for _ in range(2)
    )
    target = d.tensor(*shape, kind="positive", able=d.chance(0.2))
    return Call({"input": d.tensor(*shape), "target": target, "weight": weight, "pos_weight": pos_weight}, reduction(d))


FUNCTIONS: dict[str, Callable[[Draw], Call]] = {
    **{f"conv{n}d": partial(convolution, axes=n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": partial(transposed, axes=n) for n in (1, 2, 3)},
    "linear": linear,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": partial(adaptive, indices=False),
    "adaptive_max_pool2d": partial(adaptive, indices=True),
    "max_unpool2d": max_unpool2d,
    "interpolate": interpolate,
    "pad": pad,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "dropout": partial(activation, p=[0.0, 0.5, 0.3, 1.0], training=[True, False]),
    "softmax": softmax,
    "log_softmax": softmax,
    "prelu": prelu,
    "threshold": threshold,
    "hardtanh": hardtanh,
    "leaky_relu": partial(activation, negative_slope=[0.01, 0.2, 0.0, -0.5, 1.5]),
    "elu": partial(activation, alpha=[1.0, 0.3, 2, -1.0]),
    "celu": partial(activation, alpha=[1.0, 0.3, 2]),
    "softplus": partial(activation, inplace=False, beta=[1, 0.5, 3.0], threshold=[20, 1, 0.5]),
    "hardshrink": partial(activation, inplace=False, lambd=[0.5, 0, 1.5]),
    "softshrink": partial(activation, inplace=False, lambd=[0.5, 0, 1.5]),
    "gelu": partial(activation, inplace=False, approximate=["none", "tanh"]),
    **dict.fromkeys(("relu", "relu6", "selu", "silu", "mish", "hardsigmoid", "hardswish"), activation),
    **{name: partial(activation, inplace=False) for name in ("sigmoid", "tanh", "softsign", "logsigmoid")},
    "cross_entropy": of_classes,
    "nll_loss": partial(of_classes, probabilities=False),
    "mse_loss": of_numbers,
    "l1_loss": of_numbers,
    "smooth_l1_loss": partial(of_numbers, weighted=False, beta=[1.0, 0.0, 0.5]),
    "binary_cross_entropy_with_logits": of_logits,
}
