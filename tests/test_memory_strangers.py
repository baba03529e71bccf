"""memory on models that are not ours: what is kept otherwise than as a saved tensor, and any input and output."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torchvision.models import detection, segmentation, video

import manualbp
from manualbp.graph import tensors_in
from tests.test_memory import FLOAT, numbers, why

ROWS, COLUMNS = 6, 10
ONE = ROWS * COLUMNS * FLOAT  # bytes of an image of Linear(COLUMNS, COLUMNS)


class Slots:
    """An object without a __dict__."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass
class Held:
    """What may be kept, or returned, in a dataclass."""

    held: Any


class Keeps(torch.autograd.Function):
    """A Function that leaves `make(x)` on its ctx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, make: Any) -> Tensor:
        ctx.left = make(x)
        return x * 1

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return delta, None


class Between(nn.Module):
    """`f` of what a layer gave, before another layer (whose input counts, then) reads it."""

    def __init__(self, f: Any) -> None:
        super().__init__()
        self.first, self.last, self.f = nn.Linear(COLUMNS, COLUMNS), nn.Linear(COLUMNS, COLUMNS), f
        self.constant = torch.rand(ROWS, COLUMNS)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.f(self, self.first(x)))


def keeps(make: Any) -> Any:
    return lambda model, x: Keeps.apply(x, make)


def closing_over(t: Tensor) -> Any:
    return lambda: t


def with_graph(x: Tensor) -> Tensor:
    with torch.enable_grad():
        return torch.zeros(ROWS, COLUMNS, requires_grad=True).exp().sin()


def packed(model: nn.Module, x: Tensor) -> Tensor:
    with saved_tensors_hooks(lambda t: [t.half()], lambda held: held[0].float()):
        return x.sigmoid()


def on_a_view(model: nn.Module, x: Tensor) -> Tensor:
    y = x * 1
    y[:, : COLUMNS // 2].sigmoid_()
    return y


STATE = torch.get_rng_state().numel()
WAYS = [
    ("nothing", lambda model, x: x + 1, 0),
    ("an attribute", keeps(lambda x: x.exp()), ONE),
    ("a list in a dict in a tuple", keeps(lambda x: ({"a": [x.exp(), x > 0]},)), ONE + ONE // FLOAT),
    ("objects", keeps(lambda x: Slots(Held(x.exp()))), ONE),
    ("a storage twice", keeps(lambda x: [(y := x.exp()), y[0], {"again": y.T}]), ONE),
    ("the input", keeps(lambda x: x), ONE),
    ("a closure", keeps(lambda x: closing_over(x.exp())), ONE),
    ("a tensor with a graph", keeps(with_graph), 3 * ONE),  # the leaf, exp's output = sin's input, sin's output
    ("a sparse tensor", keeps(lambda x: torch.eye(5).to_sparse()), 5 * (FLOAT + 2 * 8)),
    ("a constant", lambda model, x: x * model.constant, 0),
    ("a constant on ctx", lambda model, x: Keeps.apply(x, lambda x: model.constant), 0),
    ("a parameter on ctx", lambda model, x: Keeps.apply(x, lambda x: model.last.weight), 0),
    ("a number", lambda model, x: x * 2, 8),
    ("a leaf", lambda model, x: x + torch.zeros(ROWS, COLUMNS, requires_grad=True), ONE),
    ("packed", packed, ONE // 2),
    ("in place on a view", on_a_view, 8),
    ("a checkpoint", lambda model, x: checkpoint(torch.sin, x, use_reentrant=False), ONE + STATE),
    ("a checkpoint of the old kind", lambda model, x: checkpoint(torch.sin, x, use_reentrant=True), ONE + STATE),
]


def left_allocated(model: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Bytes that a forward pass took from PyTorch's allocator and did not give back, and those of its output."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        y = model(*inputs)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(y)}
    return sum(event.self_cpu_memory_usage for event in profile.events()), sum(storages.values())


@pytest.mark.parametrize(("f", "expected"), [pytest.param(*way, id=name) for name, *way in WAYS])
def test_what_is_kept_otherwise_counts_too(f: Any, expected: int) -> None:
    model, x = Between(f), torch.randn(ROWS, COLUMNS)
    receipt = manualbp.memory(model, x)
    taken, output = left_allocated(model, x)
    read_by_last = ONE  # its input, which f made
    assert receipt.totals["pytorch"] == taken - output == read_by_last + expected


class Swish(nn.Module):
    """A module around a Function of one's own."""

    class Function(torch.autograd.Function):
        """Saves x as it should, and leaves a mask."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mask = x > 0
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return delta

    def forward(self, x: Tensor) -> Tensor:
        return self.Function.apply(x)


def test_the_receipt_names_the_function_and_its_module() -> None:
    receipt = manualbp.memory(nn.Sequential(nn.Linear(COLUMNS, 5), Swish()), torch.randn(ROWS, COLUMNS))
    assert numbers(receipt)["1"] == 3 * (ROWS * 5 * (FLOAT + 1),)
    assert why(receipt)["1"] == "Function: input; ctx.mask of Function: 6x5 bool, neither input nor output"
    assert {kept.holder for kept in receipt.rows[1].kept["fused"]} == {"Function", "ctx.mask of Function"}


class Embedded(nn.Module):
    """Integers in; a dataclass, None and a number out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, x: dict[str, Any], scale: float = 1.0) -> Any:
        return Held({"y": self.out(self.table(x["words"]).tanh() * scale)}), None, 3


class Complex(nn.Module):
    """Complex numbers out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.layer(x).tanh())


class Loss(nn.Module):
    """A loss of scores and targets, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layer(x), target)


IMAGES = [torch.rand(3, 48, 64), torch.rand(3, 56, 40)]
TARGETS = [{"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([1])} for _ in IMAGES]
BARE: Any = {"weights": None, "weights_backbone": None}
SMALL: Any = {**BARE, "min_size": 64, "max_size": 64}
STRANGERS = [
    (Embedded, ({"words": torch.randint(9, (2, 5)), "lengths": [5, 5]},)),
    (Complex, (torch.randn(2, 4),)),
    (lambda: nn.LSTM(4, 5, 2), (torch.randn(3, 2, 4),)),
    (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2), (torch.randn(3, 2, 8),)),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).bfloat16(), (torch.rand(2, 3, 8, 8).bfloat16(),)),
    (lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2)), (torch.randn(2, 3),)),
    (lambda: nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Sigmoid()), nn.Linear(3, 3)), (torch.randn(2, 3),)),
    (lambda: segmentation.lraspp_mobilenet_v3_large(**BARE), (torch.rand(2, 3, 64, 64),)),
    (lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**SMALL), (IMAGES, TARGETS)),
    (lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**SMALL).eval(), (IMAGES,)),
    (lambda: video.r3d_18(weights=None), (torch.rand(2, 3, 4, 16, 16),)),
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "inputs"), STRANGERS)
def test_models_of_strangers(make: Any, inputs: tuple[Any, ...]) -> None:
    """The sum is the allocator's; what is returned counts where it is also saved, and else not."""
    torch.manual_seed(0)
    model = make()
    receipt, state = manualbp.memory(model, *inputs), torch.get_rng_state()
    model(*inputs)  # lazy layers make their parameters
    torch.set_rng_state(state)
    taken, output = left_allocated(model, *inputs)
    assert taken - output <= receipt.totals["pytorch"] <= taken
    assert 0 < receipt.totals["fused"] <= 1.2 * receipt.totals["pytorch"]
    assert max(map(len, str(receipt).splitlines())) <= 100


def test_arguments_and_the_model_stay_as_they_are() -> None:
    x, target = torch.randn(2, 4), torch.tensor([0, 2])
    receipt = manualbp.memory(Loss(), x, target=target)
    assert receipt.input_bytes == 2 * 4 * FLOAT + 2 * 8
    model = nn.utils.weight_norm(nn.Linear(4, 3))
    model(x)  # its weight is no leaf now, and cannot be copied as it is
    before = model.weight
    assert manualbp.memory(model, x).totals["pytorch"] > 0
    assert model.weight is before


class Locked(nn.Module):
    """What cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = __import__("threading").Lock()


class Inner(nn.Module):
    """A gradient inside the forward, by torch.func."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda row: self.layer(row).sigmoid().sum()))(x)


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (nn.ReLU(), {"a": [3, None]}, TypeError, "memory: x is a dict; it must be a tensor, or hold tensors"),
        (nn.ReLU(), {"a": torch.ones(2, device="meta")}, ValueError, "memory: x is on the device meta"),
        (nn.Linear(2, 2, device="meta"), torch.ones(2), ValueError, "memory: model is on the device meta"),
        (Locked(), torch.ones(2), TypeError, "memory: model cannot be copied"),
        (Inner(), torch.ones(2, 3), ValueError, "memory: model uses torch.func inside"),
        (nn.Linear(2, 2).requires_grad_(False), torch.ones(2), ValueError, "no tensor that the model returns"),
    ],
)
def test_refused(model: nn.Module, x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        manualbp.memory(model, x)
