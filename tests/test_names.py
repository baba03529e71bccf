"""Every name that `by_hand()` answers, called in every form that its own signature allows, beside PyTorch."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.overrides import resolve_name

import manualbp
from manualbp.by_hand import _warn
from manualbp.names import RULES
from tests.checks import EXACT, distance, random_like

Arguments = dict[str, Any]


def of(*shape: int) -> Tensor:
    """Normal numbers that require a gradient, with a deviation of 3."""
    g = torch.Generator().manual_seed(len(shape))
    return (3 * torch.randn(shape, generator=g, dtype=torch.float64)).requires_grad_()


IMAGES, MAPS, ROWS, ONE = of(2, 4, 6, 6), of(4), of(5, 3), of()
MEAN, VAR = torch.full((4,), 0.5).double(), torch.full((4,), 2.0).double()
CLASSES, TARGET = torch.tensor([0, 2, 1, 1, 2]), of(5, 3).detach().sigmoid()
PLACES = T.max_pool2d(IMAGES.detach(), 2, return_indices=True)[1]


@dataclass(frozen=True)
class Name:
    """One function: arguments that it must be given, that it may be given, and that it takes by keyword alone."""

    function: Callable[..., Any]
    required: Arguments
    optional: Arguments = field(default_factory=dict)
    by_keyword: Arguments = field(default_factory=dict)
    takes_out: bool = False

    def __str__(self) -> str:
        return resolve_name(self.function) or self.function.__name__

    def forms(self) -> Iterator[tuple[list[Any], Arguments]]:
        """Each number of optional arguments, each number of all of them positional; and each keyword by itself."""
        optional = list(self.optional.items())
        least = 1 if isinstance(self.function, type(Tensor.relu)) else 0  # a method's tensor has no keyword
        for n in range(len(optional) + 1):
            given = [*self.required.items(), *optional[:n]]
            for k in range(least, len(given) + 1):
                yield [a for _, a in given[:k]], dict(given[k:])
        for name, a in [*optional[1:], *self.by_keyword.items()]:
            yield list(self.required.values()), {name: a}
        if self.takes_out:
            yield list(self.required.values()), {"out": None}


def unary(*functions: Callable[..., Any], takes_out: bool = False, **optional: Any) -> list[Name]:
    return [Name(f, {"input": ROWS}, optional, takes_out=takes_out) for f in functions]


def convolution(f: Callable[..., Any], axes: int, *order: str) -> list[Name]:
    """With as many arguments as there may be, and with all of them and two groups."""
    settings = {"stride": 2, "padding": 1, "output_padding": 0, "groups": 1, "dilation": [2] * axes}
    x, w, given = of(2, 4, *[5] * axes), of(4, 4, *[2] * axes), {name: settings[name] for name in order}
    groups = {"weight": of(4, 2, *[2] * axes), "bias": None, **given, "groups": 2}
    if "output_padding" in order:
        groups["output_padding"] = 1
    return [Name(f, {"input": x, "weight": w}, {"bias": MAPS, **given}), Name(f, {"input": x, **groups})]


def loss(f: Callable[..., Any], target: Tensor, *before: str, **optional: Any) -> Name:
    """PyTorch's losses, with the outdated arguments where their signatures have them."""
    settings = {"weight": of(3).detach().abs(), "size_average": None, "ignore_index": 1, "reduce": None}
    given = {name: settings[name] for name in before} | {"reduction": "sum"} | optional
    return Name(f, {"input": ROWS, "target": target}, given)


FORWARD = ("stride", "padding", "dilation", "groups")
BACKWARD = ("stride", "padding", "output_padding", "groups", "dilation")
POOL = {"kernel_size": 3}, {"stride": (2, 1), "padding": 1, "dilation": 2, "ceil_mode": True}
MEANS = {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False, "divisor_override": 5}
UNPOOL = {"input": of(2, 4, 3, 3), "indices": PLACES, "kernel_size": 2}
SCALE = {"weight": MAPS, "bias": MAPS}
RUNNING = {"running_mean": MEAN, "running_var": VAR}
RESIZE = {"scale_factor": 2, "mode": "bilinear", "align_corners": True}
DTYPE = {"dtype": torch.float32}

NAMES = [
    *[name for axes in (1, 2, 3) for name in convolution(getattr(T, f"conv{axes}d"), axes, *FORWARD)],
    *[name for axes in (1, 2, 3) for name in convolution(getattr(T, f"conv_transpose{axes}d"), axes, *BACKWARD)],
    Name(T.linear, {"input": ROWS, "weight": of(4, 3)}, {"bias": MAPS}, takes_out=True),
    Name(T.pad, {"input": IMAGES, "pad": (1, 2)}, {"mode": "constant", "value": 0.5}),
    Name(torch.constant_pad_nd, {"input": IMAGES, "pad": (1, 2)}, {"value": 0.5}),
    Name(T.max_pool2d, {"input": IMAGES, **POOL[0]}, {**POOL[1], "return_indices": True}),
    Name(T.max_pool2d_with_indices, {"input": IMAGES, **POOL[0]}, {**POOL[1], "return_indices": True}),
    Name(torch.max_pool2d, {"input": IMAGES, **POOL[0]}, POOL[1]),
    Name(torch.max_pool2d, {"input": IMAGES, **POOL[0], "stride": ()}),
    Name(T.max_unpool2d, UNPOOL, {"stride": 2, "padding": 0, "output_size": (6, 6)}),
    Name(T.avg_pool2d, {"input": IMAGES, "kernel_size": 3}, MEANS, takes_out=True),
    Name(T.adaptive_avg_pool2d, {"input": IMAGES, "output_size": (2, 3)}),
    Name(T.adaptive_max_pool2d, {"input": IMAGES, "output_size": (2, 3)}, {"return_indices": True}),
    Name(T.adaptive_max_pool2d_with_indices, {"input": IMAGES, "output_size": (2, 3)}, {"return_indices": True}),
    Name(
        T.interpolate, {"input": IMAGES, "size": None, **RESIZE}, {"recompute_scale_factor": True, "antialias": False}
    ),
    Name(T.upsample, {"input": IMAGES, "size": None, **RESIZE}),
    Name(T.batch_norm, {"input": IMAGES, **RUNNING}, {**SCALE, "training": True, "momentum": 0.3, "eps": 0.1}),
    Name(
        torch.batch_norm,
        {"input": IMAGES, **SCALE, **RUNNING, "training": True, "momentum": 0.3, "eps": 0.1, "cudnn_enabled": False},
    ),
    Name(T.layer_norm, {"input": ROWS, "normalized_shape": [3]}, {"weight": of(3), "bias": of(3), "eps": 0.1}),
    Name(
        torch.layer_norm,
        {"input": ROWS, "normalized_shape": [3]},
        {"weight": of(3), "bias": of(3), "eps": 0.1, "cudnn_enable": False},
    ),
    Name(T.group_norm, {"input": IMAGES, "num_groups": 2}, {**SCALE, "eps": 0.1}),
    Name(torch.group_norm, {"input": IMAGES, "num_groups": 2}, {**SCALE, "eps": 0.1, "cudnn_enabled": False}),
    *unary(T.dropout, p=0.25, training=True, inplace=True),
    *[Name(f, {"input": ROWS, "p": 0.5, "train": True}) for f in (torch.dropout, torch.dropout_)],
    *[Name(f, {"input": ROWS, "dim": 0}, {"_stacklevel": 3, **DTYPE}) for f in (T.softmax, T.log_softmax)],
    *[Name(f, {"input": ROWS, "dim": 0}, DTYPE, takes_out=True) for f in (torch.softmax, torch.log_softmax)],
    *[Name(f, {"input": ROWS, "dim": 0}, DTYPE) for f in (Tensor.softmax, Tensor.log_softmax, torch.special.softmax)],
    Name(torch.special.log_softmax, {"input": ROWS, "dim": 0}, {}, DTYPE),
    *unary(
        T.sigmoid, T.tanh, T.softsign, torch.relu, torch.relu_, torch.sigmoid_, torch.tanh_, torch.selu, torch.selu_
    ),
    *unary(Tensor.sigmoid, Tensor.tanh, Tensor.relu, Tensor.relu_, Tensor.sigmoid_, Tensor.tanh_),
    *unary(torch.sigmoid, torch.special.expit, torch.tanh, T.logsigmoid, takes_out=True),
    *unary(T.relu, T.relu6, T.silu, T.mish, T.selu, T.hardsigmoid, T.hardswish, inplace=True),
    *unary(T.hardtanh, min_val=-2.0, max_val=2.5, inplace=True),
    *unary(T.hardtanh_, min_val=-2.0, max_val=2.5),
    *unary(T.leaky_relu, negative_slope=0.3, inplace=True),
    *unary(T.leaky_relu_, negative_slope=0.3),
    *unary(T.hardshrink, T.softshrink, lambd=1.5, takes_out=True),
    *unary(Tensor.hardshrink, lambd=1.5),
    Name(T.threshold, {"input": ROWS, "threshold": 0.5, "value": 2.0}, {"inplace": True}),
    Name(torch.threshold, {"input": ROWS, "threshold": 0.5, "value": 2.0}, takes_out=True),
    Name(torch.threshold_, {"input": ROWS, "threshold": 0.5, "value": 2.0}),
    *[Name(f, {"input": ROWS, "weight": of(3)}) for f in (T.prelu, Tensor.prelu)],
    *unary(T.celu, alpha=2.0, inplace=True),
    *unary(torch.celu, torch.celu_, alpha=2.0),
    *unary(T.elu, alpha=2.0, inplace=True),
    *unary(T.elu_, alpha=2.0, scale=1.0, input_scale=1.0),
    *unary(T.softplus, beta=2.0, threshold=3.0, takes_out=True),
    Name(T.gelu, {"input": ROWS}, {}, {"approximate": "tanh"}, takes_out=True),
    loss(T.cross_entropy, CLASSES, "weight", "size_average", "ignore_index", "reduce", label_smoothing=0.1),
    loss(T.nll_loss, CLASSES, "weight", "size_average", "ignore_index", "reduce"),
    loss(T.mse_loss, TARGET, "size_average", "reduce", weight=TARGET),
    loss(T.l1_loss, TARGET, "size_average", "reduce"),  # its weight is lost on the way to any TorchFunctionMode
    loss(T.smooth_l1_loss, TARGET, "size_average", "reduce", beta=0.5),
    loss(
        T.binary_cross_entropy_with_logits, TARGET, "weight", "size_average", "reduce", pos_weight=of(3).detach().abs()
    ),
    Name(
        torch.binary_cross_entropy_with_logits,
        {"input": ROWS, "target": TARGET},
        {"weight": TARGET, "pos_weight": TARGET, "reduction": 2},
    ),
]

# PyTorch's hardsigmoid takes 1/6 in float32.
TOLERANCE = {T.hardsigmoid: 1e-7}


def called(f: Callable[..., Any], args: list[Any], kwargs: Arguments) -> tuple[Tensor, list[Tensor]]:
    """The differentiable output; all outputs, gradients, and what the arguments hold after the call."""
    given, leaves = [], []
    for a in [*args, *kwargs.values()]:
        if isinstance(a, Tensor):
            leaf = a.detach().clone().requires_grad_(a.requires_grad)
            leaves += [leaf] if leaf.requires_grad else []
            a = leaf * 1 if leaf.requires_grad else leaf  # so that a function may work in place
        given.append(a)
    torch.manual_seed(0)
    outputs = f(*given[: len(args)], **dict(zip(kwargs, given[len(args) :], strict=True)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs[0], leaves, random_like(outputs[0]))
    return outputs[0], [*outputs, *gradients, *(a for a in given if isinstance(a, Tensor))]


@pytest.mark.filterwarnings("error:by_hand", "ignore:.*deprecated")
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_every_form_of_a_call(name: Name) -> None:
    """The rule's nodes, and PyTorch's numbers and dtypes: outputs, gradients, and what is left in the inputs."""
    for args, kwargs in name.forms():
        y, theirs = called(name.function, args, kwargs)
        assert not manualbp.coverage(y).by_hand
        with manualbp.by_hand():
            y, ours = called(name.function, args, kwargs)
        report = manualbp.coverage(y)
        assert report.by_hand, kwargs
        assert not report.layers, kwargs
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype, kwargs
            limit = 1e-6 if y.dtype == torch.float32 else TOLERANCE.get(name.function, EXACT)
            assert distance(a, b) <= limit, (args, kwargs)


def test_every_name_is_called() -> None:
    """No key of the table is left out here; and no argument, where Python knows the signature."""
    assert {name.function for name in NAMES} == RULES.keys()
    unknown = {T.max_pool2d, T.adaptive_max_pool2d}  # dispatched by return_indices: (*args, **kwargs)
    for name in NAMES:
        if inspect.isfunction(name.function) and name.function not in unknown:
            own = list(inspect.signature(name.function).parameters)
            own = own[:-1] if name.function is T.l1_loss else own
            assert own == [*name.required, *name.optional], str(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.takes_out], ids=str)
def test_a_tensor_to_write_into(name: Name) -> None:
    """It runs as PyTorch's own."""
    _warn.cache_clear()
    args = [a.detach() if isinstance(a, Tensor) else a for a in name.required.values()]
    expected = name.function(*args)
    with manualbp.by_hand(), pytest.warns(UserWarning, match=f"{name} ran as PyTorch's own: out = "):
        y = name.function(*args, out=(out := torch.empty_like(expected)))
    assert y is out
    assert torch.equal(y, expected)
