"""coverage: every node of the graph is named, and counted once, in the right part."""

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp
import manualbp.functional as F
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
    assert report.layers == {"Convolution": 1, "Foreign": 1}
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
        lambda: torch.compile(lambda t: t.sin(), backend="aot_eager")(x),
    ],
)
def test_what_pytorch_has_its_own_backward_for_is_a_layer(layer) -> None:
    assert sum(manualbp.coverage(layer()).layers.values()) >= 1


def test_what_a_model_may_return() -> None:
    """Tensors in lists, tuples and dicts; those without a graph count for nothing."""
    y = {"out": F.relu(x), "aux": (F.tanh(x), [None, 3, torch.ones(2)])}
    assert manualbp.coverage(y).by_hand == {"ReLU": 1, "Tanh": 1}


def test_a_node_that_is_reached_twice_counts_once() -> None:
    y = F.relu(x)
    assert manualbp.coverage(y * y + y).by_hand == {"ReLU": 1}


def test_in_place() -> None:
    report = manualbp.coverage(F.relu(x * 1, inplace=True))
    assert report.by_hand == {"ReLUBitsInPlace": 1}
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
        report = manualbp.coverage(T.interpolate(T.sigmoid(x), scale_factor=2, mode="bicubic"))
    assert report.by_hand == {"Sigmoid": 1}
    assert report.layers == {"UpsampleBicubic2D": 1}


def test_refused() -> None:
    with pytest.raises(TypeError, match="coverage: output is a int"):
        manualbp.coverage(3)
    with pytest.raises(ValueError, match="grad_fn is None"):
        manualbp.coverage(torch.ones(3))
