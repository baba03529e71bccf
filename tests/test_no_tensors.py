"""What is no dense tensor is refused by a TypeError that names argument; in `by_hand()` PyTorch answers."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
import manualbp.functional as F
from tests.cases import ONE_OF_EACH, Case
from tests.cases.make import normal
from tests.nn.test_modules import LOSSES, MODULES
from tests.nn.test_modules import make as layer


def dense(t: Any) -> Tensor:
    t = t.detach().float() if isinstance(t, Tensor) and t.is_floating_point() else torch.zeros(2, 3)
    return t if t.ndim else t.unsqueeze(0)


def nested(t: Any) -> Tensor:
    return torch.nested.nested_tensor([dense(t), dense(t)])


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "None": ("None", lambda t: None),
    "list": ("a list", lambda t: [1.0, 2.0]),
    "number": ("a float", lambda t: 1.5),
    "array": ("a ndarray", lambda t: dense(t).numpy()),
    "sparse": ("a sparse_coo tensor", lambda t: dense(t).to_sparse()),
    "csr": ("a sparse_csr tensor", lambda t: torch.eye(3).to_sparse_csr()),
    "nested": ("a nested tensor", nested),
    "jagged": ("a nested tensor", lambda t: torch.nested.nested_tensor([torch.ones(2, 3)] * 2, layout=torch.jagged)),
    "quantised": ("a quantised tensor", lambda t: torch.quantize_per_tensor(dense(t), 0.1, 0, torch.qint8)),
    "mkldnn": ("a _mkldnn tensor", lambda t: dense(t).to_mkldnn()),
}
EACH = [*ONE_OF_EACH, Case("dropout", "", normal(2, 3))]
every_wrong = pytest.mark.parametrize("wrong", WRONG)


def arguments(case: Case) -> dict[str, Any]:
    """All that the case gives, by name."""
    return dict(inspect.signature(getattr(F, case.op)).bind(*case.inputs(), **case.settings()).arguments)


@pytest.mark.filterwarnings("ignore")
@every_wrong
def test_functions(wrong: str) -> None:
    """Each argument that takes a tensor, of each function."""
    what, make = WRONG[wrong]
    for case in EACH:
        given, takes = arguments(case), inspect.signature(getattr(F, case.op)).parameters
        tensors = {name: p.annotation for name, p in takes.items() if "Tensor" in str(p.annotation)}
        assert tensors
        for name, annotation in tensors.items():
            if wrong == "None" and "None" in str(annotation):
                continue
            with pytest.raises(TypeError, match=rf"^{case.op}: {name} is {what}; it must be a"):
                getattr(F, case.op)(**given | {name: make(given.get(name))})


def test_the_table_has_every_function() -> None:
    assert {case.op for case in EACH} == set(F.__all__)


@every_wrong
def test_layers(wrong: str) -> None:
    """The error names the layer's operation; what stands in a layer's place for a tensor may be wrong, too."""
    what, made = WRONG[wrong]
    refused = rf"^\w+: \w+ is {what}; it must be a"
    for name, args, kwargs, shape in MODULES:
        module = layer(manualbp.nn, name, *args, **kwargs)
        with pytest.raises(TypeError, match=refused):
            module(made(torch.ones(shape)))
    for name, kwargs in LOSSES:
        x = torch.ones(6, 4)
        with pytest.raises(TypeError, match=refused):
            layer(manualbp.nn, name, **kwargs)(x, made(x))
    with pytest.raises(TypeError, match=rf"^max_unpool2d: indices is {what}"):
        manualbp.nn.MaxUnpool2d(2)(torch.ones(1, 1, 2, 2), made(torch.ones(1, 1, 2, 2)))


def answer(call: Callable[[Any], Any], x: Any) -> Any:
    """What PyTorch makes of it: the error, or the numbers."""
    try:
        y = call(x)
    except Exception as error:
        return type(error), re.sub(r"\bj\d+", "j", str(error))  # each jagged tensor has a number
    dense = y.to_padded_tensor(0.0) if y.is_nested else y.dequantize() if y.is_quantized else y
    return type(y), y.layout, (dense if dense.layout is torch.strided else dense.to_dense()).tolist()


@pytest.mark.filterwarnings("ignore")
@every_wrong
def test_by_hand_leaves_it_to_pytorch(wrong: str) -> None:
    _, made = WRONG[wrong]
    calls: dict[str, Callable[[Any], Any]] = {
        "relu": T.relu,
        "sigmoid": torch.sigmoid,
        "softmax": lambda x: T.softmax(x, -1),
        "linear": lambda x: T.linear(x, torch.ones(2, 3)),
        "linear's weight": lambda w: T.linear(torch.ones(2, 3), w),
        "conv1d": lambda x: T.conv1d(x, torch.ones(4, 2, 2)),
        "mse_loss": lambda x: T.mse_loss(x, torch.ones(2, 3)),
        "cross_entropy": lambda x: T.cross_entropy(x, torch.tensor([0, 1])),
        "layer_norm": lambda x: T.layer_norm(x, (3,)),
        "max_pool2d": lambda x: T.max_pool2d(x, 1),
        "pad": lambda x: T.pad(x, (1, 1)),
        "interpolate": lambda x: T.interpolate(x, scale_factor=2),
    }
    for name, call in calls.items():
        theirs = answer(call, made(torch.ones(2, 3)))
        with manualbp.by_hand():
            ours = answer(call, made(torch.ones(2, 3)))
        assert ours == theirs, name


class Named(Tensor):
    """A subclass of Tensor that computes as it does."""


@pytest.mark.parametrize("kind", [Named, nn.Parameter, nn.Buffer])
def test_subclasses_of_tensor_are_tensors(kind: Any) -> None:
    x = torch.randn(1, 2, 4, 4)
    x = x.as_subclass(kind) if kind is Named else kind(x)
    w = nn.Parameter(torch.randn(3, 2, 2, 2))
    y = F.relu(F.conv2d(x, w))
    assert type(y) is type(T.relu(T.conv2d(x, w)))
    assert torch.equal(y.detach().as_subclass(Tensor), T.relu(T.conv2d(x, w)).detach().as_subclass(Tensor))
