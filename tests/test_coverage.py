"""coverage: every node of the graph is named, and counted once, in the right part."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import manualbp
import manualbp.functional as F
from manualbp.coverage import TITLES
from manualbp.functional.activation.sigmoid import Sigmoid

x = torch.randn(2, 3, 6, 6, requires_grad=True)
w = torch.randn(3, 3, 3, 3, requires_grad=True)


class Foreign(torch.autograd.Function):
    """Somebody else's backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, delta: Tensor) -> Tensor:
        return delta


def test_parts() -> None:
    y = F.relu(F.conv2d(x, w, padding=1)) + x
    y = torch.cat([F.sigmoid(T.conv2d(y, w)), F.sigmoid(y[:, :, 1:-1, 1:-1])]).flatten(1)
    report = manualbp.coverage(Foreign.apply(y).mean())
    assert report.by_hand == {"Correlate": 1, "ReLU": 1, "Sigmoid": 2}
    assert report.layers == {"Convolution": 1}
    assert report.others == {"Foreign": 1}
    assert report.arithmetic == {"Add": 1, "Mean": 1}
    assert report.views["Cat"] == 1
    assert report.views["Slice"] >= 2


def test_prints_as_a_table() -> None:
    text = str(manualbp.coverage(T.relu(F.sigmoid(F.sigmoid(x))).view(-1)))
    assert text.splitlines() == [
        "by hand                      2",
        "  Sigmoid                    2",
        "PyTorch, layers              1",
        "  Relu                       1",
        "PyTorch, arithmetic          0",
        "PyTorch, views               1",
        "  View                       1",
    ]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: T.linear(x, torch.ones(2, 6, requires_grad=True)),
        lambda: T.hardtanh(x),
        lambda: T.gelu(x),
        lambda: T.batch_norm(x, None, None, training=True),
        lambda: T.max_pool2d(x, 2),
        lambda: T.pad(x, (1, 1, 1, 1), "reflect"),
        lambda: x.softmax(1),
        lambda: x @ x,
        lambda: T.mse_loss(x, x.detach()),
    ],
)
def test_what_pytorch_has_its_own_backward_for_is_a_layer(layer) -> None:
    assert sum(manualbp.coverage(layer()).layers.values()) >= 1


@torch.library.custom_op("manualbp_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return 2 * x


twice.register_autograd(lambda ctx, delta: 2 * delta)


def hooked(x: Tensor) -> Tensor:
    layer = torch.nn.Identity()
    layer.register_full_backward_hook(lambda *_: None)
    return layer(x)


@pytest.mark.parametrize(
    ("part", "nodes", "f"),
    [
        ("others", {"Foreign": 1}, Foreign.apply),
        ("others", {"manualbp_tests_twice": 1}, twice),
        ("compiled", {"CompiledFunction": 1}, torch.compile(lambda x: x.sin(), backend="aot_eager")),
        ("checkpoints", {"CheckpointFunction": 1}, lambda x: checkpoint(torch.sin, x, use_reentrant=True)),
        ("arithmetic", {"Sin": 1}, lambda x: checkpoint(torch.sin, x, use_reentrant=False)),
        ("hooks", {"BackwardHookFunction": 2}, hooked),
        ("by_hand", {"Softmax": 1}, torch.func.vmap(lambda x: F.softmax(x, 0))),
        ("others", {"Foreign": 1}, lambda x: Holder(Foreign.apply(x))),
    ],
)
def test_what_is_neither_a_rule_nor_pytorchs_stands_under_its_own_title(part: str, nodes: dict[str, int], f) -> None:
    report = manualbp.coverage(f(x))
    assert {part: nodes} == {name: found for name, found in vars(report).items() if found and name != "views"}
    title = next(line for line in str(report).splitlines() if line.startswith(TITLES[part]))
    assert title.split()[-1] == str(sum(nodes.values()))


def test_long_names_stay_in_their_column() -> None:
    long = type("A" * 40, (Foreign,), {})
    lines = str(manualbp.coverage(long.apply(x))).splitlines()
    assert len({len(line) for line in lines}) == 1


@dataclass
class Holder:
    """What a model may return."""

    y: Tensor


def test_what_a_model_may_return() -> None:
    """Tensors in lists, tuples and dicts; those without a graph count for nothing."""
    y = {"out": F.relu(x), "aux": (F.tanh(x), [None, 3, torch.ones(2)])}
    assert manualbp.coverage(y).by_hand == {"ReLU": 1, "Tanh": 1}


def test_a_node_that_is_reached_twice_counts_once() -> None:
    y = F.relu(x)
    assert manualbp.coverage(y * y + y).by_hand == {"ReLU": 1}


def test_in_place() -> None:
    report = manualbp.coverage(F.relu(x * 1, inplace=True))
    assert report.by_hand == {"ReLUInPlace": 1}
    assert not report.layers


def test_a_rule_is_named_as_its_class_is() -> None:
    """In the graph and in the report, with forward mode and without (inside torch.compile)."""
    for apply in (Sigmoid.eager.apply, Sigmoid.apply):
        y = apply(x)
        assert y.grad_fn.name() == "SigmoidBackward"
        assert manualbp.coverage(y).by_hand == {"Sigmoid": 1}


@pytest.mark.filterwarnings("ignore:by_hand")
def test_what_a_rule_refuses_is_a_layer() -> None:
    with manualbp.by_hand():
        report = manualbp.coverage(T.interpolate(T.sigmoid(x), size=3, mode="bicubic", antialias=True))
    assert report.by_hand == {"Sigmoid": 1}
    assert report.layers == {"UpsampleBicubic2DAa": 1}


def test_refused() -> None:
    with pytest.raises(TypeError, match="coverage: output is a int"):
        manualbp.coverage(3)
    with pytest.raises(ValueError, match="grad_fn is None"):
        manualbp.coverage(torch.ones(3))
