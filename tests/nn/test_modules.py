"""The modules: torch.nn's own classes in everything but the backward pass."""

import copy
import inspect
import pickle
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import manualbp.nn
from tests.checks import EXACT, Recorder, distance, random_like

MODULES: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (4, 6, 3), {}, (2, 4, 7, 6)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": 2, "padding": (1, 2), "groups": 2, "bias": False}, (2, 4, 7, 6)),
    ("Conv2d", (4, 6, (3, 2)), {"padding": "same", "dilation": 2}, (2, 4, 7, 6)),
    ("Conv2d", (4, 6, 3), {"padding": "valid"}, (4, 7, 6)),
    *[
        ("Conv2d", (4, 6, (3, 4)), {"padding": padding, "padding_mode": mode}, (2, 4, 7, 6))
        for mode in ("zeros", "reflect", "replicate", "circular")
        for padding in (2, (1, 3), "same", "valid")
    ],
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "circular", "stride": 2}, (4, 7, 6)),
    ("Conv2d", (4, 8, 3), {"padding": 1, "padding_mode": "reflect", "groups": 4, "dilation": 2}, (2, 4, 7, 6)),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 7)),
    ("Conv1d", (4, 6, 4), {"padding": "same", "bias": False}, (4, 7)),
    *[("Conv1d", (4, 6, 4), {"padding": 2, "padding_mode": mode}, (2, 4, 7)) for mode in ("reflect", "circular")],
    ("Conv3d", (2, 4, (3, 2, 1)), {"stride": (1, 2, 1), "padding": (0, 2, 1), "dilation": 2}, (2, 2, 5, 4, 3)),
    ("Conv3d", (2, 4, 2), {"padding": "same", "padding_mode": "replicate"}, (2, 2, 5, 4, 3)),
    ("Conv3d", (2, 4, 3), {"padding": (1, 2, 0), "padding_mode": "circular"}, (2, 5, 4, 3)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "groups": 2, "output_padding": 1}, (2, 4, 5)),
    ("ConvTranspose2d", (4, 6, 3), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}, (4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 2), {"groups": 2, "bias": False, "dilation": 2}, (2, 4, 5, 4)),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2, "padding": (0, 1, 0), "dilation": (1, 2, 1)}, (2, 2, 2, 3, 2)),
    ("MaxPool2d", (2,), {}, (2, 3, 7, 6)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 7, 6)),
    ("MaxPool2d", (3, 1), {"dilation": 2, "return_indices": True}, (3, 7, 6)),
    ("AvgPool2d", (2,), {}, (2, 3, 7, 6)),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, (2, 3, 7, 6)),
    ("AvgPool2d", ((2, 3),), {"divisor_override": 4}, (3, 7, 6)),
    ("AdaptiveAvgPool2d", (1,), {}, (2, 3, 7, 6)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (3, 7, 6)),
    ("AdaptiveMaxPool2d", ((3, 4),), {"return_indices": True}, (2, 3, 7, 6)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", ((5, 7),), {"mode": "bilinear", "align_corners": True}, (2, 3, 4, 5)),
    (
        "Upsample",
        (),
        {"scale_factor": (1.7, 0.6), "mode": "bilinear", "recompute_scale_factor": True},
        (2, 3, 4, 5),
    ),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("UpsamplingBilinear2d", ((5, 7),), {}, (2, 3, 4, 5)),
    ("Sigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("ReLU", (), {}, (3, 4)),
    ("ReLU", (True,), {}, (3, 4)),
    ("GELU", (), {}, (3, 4)),
    ("GELU", ("tanh",), {}, (3, 4)),
    ("SiLU", (True,), {}, (3, 4)),
    ("ELU", (), {"alpha": 0.5}, (3, 4)),
    ("ELU", (2.0, True), {}, (3, 4)),
    ("Softplus", (2.0,), {"threshold": 1.0}, (3, 4)),
    ("ZeroPad2d", ((1, 2, 0, 3),), {}, (2, 3, 7, 6)),
    ("ConstantPad2d", (1, 2.5), {}, (3, 7, 6)),
    ("ReflectionPad2d", (2,), {}, (2, 3, 7, 6)),
    ("ReplicationPad2d", ((1, 0, 2, 1),), {}, (2, 3, 7, 6)),
    ("CircularPad2d", (1,), {}, (2, 3, 7, 6)),
    ("Hardtanh", (-0.5, 2.0), {}, (3, 4)),
    ("ReLU6", (True,), {}, (3, 4)),
    ("LeakyReLU", (0.2,), {}, (3, 4)),
    ("LeakyReLU", (), {"inplace": True}, (3, 4)),
    ("Hardswish", (True,), {}, (3, 4)),
    ("Hardsigmoid", (True,), {}, (3, 4)),
    ("Dropout", (), {}, (3, 4)),
    ("Dropout", (0.2, True), {}, (2, 3, 4, 5)),
    ("Linear", (4, 5), {}, (2, 3, 4)),
    ("Linear", (4, 5), {"bias": False}, (4,)),
    ("Softmax", (1,), {}, (3, 4)),
    ("LogSoftmax", (), {"dim": -1}, (3, 4)),
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, (2, 4, 3)),
    ("BatchNorm2d", (3,), {"eps": 0.1, "momentum": 0.3}, (2, 3, 4, 5)),
    ("BatchNorm2d", (3,), {"affine": False}, (2, 3, 4, 5)),
    ("BatchNorm3d", (3,), {"track_running_stats": False}, (2, 3, 2, 4, 3)),
    ("LayerNorm", (4,), {}, (2, 3, 4)),
    ("LayerNorm", ((3, 4),), {"bias": False, "eps": 0.1}, (2, 3, 4)),
    ("LayerNorm", (4,), {"elementwise_affine": False}, (3, 4)),
    ("GroupNorm", (2, 6), {}, (2, 6, 3, 4)),
    ("GroupNorm", (3, 6), {"affine": False, "eps": 0.1}, (2, 6)),
]
LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"weight": torch.tensor([0.5, 1, 2, 3]).double(), "ignore_index": 1, "label_smoothing": 0.1}),
    ("CrossEntropyLoss", {"reduction": "sum"}),
    ("NLLLoss", {"weight": torch.tensor([0.5, 1, 2, 3]).double(), "ignore_index": 2}),
    ("NLLLoss", {"reduction": "none"}),
    ("MSELoss", {"reduction": "sum"}),
    ("MSELoss", {}),
    ("L1Loss", {"reduction": "none"}),
    ("L1Loss", {}),
    ("SmoothL1Loss", {"beta": 0.5}),
    ("SmoothL1Loss", {"reduction": "sum"}),
    ("BCEWithLogitsLoss", {}),
    ("BCEWithLogitsLoss", {"weight": torch.tensor([0.5, 1, 2, 3]), "pos_weight": torch.tensor([2, 1, 0.5, 1])}),
]
every_module = pytest.mark.parametrize(("name", "args", "kwargs", "shape"), MODULES)


def make(namespace: ModuleType, name: str, *args: Any, **kwargs: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(namespace, name)(*args, **kwargs)


def both(name: str, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    return make(manualbp.nn, name, *args, **kwargs), make(torch.nn, name, *args, **kwargs)


@every_module
def test_is_torchs_module(name: str, args: Any, kwargs: Any, shape: Any) -> None:
    ours, torchs = both(name, *args, **kwargs)
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(torchs)
    assert inspect.signature(type(ours)) == inspect.signature(type(torchs))
    state, theirs = ours.state_dict(), torchs.state_dict()
    assert list(state) == list(theirs)
    assert all(torch.equal(state[k], theirs[k]) for k in state)
    ours.load_state_dict(theirs)
    torchs.load_state_dict(state)


@every_module
def test_same_numbers(name: str, args: Any, kwargs: Any, shape: Any, device: str) -> None:
    results = []
    for module in both(name, *args, **kwargs):
        module = module.to(device, torch.float64)
        x = random_like(torch.empty(shape, dtype=torch.float64, device=device)).requires_grad_()
        torch.manual_seed(1)  # for the noise of dropout
        y = module(x * 1)  # not a leaf: ReLU may work in place
        y, *index = y if isinstance(y, tuple) else (y,)
        y.backward(random_like(y, 2))
        results.append([y.detach(), *index, x.grad, *(p.grad for p in module.parameters())])
    limit = 1e-7 if name == "Hardsigmoid" else EXACT  # PyTorch's slope there is 1/6 in float32, also in float64
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= limit


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_output_size(axes: int, device: str) -> None:
    """Of the images that a stride of 3 leads to one size the one that is asked for; no other."""
    x = random_like(torch.empty(2, 3, *[4] * axes, dtype=torch.float64, device=device))
    ours, torchs = both(f"ConvTranspose{axes}d", 3, 2, 2, stride=3, padding=1)
    for size in ([9, 10, 11][:axes], [2, 2, *[11] * axes]):
        a, b = (module.to(device, torch.float64)(x, size) for module in (ours, torchs))
        assert list(a.shape[2:]) == size[-axes:]
        assert distance(a, b) <= EXACT
    with pytest.raises(ValueError, match="output size"):
        ours(x, [12] * axes)


def test_max_unpool(device: str) -> None:
    """It takes the positions too, so it does not fit into the table."""
    (pool, unpool), (torchs_pool, torchs_unpool) = (
        (layers.MaxPool2d(3, 2, return_indices=True), layers.MaxUnpool2d(3, 2)) for layers in (manualbp.nn, torch.nn)
    )
    assert isinstance(unpool, torch.nn.MaxUnpool2d)
    assert repr(unpool) == repr(torchs_unpool)
    results = []
    for down, up in ((pool, unpool), (torchs_pool, torchs_unpool)):
        x = random_like(torch.empty(2, 3, 8, 7, dtype=torch.float64, device=device)).requires_grad_()
        y = up(*down(x), output_size=x.shape)
        y.backward(random_like(y))
        results.append([y.detach(), x.grad])
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


@pytest.mark.parametrize(("name", "kwargs"), LOSSES)
def test_losses(name: str, kwargs: Any, device: str) -> None:
    ours, torchs = (loss.to(device) for loss in both(name, **kwargs))
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(torchs)
    z = random_like(torch.empty(6, 4, dtype=torch.float64, device=device))
    classes = name in ("CrossEntropyLoss", "NLLLoss")
    t = torch.tensor([0, 1, 2, 3, 0, 2], device=device) if classes else random_like(z, 3)
    results = []
    for loss in (ours, torchs):
        x = z.clone().requires_grad_()
        l = loss(x, t)
        l.sum().backward()
        results.append([l.detach(), x.grad])
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


@every_module
def test_copies_and_pickles(name: str, args: Any, kwargs: Any, shape: Any) -> None:
    module = make(manualbp.nn, name, *args, **kwargs)
    x = torch.randn(shape)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module)
        torch.manual_seed(1)
        a = module(x.clone())
        torch.manual_seed(1)
        b = other(x.clone())
        assert torch.equal(a[0] if isinstance(a, tuple) else a, b[0] if isinstance(b, tuple) else b)


def network(layers: ModuleType) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        layers.Conv2d(3, 8, 5, padding=2),
        layers.Sigmoid(),
        layers.MaxPool2d(2),
        layers.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"),
        layers.ReLU(),
        layers.AvgPool2d(3, 2, 1),
        torch.nn.Flatten(),
        layers.Linear(64, 10),
        layers.Tanh(),
        layers.Linear(10, 4),
    )


def losses(model: torch.nn.Module, layers: ModuleType, steps: int, device: str, compiled: bool = False) -> list[float]:
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion = layers.CrossEntropyLoss()
    forward = torch.compile(model, fullgraph=True) if compiled else model
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 3, 8, 8, generator=generator).to(device)
    t = torch.randint(4, (32,), generator=generator).to(device)
    seen = []
    for _ in range(steps):
        loss = criterion(forward(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


def test_a_network_trains_alike(device: str) -> None:
    ours = losses(network(manualbp.nn), manualbp.nn, 50, device)
    torchs = losses(network(torch.nn), torch.nn, 50, device)
    assert ours[-1] < 0.9 * ours[0]
    assert ours == pytest.approx(torchs, rel=1e-3)


def test_a_compiled_network_trains_alike(device: str) -> None:
    """The default backend, one graph."""
    torch._dynamo.reset()
    compiled = losses(network(manualbp.nn), manualbp.nn, 5, device, compiled=True)
    assert compiled == pytest.approx(losses(network(torch.nn), torch.nn, 5, device), rel=1e-4)


def test_a_whole_step_dispatches_no_backward_of_pytorch(device: str) -> None:
    model = network(manualbp.nn).to(device)
    x, t = torch.randn(2, 3, 8, 8, device=device), torch.tensor([0, 3], device=device)
    loss: Tensor = manualbp.nn.CrossEntropyLoss()(model(x), t)
    with Recorder() as recorder:
        loss.backward()
    assert [name for name in recorder.names if "_backward" in name] == []
    assert len(recorder.names) > 20


def test_checkpointing_gives_the_same_gradients(device: str) -> None:
    from torch.utils.checkpoint import checkpoint_sequential

    model, x = network(manualbp.nn).to(device, torch.float64), torch.randn(2, 3, 8, 8, device=device).double()
    x.requires_grad_()
    gradients = []
    for y in (model(x), checkpoint_sequential(model, 3, x, use_reentrant=False)):
        gradients.append(torch.autograd.grad(y.square().sum(), list(model.parameters())))
    for a, b in zip(*gradients, strict=True):
        assert distance(a, b) <= EXACT
