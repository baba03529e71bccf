"""memory: what each layer keeps, against numbers worked out on paper."""

import json

import pytest
import torch
import torch.nn.functional as T
import torchvision
from torch import Tensor, nn

import manualbp
from manualbp.training.networks import lecture004
from manualbp.training.vision import network_of
from tests.test_convert import Block, contents

FLOAT, INDEX = 4, 8  # bytes of float32, and of the index that PyTorch keeps for a window
PLACE = 1  # bytes of what the rule keeps for a window
AGAIN = "input, from which the rest is computed again; two to four numbers a map"


def numbers(receipt: manualbp.Receipt) -> dict[str, tuple[int, int, int]]:
    """Bytes (in PyTorch, by hand, fused) of each row."""
    return {row.path: (row.bytes("pytorch"), row.bytes("by_hand"), row.bytes("fused")) for row in receipt.rows}


def apart(*of_a_row: int) -> tuple[int, int, int]:
    """Those of a row that no other is taken together with."""
    *_, by_hand = of_a_row
    return of_a_row[0], by_hand, by_hand


def why(receipt: manualbp.Receipt) -> dict[str, str]:
    return {row.path: row.why for row in receipt.rows}


def test_the_network_of_lecture_004() -> None:
    """Two colour images of 32 x 32: eq. 4.1 with 32 and 64 maps, 256 units and ten classes.

    x 3 of 32x32 -> g1, f1: 32 of 32x32 -> pool1: 32 of 16x16 -> g2, f2: 64 of 16x16 -> pool2: 64 of 8x8 = 4096
      -> W1, f3: 256 -> W2: 10
    """
    receipt = manualbp.memory(lecture004(torch.nn, (3, 32, 32), 10), torch.randn(2, 3, 32, 32))
    f1, windows1, a1 = 2 * 32 * 32 * 32 * FLOAT, 2 * 32 * 16 * 16, 2 * 32 * 16 * 16 * FLOAT
    f2, windows2, a2 = 2 * 64 * 16 * 16 * FLOAT, 2 * 64 * 8 * 8, 2 * 4096 * FLOAT
    f3 = 2 * 256 * FLOAT
    (place,) = {kept.dtype for row in receipt.rows for kept in row.kept["fused"] if "int" in kept.dtype}
    place = getattr(torch, place).itemsize
    expected = {
        "g1": (0, 0, 0),  # x, for the kernel's gradient
        "f1": (f1, f1, 0),  # its output; fused: part of the pooling
        # The positions; in PyTorch f1's output, too; fused: also its own, which is that of both.
        "pool1": (windows1 * INDEX, windows1 * PLACE, windows1 * place + a1),
        "g2": (a1, a1, 0),  # pool1's output
        "f2": (f2, f2, 0),
        "pool2": (windows2 * INDEX, windows2 * PLACE, windows2 * place + a2),
        "W1": (a2, a2, 0),  # pool2's output
        "f3": apart(f3),
        "W2": (0, 0, 0),  # f3's output
    }
    assert numbers(receipt) == expected
    # 262,144 + 131,072 + 65,536 + 131,072 + 65,536 + 32,768 + 2,048
    assert receipt.totals["pytorch"] == 690_176
    assert receipt.totals["by_hand"] == 690_176 - (windows1 + windows2) * (INDEX - PLACE)
    assert receipt.totals["fused"] == 690_176 - f1 - f2 - (windows1 + windows2) * (INDEX - place)
    # 32*3*25 + 32, 64*32*25 + 64, 256*4096 + 256, 10*256 + 10 parameters
    assert receipt.model_bytes == (2_432 + 51_264 + 1_048_832 + 2_570) * FLOAT
    assert receipt.input_bytes == 2 * 3 * 32 * 32 * FLOAT
    reasons = why(receipt)
    assert reasons["g1"] == "input, for the weight's gradient (x itself)"
    assert reasons["f1"] == "nothing: it is part of another layer's step"
    assert set(reasons["pool1"].split("; ")) == {
        f"place of each maximum ({'int64' if place == INDEX else 'uint8'})",
        "pooled output: it tells the slope",
    }
    assert reasons["g2"] == "input, for the weight's gradient (counted at pool1)"
    assert reasons["W2"] == "input, for the weight's gradient (counted at f3)"


def left_allocated(model: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass took from PyTorch's allocator and did not give back, its output apart."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        y = model(x)
    return sum(event.self_cpu_memory_usage for event in profile.events()) - y.untyped_storage().nbytes()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_rows_sum_up_to_what_the_forward_pass_leaves_allocated(name: str) -> None:
    model, x = torchvision.models.get_model(name, weights=None), torch.randn(2, 3, 64, 64)
    receipt = manualbp.memory(model, x)
    assert receipt.totals["pytorch"] == sum(a for a, _, _ in numbers(receipt).values()) == left_allocated(model, x)
    manualbp.convert(model)
    assert receipt.totals["by_hand"] == sum(b for _, b, _ in numbers(receipt).values()) == left_allocated(model, x)
    assert manualbp.memory(model, x) == receipt  # a model that is converted already
    manualbp.fuse(model)
    assert receipt.totals["fused"] == sum(c for _, _, c in numbers(receipt).values()) == left_allocated(model, x)
    assert manualbp.memory(model, x) == receipt  # one that is fused already


def test_a_fused_residual_network() -> None:
    """Of eight images of 32 x 32, without the pooling at the beginning: what batch norm reads, and little else."""
    model = network_of("resnet18", (3, 32, 32), 10, "3x3")
    receipt = manualbp.memory(model, torch.randn(8, 3, 32, 32))
    assert receipt.totals["fused"] <= 0.6 * receipt.totals["pytorch"]
    image, maps = 8 * 64 * 32 * 32 * FLOAT, 64 * FLOAT
    fused = {path: c for path, (_, _, c) in numbers(receipt).items()}
    assert fused["layer1.0.bn1"] == image + 3 * maps  # mean, deviation, and s of s x + t
    assert fused["layer1.0.relu"] == image // 32  # behind the sum, a bit a number
    assert (fused["layer1.0.conv1"], fused["layer1.0.conv2"]) == (maps, maps)  # t
    reasons = why(receipt)
    assert reasons["layer1.0.conv2"] == "what its input is computed from again (in part counted at layer1.0.bn1)"
    assert reasons["layer1.0.relu"] == "a bit a number: what the slope is"
    assert reasons["layer2.0.conv1"].endswith(" and 3 more)")
    assert reasons["layer2.0.downsample.0"] == "nothing: it is part of another layer's step"  # of the same value


class Pooled(nn.Module):
    """Functions that are taken together with layers, or stand for several, in a module within a model."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.pool = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(T.sigmoid(self.conv(T.silu(self.norm(x)))))


def test_functions_of_a_fused_model() -> None:
    """They are no layers: a silu counts with the layer that it is taken together with."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Pooled())
    receipt = manualbp.memory(model, torch.randn(2, 3, 6, 6))
    image, maps, row = 2 * 4 * 6 * 6 * FLOAT, 4 * FLOAT, numbers(receipt)
    assert row["1"] == (2 * image, 2 * image, 0)  # silu's input, sigmoid's output
    assert row["1.norm"] == (image + 2 * maps, image + 2 * maps, image + 3 * maps)
    assert row["1.conv"] == (image, image, maps)  # the t of s x + t, which silu begins from
    reasons = why(receipt)
    assert reasons["1.conv"] == "what its input is computed from again (in part counted at 1.norm)"
    assert reasons["1"] == "nothing: it is part of another layer's step"
    steps = {kept.step for row in receipt.rows for kept in row.kept["fused"]}
    assert steps == {None, "normalised", "recorrelated", "activated_pool"}


def test_layers_that_are_not_fused() -> None:
    """A hook of the model's own keeps a layer apart, and what cannot be followed is left."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    x, image = torch.randn(2, 3, 5, 5), 2 * 4 * 5 * 5 * FLOAT
    assert numbers(manualbp.memory(model, x))["3"] == (0, 0, 4 * FLOAT)
    assert numbers(manualbp.memory(model, x))["2"][2] < image
    model[2].register_forward_hook(lambda *_: None)
    receipt = manualbp.memory(model, x)
    assert receipt.totals["fused"] == receipt.totals["by_hand"]
    assert all(row.kept["fused"] == row.kept["by_hand"] for row in receipt.rows)

    class Drawn(nn.Module):
        """What it does is decided in Python, by a number that it draws."""

        def forward(self, x: Tensor) -> Tensor:
            return x * (2 if float(torch.rand(())) < 0.5 else 3)

    drawn, x = nn.Sequential(nn.Linear(3, 3), Drawn()), torch.randn(2, 3)
    random = torch.get_rng_state()
    receipt = manualbp.memory(drawn, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert receipt.totals["fused"] == receipt.totals["by_hand"]


def test_only_what_the_gradients_that_are_asked_for_need() -> None:
    """Linear(8, 6), Linear(6, 4) on 5 rows: the weight's gradient needs the input, the input's the weight."""
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), torch.randn(5, 8)
    assert numbers(manualbp.memory(model, x)) == {"0": (0, 0, 0), "1": apart(5 * 6 * FLOAT)}
    model[0].requires_grad_(False)
    receipt = manualbp.memory(model, x)
    assert numbers(receipt) == {"0": (0, 0, 0), "1": apart(5 * 6 * FLOAT)}
    assert why(receipt)["0"] == "nothing: no gradient asked for needs it"
    assert why(manualbp.memory(model, x.requires_grad_()))["0"] == "only weight, there anyway"
    model[1].requires_grad_(False)
    assert why(manualbp.memory(model, x)) == dict.fromkeys("01", "only weight, there anyway")
    with pytest.raises(ValueError, match="no tensor that the model returns requires a gradient"):
        manualbp.memory(model, x.detach())


def test_linear_layers_keep_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2), nn.ReflectionPad2d(1), nn.AdaptiveAvgPool2d(1))
    receipt = manualbp.memory(model, torch.randn(2, 3, 8, 8))
    # The input of AvgPool2d is 2 * 4 * 8 * 8 numbers; that of the padding a quarter, that of the last one 6 x 6.
    expected = {"0": apart(0), "1": apart(2048, 0), "2": apart(512, 0), "3": apart(0)}
    assert numbers(receipt) == expected
    assert {row.why for row in receipt.rows[1:]} == {"nothing: linear, its factors are constants"}


class Shared(nn.Module):
    """Two layers that read one tensor, a layer that is called twice, and one whose result nobody reads.

    That one's output must go with it: it is kept by a node that it keeps itself, if the receipt is not careful.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f, self.unread = nn.Linear(3, 3), nn.Linear(3, 3), nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(x)
        self.unread(2 * y)
        return self.f(self.a(y) + self.b(y))


def test_a_tensor_counts_once() -> None:
    one = 2 * 3 * FLOAT
    receipt = manualbp.memory(Shared(), torch.randn(2, 3, requires_grad=True))
    assert numbers(receipt) == {"a": apart(0), "b": apart(0), "f": apart(2 * one), "unread": apart(0)}
    assert why(receipt)["b"] == "input, for the weight's gradient (counted at f)"
    assert why(receipt)["f"] == "output: it tells the slope"


def test_a_forward_of_its_own_and_a_layer_without_a_rule() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.RReLU(), nn.Dropout(), nn.ReLU(inplace=True))
    receipt = manualbp.memory(model, torch.randn(2, 3, 5, 5))
    image, reasons = 2 * 4 * 5 * 5 * FLOAT, why(receipt)
    assert {row.path: row.kind for row in receipt.rows}["1"] == "Block"
    assert numbers(receipt)["1"] == (image, image, 0)  # its ReLU's output
    assert reasons["1"] == "nothing: it is part of another layer's step"
    assert numbers(receipt)[""] == (0, 0, 25)  # fused, that counts for the model: a bit for each of 200 numbers
    assert reasons[""] == "a bit a number: what the slope is"
    assert numbers(receipt)["1.norm"] == apart(image + 2 * 4 * FLOAT)
    assert reasons["1.norm"] == "input, for its distance from the mean; mean and deviation"
    assert reasons["2"] == "PyTorch's own, manualbp has no RReLU: 2x4x5x5 float32, neither input nor output; input"
    assert reasons["3"] == "the noise"
    assert reasons["4"] == "output: it tells the slope"
    model.eval()
    assert why(manualbp.memory(model, torch.randn(2, 3, 5, 5)))["3"] == "nothing: it is part of another layer's step"


def test_model_input_and_random_state_stay_as_they_are() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Dropout().eval()
    )
    calls: list[bool] = []
    model[0].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    x = torch.randn(2, 3, 5, 5)
    before, state, x_before = contents(model), {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    random = torch.get_rng_state()
    with torch.no_grad():
        manualbp.memory(model, x)
    assert calls == [True, True, True]
    assert torch.equal(torch.get_rng_state(), random)
    assert contents(model) == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    assert x.grad is None
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model] == [1, 0, 0, 0, 0]


def test_the_table() -> None:
    model = nn.Sequential(nn.Linear(300, 200), nn.Sigmoid(), nn.Linear(200, 7))
    assert str(manualbp.memory(model, torch.randn(5, 300))).splitlines() == [
        "layer  kind     PyTorch   by hand   fused  kept, fused",
        "0      Linear         0         0       0  input, for the weight's gradient (x itself)",
        "1      Sigmoid    4,000     4,000   4,000  output: it tells the slope",
        "2      Linear         0*        0*      0* input, for the weight's gradient (counted at 1)",
        "total             4,000     4,000   4,000  by hand / PyTorch = 1.000, fused / PyTorch = 1.000",
        "",
        "Bytes. * keeps also what an earlier layer counts. In no sum, as they are there anyway: parameters",
        "and buffers (246,428), the input x (6,000).",
    ]


def test_as_json() -> None:
    receipt = manualbp.memory(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))
    read = json.loads(json.dumps(receipt.as_dict()))
    assert read["totals"] == {"pytorch": 24, "by_hand": 24, "fused": 24}
    assert (read["model_bytes"], read["input_bytes"]) == (48, 24)
    assert read["rows"][1] == {
        "path": "1",
        "kind": "ReLU",
        "kept": {
            way: [
                {"role": "output", "shape": [2, 3], "dtype": "float32", "bytes": 24}
                | dict.fromkeys(("counted_at", "step", "holder"))
            ]
            for way in ("pytorch", "by_hand", "fused")
        },
        "why": "output: it tells the slope",
        "bytes": {"pytorch": 24, "by_hand": 24, "fused": 24},
    }
    assert read["rows"][0]["kept"]["by_hand"][0]["counted_at"] == "x"


def test_refused() -> None:
    with pytest.raises(TypeError, match="memory: model is a function"):
        manualbp.memory(T.relu, torch.ones(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="memory: x is a list"):
        manualbp.memory(nn.ReLU(), [1.0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="device meta"):
        manualbp.memory(nn.ReLU(), torch.ones(2, device="meta", requires_grad=True))
    with manualbp.by_hand(), pytest.raises(ValueError, match=r"inside by_hand\(\)"):
        manualbp.memory(nn.ReLU(), torch.ones(2, requires_grad=True))
