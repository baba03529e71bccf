"""python -m manualbp memory: what it prints and writes, and what it refuses in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from manualbp.__main__ import main

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
    assert result.stdout.splitlines()[3].split()[:4] == ["total", "24", "24", "24"]
    assert json.loads((here / "new.json").read_text())["totals"] == {"pytorch": 24, "by_hand": 24, "fused": 24}
    with Image.open(here / "new.png") as picture:
        assert picture.size[0] == 1350
        assert picture.size[1] > 250
        assert picture.convert("L").getextrema() == (0, 255)


def test_wide(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "deep_model.py").write_text(
        "from torch import nn\n"
        "def deep(m):\n"
        "    for name in ('reparametrised_token_mixer', 'blocks', 'stages_of_the_network', 'backbone'):\n"
        "        m = nn.Sequential(__import__('collections').OrderedDict([(name, m)]))\n"
        "    return m\n"
        "network = deep(nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 3)))\n"
    )
    path = "backbone.stages_of_the_network.blocks.reparametrised_token_mixer.1"
    assert main(["memory", "deep_model:network", "--input", "2x3"]) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert main(["memory", "deep_model:network", "--input", "2x3", "--wide"]) == 0
    wide = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow)) <= 100 < max(map(len, wide))
    assert any(line.endswith(f"input, for the weight's gradient (counted at {path})") for line in wide)
    short = next(line.split()[0] for line in narrow if "Sigmoid" in line)
    assert "..." in short
    assert short.endswith("_mixer.1")
    assert any(f"counted at {short})" in line for line in narrow)


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
