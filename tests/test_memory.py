"""memory: what each layer keeps, against numbers worked out on paper; and its command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as T
import torchvision
from PIL import Image
from torch import Tensor, nn

import manualbp
import manualbp.nn
from manualbp.__main__ import main
from manualbp.memory import WHY
from manualbp.training.networks import lecture004
from tests.test_convert import Block, contents

FLOAT, INDEX = 4, 8  # bytes of float32, and of the index that PyTorch keeps for a window
PLACE = 8  # bytes of what the rule keeps for a window


def numbers(receipt: manualbp.Receipt) -> dict[str, tuple[int, int]]:
    """Bytes (in PyTorch, by hand) of each row."""
    return {row.path: (row.bytes("pytorch"), row.bytes("by_hand")) for row in receipt.rows}


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
    expected = {
        "g1": (0, 0),  # x, for the kernel's gradient
        "f1": (f1, f1),  # its output
        "pool1": (windows1 * INDEX, windows1 * PLACE),  # the positions; PyTorch: f1's output, too
        "g2": (a1, a1),  # pool1's output
        "f2": (f2, f2),
        "pool2": (windows2 * INDEX, windows2 * PLACE),
        "W1": (a2, a2),  # pool2's output
        "f3": (f3, f3),
        "W2": (0, 0),  # f3's output
    }
    assert numbers(receipt) == expected
    # 262,144 + 131,072 + 65,536 + 131,072 + 65,536 + 32,768 + 2,048
    assert receipt.totals["pytorch"] == 690_176
    assert receipt.totals["by_hand"] == 690_176 - (windows1 + windows2) * (INDEX - PLACE)
    # 32*3*25 + 32, 64*32*25 + 64, 256*4096 + 256, 10*256 + 10 parameters
    assert receipt.model_bytes == (2_432 + 51_264 + 1_048_832 + 2_570) * FLOAT
    assert receipt.input_bytes == 2 * 3 * 32 * 32 * FLOAT
    reasons = why(receipt)
    assert reasons["g1"] == "input, for the weight's gradient (x itself)"
    assert reasons["f1"] == "output: it tells the slope"
    assert reasons["pool1"].startswith("place of each maximum (")
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
    assert receipt.totals["pytorch"] == sum(a for a, _ in numbers(receipt).values()) == left_allocated(model, x)
    manualbp.convert(model)
    assert receipt.totals["by_hand"] == sum(b for _, b in numbers(receipt).values()) == left_allocated(model, x)
    assert manualbp.memory(model, x) == receipt  # a model that is converted already


def test_only_what_the_gradients_that_are_asked_for_need() -> None:
    """Linear(8, 6), Linear(6, 4) on 5 rows: the weight's gradient needs the input, the input's the weight."""
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), torch.randn(5, 8)
    assert numbers(manualbp.memory(model, x)) == {"0": (0, 0), "1": (5 * 6 * FLOAT,) * 2}
    model[0].requires_grad_(False)
    receipt = manualbp.memory(model, x)
    assert numbers(receipt) == {"0": (0, 0), "1": (5 * 6 * FLOAT,) * 2}
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
    expected = {"0": (0, 0), "1": (2048, 0), "2": (512, 0), "3": (0, 0)}
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
    assert numbers(receipt) == {"a": (0, 0), "b": (0, 0), "f": (2 * one, 2 * one), "unread": (0, 0)}
    assert why(receipt)["b"] == "input, for the weight's gradient (counted at f)"
    assert why(receipt)["f"] == "output: it tells the slope"


def test_a_forward_of_its_own_and_a_layer_without_a_rule() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.CELU(), nn.Dropout(), nn.ReLU(inplace=True))
    receipt = manualbp.memory(model, torch.randn(2, 3, 5, 5))
    image, reasons = 2 * 4 * 5 * 5 * FLOAT, why(receipt)
    assert {row.path: row.kind for row in receipt.rows}["1"] == "Block"
    assert numbers(receipt)["1"] == (image, image)  # its ReLU's output
    assert reasons["1"] == "output"
    assert numbers(receipt)["1.norm"] == (image + 2 * 4 * FLOAT,) * 2
    assert reasons["1.norm"] == "input, for its distance from the mean; mean and deviation"
    assert reasons["2"] == "PyTorch's own, manualbp has no CELU: input (counted at 1)"
    assert reasons["3"] == "the noise"
    assert reasons["4"] == "a copy of the output: works in place"
    model.eval()
    assert why(manualbp.memory(model, torch.randn(2, 3, 5, 5)))["3"] == "nothing: it hands its input on"


def test_layers_that_torch_nn_lacks_are_by_hand_both_ways() -> None:
    receipt = manualbp.memory(manualbp.nn.TrueConv2d(3, 4, 3), torch.randn(2, 3, 5, 5, requires_grad=True))
    (row,) = receipt.rows
    assert numbers(receipt)[""] == (4 * 3 * 9 * FLOAT,) * 2
    assert row.why.startswith("by hand both ways: input, for the weight's gradient (x itself); the rotated kernel")


def test_every_reason_is_one_of_a_layer() -> None:
    assert set(WHY) <= set(manualbp.nn.__all__)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), "output: it tells the slope"),
        (nn.Hardtanh(inplace=True), "a copy of the output: works in place"),
        (nn.LeakyReLU(-0.1), "input: negative_slope is negative"),
        (nn.GELU(), "input: the output does not tell the slope"),
        (nn.ELU(inplace=True), "a copy of the input: works in place"),
        (nn.Softmax(1), "output: it tells the slope"),
        (nn.Dropout(inplace=True), "the noise"),
        (nn.BatchNorm2d(4).eval(), "input, for its distance from the mean"),
        (nn.BatchNorm2d(4, affine=False).eval(), "only running_var, there anyway"),
        (nn.GroupNorm(2, 4), "input, for its distance from the mean; mean and deviation"),
        (nn.Upsample(scale_factor=2), "nothing: linear, its factors are constants"),
        (nn.ConvTranspose2d(4, 4, 3), "input, for the weight's gradient"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "a padded or cast copy of input or weight"),
        (nn.RReLU(), "PyTorch's own, manualbp has no RReLU: 2x4x8x8 float32, neither input nor output; input"),
    ],
)  # fmt: skip
def test_reasons(layer: nn.Module, expected: str) -> None:
    """Behind a convolution, whose output nobody keeps but this layer."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), layer)
    assert why(manualbp.memory(model, torch.rand(2, 4, 8, 8)))["1"] == expected


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
    assert calls == [True, True]
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
        "layer  kind     PyTorch   by hand  kept by hand",
        "0      Linear         0         0  input, for the weight's gradient (x itself)",
        "1      Sigmoid    4,000     4,000  output: it tells the slope",
        "2      Linear         0*        0* input, for the weight's gradient (counted at 1)",
        "total             4,000     4,000  by hand / PyTorch = 1.000",
        "",
        "Bytes. * keeps also what an earlier layer counts. In no sum, as they are there anyway: parameters and buffers "
        "(246,428), the input x (6,000).",
    ]


def test_as_json() -> None:
    receipt = manualbp.memory(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))
    read = json.loads(json.dumps(receipt.as_dict()))
    assert read["totals"] == {"pytorch": 24, "by_hand": 24}
    assert (read["model_bytes"], read["input_bytes"]) == (48, 24)
    assert read["rows"][1] == {
        "path": "1",
        "kind": "ReLU",
        "kept": {
            way: [{"role": "output", "shape": [2, 3], "dtype": "float32", "bytes": 24, "counted_at": None}]
            for way in ("pytorch", "by_hand")
        },
        "why": "output: it tells the slope",
        "bytes": {"pytorch": 24, "by_hand": 24},
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


MODEL = """
from torch import nn
def network():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())
double = network().double()
def broken():
    raise RuntimeError("no way")
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module named receipt_model in it."""
    (tmp_path / "receipt_model.py").write_text(MODEL)
    (tmp_path / "old.png").write_text("old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_command_line(here: Path) -> None:
    files = ["--json", "new.json", "--plot", "new.png"]
    command = [sys.executable, "-m", "manualbp", "memory", "receipt_model:network", "--input", "2x3", *files]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout.splitlines()[3].split()[:3] == ["total", "24", "24"]
    assert json.loads((here / "new.json").read_text())["totals"] == {"pytorch": 24, "by_hand": 24}
    with Image.open(here / "new.png") as picture:
        assert picture.size[0] == 1350
        assert picture.size[1] > 250
        assert picture.convert("L").getextrema() == (0, 255)


def test_a_module_in_float64(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "receipt_model:double", "--input", "2x3"]) == 0
    assert "the input x (48)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "COMMAND"),
        ("receipt", "invalid choice: 'receipt'"),
        ("memory receipt_model:network", "required: --input"),
        ("memory receipt_model:network --input 2xx3", "argument --input: '2xx3': it must be positive numbers"),
        ("memory receipt_model:network --input 0x3", "argument --input: '0x3'"),
        ("memory receipt_model --input 2x3", "MODULE:NAME: receipt_model: it must be as torchvision.models:resnet18"),
        ("memory receipt_nowhere:network --input 2x3", "receipt_nowhere cannot be imported"),
        ("memory receipt_model:nothing --input 2x3", "receipt_model has no nothing"),
        ("memory receipt_model:broken --input 2x3", "receipt_model:broken() fails: no way"),
        ("memory receipt_model:number --input 2x3", "is a int; it must be, or make, a Module"),
        ("memory receipt_model:network --input 2x4", "the model fails on an input of 2x4: "),
        ("memory torch.nn:ReLU --input 2x4", "no tensor that the model returns requires a gradient"),
        ("memory receipt_model:network --input 2x3 --plot old.png", "argument --plot: old.png exists already"),
        ("memory receipt_model:network --input 2x3 --json old.png", "argument --json: old.png exists already"),
        ("memory receipt_model:network --input 2x3 --json no/a.json", "argument --json: no is no folder"),
        ("memory receipt_model:network --input 2x3 --json a --plot a", "a is the file of --json, too"),
        ("memory receipt_model:network --input 2x3 --plot a.xyz", "argument --plot: a.xyz: it must end in one of"),
    ],
)
def test_what_the_user_can_mend(here: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("manualbp: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(path.name for path in here.iterdir() if path.is_file()) == ["old.png", "receipt_model.py"]
    assert (here / "old.png").read_text() == "old"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["memory", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert "torchvision.models:resnet18" in capsys.readouterr().out
