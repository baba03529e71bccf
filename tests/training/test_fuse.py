"""Training with --fuse: the same losses, checkpoints that load both ways, and a check of what trains."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from manualbp.fuse import steps
from manualbp.training.cli import main
from tests.training import files
from tests.training.runs import LAST, TRAIN, load, scalars
from tests.training.test_check import WrongSlope
from tests.training.test_devices import TWO

RESNET = ["--data", "folder", "--data-dir", "tree", "--lr", "0.01", "--network", "resnet18", "--stem", "3x3"]


def losses(run: str) -> list[float]:
    (folder,) = Path(run).glob("*/version_0")
    return scalars(folder, "train_loss_step")


@pytest.mark.parametrize(
    ("options", "steps"),
    [([], 11), (["--network", "block"], 11), ([*RESNET, "--batch-size", "3"], 2)],
    ids=["lecture004", "block", "resnet18"],
)
def test_the_losses_are_those_of_a_run_apart(
    options: list[str], steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.tree(tmp_path / "tree", size=(16, 16))
    options = [*options, "--precision", "64-true", "--epochs", "1"]
    assert main([*options, "--output-dir", "apart"]) == 0
    assert "fused" not in capsys.readouterr().out
    assert main([*options, "--output-dir", "fused", "--fuse"]) == 0
    printed = capsys.readouterr().out
    (places,) = re.findall(r"gradients by hand, fused in (\d+) places, 1 epochs", printed)
    assert int(places) > 20 if "resnet18" in options else int(places) == 2
    assert "CrossEntropyLoss, the fused network ok" in printed
    a, b = losses("apart"), losses("fused")
    assert len(a) == steps
    assert max(abs(p - q) for p, q in zip(a, b, strict=True)) < 1e-6


def test_checkpoints_load_both_ways(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--fuse is kept for a resumed run, and may change; older checkpoints know nothing of it."""
    state = load(finished / "last.ckpt")
    del state["run"]["options"]["fuse"]
    torch.save(state, "older.ckpt")
    assert main(["--resume", "older.ckpt", "--epochs", "2", "--fuse"]) == 0
    state = load(LAST)
    assert state["run"]["options"]["fuse"] is True
    assert state["state_dict"].keys() == load(finished / "last.ckpt")["state_dict"].keys()
    capsys.readouterr()
    for options, expected in (([], True), (["--no-fuse"], False), (["--no-fuse", "--backward", "torch"], False)):
        assert main(["--resume", str(LAST), "--epochs", "3", *options]) == 0
        assert ("fused in 2 places" in capsys.readouterr().out) == expected
    assert main(["--resume", str(LAST), "--epochs", "3", "--backward", "torch"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--fuse" in error
    assert "--no-fuse" in error


def test_in_bfloat16() -> None:
    assert main(["--epochs", "1", "--fuse", "--precision", "bf16-mixed"]) == 0


def test_in_mixed_precision_with_batch_normalisation(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree", mode="L", size=(16, 16))
    for run, option in (("apart", "--no-fuse"), ("fused", "--fuse")):
        options = ["--precision", "bf16-mixed", "--batch-size", "3", "--epochs", "1", "--output-dir", run, option]
        assert main([*RESNET, *options]) == 0
    assert losses("fused") == pytest.approx(losses("apart"), rel=0.1)


def test_two_processes(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree", size=(16, 16))
    options = [*RESNET, "--batch-size", "3", "--epochs", "1", "--fuse", *TWO]
    result = subprocess.run([sys.executable, str(TRAIN), *options], capture_output=True, text=True, timeout=200)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(re.findall(r"fused in \d\d places", result.stdout)) == 1
    assert result.stdout.count("the fused network ok") == 1


def test_a_network_without_such_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "1", "--network", "mlp", "--fuse"]) == 0
    printed = capsys.readouterr().out
    assert "fused in 0 places" in printed
    assert "the fused network" not in printed


def wrong_pool(pool: torch.nn.Module, x: Tensor, *_: Any) -> Any:
    return WrongSlope.apply(pool(x))


def test_a_wrong_backward_is_not_trained_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each layer is right; what runs in place of two is not."""
    monkeypatch.setattr(steps, "activated_pool", wrong_pool)
    assert main(["--epochs", "1"]) == 0
    assert main(["--epochs", "1", "--fuse", "--output-dir", "fused"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "audit: the fused network's gradient of g1.weight is not that of its layers apart" in error
    assert not [path for path in Path("fused").rglob("*") if path.is_file()]
