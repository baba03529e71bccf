"""Every layer of torch.nn that `convert` exchanges, with every setting and every input that PyTorch takes."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import manualbp
from manualbp.convert import LAYERS
from tests.checks import EXACT, distance, random_like

ONE, TWO, THREE = (2, 4, 9), (2, 4, 8, 7), (2, 4, 5, 6, 7)
MODES = "zeros", "reflect", "replicate", "circular"
Row = tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]


def rows(name: str, args: tuple[Any, ...], shapes: list[tuple[int, ...]], **settings: list[Any]) -> list[Row]:
    """The layer with all of the settings' values crossed."""
    keys = list(settings)
    return [
        (name, args, dict(zip(keys, values, strict=True)), shape)
        for values in product(*settings.values())
        for shape in shapes
    ]


def with_and_without_batch(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [shape, shape[1:], (0, *shape[1:])]


CONVOLUTIONS = [
    row
    for axes, shape in ((1, ONE), (2, TWO), (3, THREE))
    for row in [
        *rows(f"Conv{axes}d", (4, 6, 3), [shape], padding=[0, 1, "same", "valid"], padding_mode=list(MODES)),
        *rows(f"Conv{axes}d", (4, 6, 2), [shape], stride=[1, 2], dilation=[1, 2], groups=[1, 2], bias=[True, False]),
        *rows(f"Conv{axes}d", (4, 6, 2), with_and_without_batch(shape)),
        *rows(f"ConvTranspose{axes}d", (4, 6, 3), [shape], stride=[2, 3], padding=[0, 1], output_padding=[0, 1]),
        *rows(f"ConvTranspose{axes}d", (4, 6, 2), [shape], dilation=[1, 2], groups=[1, 2], bias=[True, False]),
        *rows(f"ConvTranspose{axes}d", (4, 6, 2), with_and_without_batch(shape)),
    ]
]
POOLING = [
    *rows("MaxPool2d", (3,), [TWO], stride=[None, 2], padding=[0, 1], dilation=[1, 2], ceil_mode=[False, True]),
    *rows("MaxPool2d", ((3, 2),), with_and_without_batch(TWO), return_indices=[False, True], ceil_mode=[False, True]),
    *rows("AvgPool2d", (3,), [TWO], stride=[None, 2], padding=[0, 1], ceil_mode=[False, True]),
    *rows(
        "AvgPool2d", ((3, 2),), [TWO, TWO[1:]], padding=[1], count_include_pad=[False, True], divisor_override=[None, 5]
    ),
    *rows("AdaptiveAvgPool2d", ((3, None),), with_and_without_batch(TWO)),
    *rows("AdaptiveAvgPool2d", (1,), [TWO]),
    *rows("AdaptiveMaxPool2d", ((3, 4),), with_and_without_batch(TWO), return_indices=[False, True]),
]
RESIZING = [
    *[
        row
        for mode, shapes in {
            "nearest": [ONE, TWO, THREE],
            "linear": [ONE],
            "bilinear": [TWO],
            "trilinear": [THREE],
            "bicubic": [TWO],
        }.items()
        for row in [
            *rows("Upsample", (), shapes, mode=[mode], size=[5], align_corners=[None, *[True] * (mode != "nearest")]),
            *rows("Upsample", (), shapes, mode=[mode], scale_factor=[2, 0.6], recompute_scale_factor=[None, True]),
        ]
    ],
    *rows("Upsample", (), [ONE, TWO, THREE], mode=["nearest-exact", "area"], scale_factor=[1.7]),
    *rows("UpsamplingNearest2d", (), [TWO], scale_factor=[2, 1.5]),
    *rows("UpsamplingBilinear2d", (), [TWO], size=[(5, 9)]),
]
PADS = [
    ("ZeroPad2d", ((1, 2, 0, 3),)),
    ("ZeroPad2d", ((-1, 2, -2, 3),)),
    ("ConstantPad2d", ((1, -2, 0, 3), 2.5)),
    ("ReflectionPad2d", (2,)),
    ("ReplicationPad2d", ((1, 0, 2, 1),)),
    ("CircularPad2d", ((1, 0, 2, 1),)),
]
PADDING = [row for name, args in PADS for row in rows(name, args, [TWO, TWO[1:]])]
NORMS = [
    row
    for axes, shapes in ((1, [(5, 4), ONE]), (2, [TWO]), (3, [THREE]))
    for row in rows(
        f"BatchNorm{axes}d",
        (4,),
        shapes,
        affine=[True, False],
        track_running_stats=[True, False],
        momentum=[0.3, None],
    )
] + [
    *rows("LayerNorm", (7,), [TWO], elementwise_affine=[True, False], bias=[True, False]),
    *rows("LayerNorm", ((8, 7),), [TWO, TWO[1:], TWO[2:]]),
    *rows("GroupNorm", (2, 4), [(2, 4), ONE, TWO, THREE], affine=[True, False]),
]
INPLACE = ["ReLU", "ReLU6", "Hardtanh", "LeakyReLU", "ELU", "SELU", "CELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid"]
OTHERS = [
    *[row for name in INPLACE for row in rows(name, (), [(), (3,), TWO], inplace=[False, True])],
    *[
        row
        for name in ("Sigmoid", "Tanh", "Softsign", "LogSigmoid", "Hardshrink", "Softshrink", "Softplus")
        for row in rows(name, (), [(), (3,), TWO])
    ],
    *rows("GELU", (), [TWO], approximate=["none", "tanh"]),
    *rows("Threshold", (0.2, 0.1), [TWO], inplace=[False, True]),
    *rows("PReLU", (), [(3, 4), TWO, ONE], num_parameters=[1, 4]),
    *rows("Dropout", (), [(3,), TWO], p=[0.0, 0.3, 1.0], inplace=[False, True]),
    *rows("Linear", (7, 3), [(7,), (2, 7), (*ONE[:2], 7), TWO, (0, 7)], bias=[True, False]),
    *rows("Softmax", (), [(3,), (3, 4), ONE, TWO], dim=[None, 0, -1]),
    *rows("LogSoftmax", (), [(3,), (3, 4), ONE, TWO], dim=[None, 0, -1]),
]
TABLE = [*CONVOLUTIONS, *POOLING, *RESIZING, *PADDING, *NORMS, *OTHERS]
LOSSES = {"BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss", "NLLLoss", "SmoothL1Loss"}


def test_the_table_has_every_layer() -> None:
    assert {name for name, *_ in TABLE} == {kind.__name__ for kind in LAYERS} - LOSSES - {"MaxUnpool2d"}


def results(module: nn.Module, shape: tuple[int, ...], training: bool) -> list[Tensor] | str:
    """Output, gradients and buffers, or that it is refused."""
    module.train(training)
    x = random_like(torch.empty(shape, dtype=torch.float64)).requires_grad_()
    torch.manual_seed(1)
    try:
        y = module(x * 1)
    except (ValueError, RuntimeError) as error:
        return type(error).__name__ and "refused"
    y, *index = y if isinstance(y, tuple) else (y,)
    y.backward(random_like(y, 2))
    return [y.detach(), *index, x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", sorted({name for name, *_ in TABLE}))
def test_same_numbers(name: str, training: bool) -> None:
    limit = 1e-7 if name == "Hardsigmoid" else EXACT  # PyTorch's slope there is 1/6 in float32, also in float64
    computed = 0
    for _, args, settings, shape in (row for row in TABLE if row[0] == name):
        torch.manual_seed(0)
        theirs = getattr(nn, name)(*args, **settings).double()
        ours = copy.deepcopy(theirs)
        manualbp.convert(ours)
        expected, found = results(theirs, shape, training), results(ours, shape, training)
        if isinstance(expected, str):
            assert found == expected, (args, settings, shape)
            continue
        assert not isinstance(found, str), (args, settings, shape)
        computed += 1
        for a, b in zip(found, expected, strict=True):
            assert distance(a, b) <= limit, (args, settings, shape)
    assert computed
