import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from manualbp.training import figures
from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.options import build_parser
from tests.training import files
from tests.training.runs import LAST, PRODUCTS, RUN, TRAIN, column, load, rows, same_weights, scalars


def test_train_py_makes_everything_in_one_new_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(TRAIN), "--epochs", "1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder = tmp_path / RUN
    found = {path.name for path in folder.iterdir()}
    assert found >= PRODUCTS
    assert any(name.startswith("events.out.tfevents") for name in found - PRODUCTS)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert len(lines) < 8, result.stdout
    assert any("audit: Conv2d" in line and "CrossEntropyLoss ok" in line for line in lines)
    assert lines[-1].startswith("test accuracy ")
    assert lines[-1].endswith(f"in {RUN}")
    for name in ("curves", "confusion", "filters", "mistakes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200


def test_a_run_overwrites_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    assert main(["--epochs", "1", "--output-dir", str(finished.parents[1])]) == 0
    assert {path: path.read_bytes() for path in finished.iterdir()} == before
    assert (finished.parent / "version_1" / "last.ckpt").exists()


def test_config_of_a_run_repeats_it(finished: Path) -> None:
    assert main(["--config", str(finished / "config.yaml"), "--output-dir", "runs"]) == 0
    assert same_weights(LAST, finished / "last.ckpt")
    first, second = (path.joinpath("config.yaml").read_text().splitlines() for path in (finished, RUN))
    assert [line for line in first if "output" not in line] == [line for line in second if "output" not in line]


def test_help_tells_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    options = {option for action in build_parser()._actions for option in action.option_strings}
    assert {"--data", "--resume", "--backward", "--output-dir"} <= options
    assert all(option in text for option in options)
    assert max(map(len, text.splitlines())) <= 100


CALTECH = ("--data", "caltech101", "--data-dir", "caltech", "--batch-size", "8", "--lr", "0.01")


@pytest.mark.parametrize(
    ("network", "steps", "fall", "arguments"),
    [
        ("lecture004", 55, 0.1, ()),
        ("lecture004", 55, 0, ("--activation", "relu", "--pooling", "avg", "--lr", "0.01")),
        ("block", 55, 0.1, ("--lr", "0.05")),
        ("mlp", 55, 0.1, ("--activation", "tanh")),
        ("caltech", 35, 0, CALTECH),
    ],
)
def test_backwards_agree(network: str, steps: int, fall: float, arguments: tuple[str, ...], tmp_path: Path) -> None:
    files.caltech101(tmp_path / "caltech")
    losses = []
    for backward in ("manualbp", "torch"):
        options = ["--epochs", "5", "--backward", backward, "--output-dir", backward, "--network", network]
        assert main([*options, *arguments]) == 0
        (folder,) = Path(backward).glob("*/version_0")
        losses.append(scalars(folder, "train_loss_step"))
    assert len(losses[0]) == steps
    assert sum(losses[0][-5:]) < sum(losses[0][:5]) - 5 * fall
    apart = [abs(a - b) for a, b in zip(*losses, strict=True)]
    assert max(apart[:20]) < 1e-3  # then training itself takes what is rounded apart: tenfold in ten steps of `block`
    assert abs(sum(losses[0][-5:]) - sum(losses[1][-5:])) < 5e-2


def test_digits_are_learned() -> None:
    assert main([]) == 0
    (accuracy,) = column(RUN, "test_accuracy")
    assert accuracy >= 0.97


LINE = re.compile(r"epoch (\d+)/3: loss (\d\.\d{4}), val accuracy ([\d.]+) %, ([\d.]+) s, ([\d,]+) images/s")


def test_an_epoch_is_a_row_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "3", "--lr", "0.05"]) == 0
    table = rows(RUN)
    assert list(table[0]) == [
        *("epoch", "step", "lr", "seconds", "images_per_second"),
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"),
    ]
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "11"), ("2", "22"), ("3", "33")]
    lines = LINE.findall(capsys.readouterr().out)
    history = load(LAST)["run"]["history"]
    for row, kept, (epoch, loss, accuracy, seconds, speed) in zip(table, history, lines, strict=True):
        assert {name: float(row[name]) for name in kept} == kept
        assert (row["epoch"], f"{float(row['train_loss']):.4f}") == (epoch, loss)
        assert f"{100 * float(row['val_accuracy']):.1f}" == accuracy
        assert f"{float(row['seconds']):.1f}" == seconds
        assert f"{float(row['images_per_second']):,.0f}" == speed
        assert float(row["images_per_second"]) * float(row["seconds"]) == pytest.approx(1294)
    assert 0.05 > float(table[0]["lr"]) > float(table[1]["lr"]) > float(table[2]["lr"]) > 0
    for name in ("lr", "seconds", "images_per_second"):
        assert scalars(RUN, name) == pytest.approx(column(RUN, name))


def test_the_test_stands_in_the_row_of_its_epoch(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three epochs, the first of another run, the second is the best."""
    steps = Classifier.validation_step

    def worse(model: Classifier, *arguments: Any) -> None:
        steps(model, *arguments)
        if model.current_epoch == 2:
            model.val_loss(torch.tensor(1000.0), 10000)

    monkeypatch.setattr(Classifier, "validation_step", worse)
    marked = []
    curves = figures.curves
    monkeypatch.setattr(figures, "curves", lambda *arguments: (marked.append(arguments[1]), curves(*arguments)))
    assert main(["--resume", str(finished / "last.ckpt"), "--epochs", "3", "--output-dir", "runs"]) == 0
    table = rows(RUN)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [bool(row["train_loss"]) for row in table] == [True, True, True]
    assert [bool(row["seconds"]) for row in table] == [False, True, True]
    assert [bool(row["test_accuracy"]) for row in table] == [False, True, False]
    assert marked == [2]


def test_a_terminal_has_a_bar_whose_epochs_count_from_1(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command, terminal = [sys.executable, str(TRAIN), "--epochs", "2"], {"TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env=os.environ | terminal)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed
        while part := os.read(ours, 4096):
            shown += part
    assert process.wait() == 0
    text = shown.decode()
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "Epoch" not in text
    assert "images/s" not in text


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimizers(optimizer: str) -> None:
    assert main(["--epochs", "1", "--optimizer", optimizer]) == 0


@pytest.mark.parametrize("backward", ["manualbp", "torch"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(precision: str, backward: str) -> None:
    assert main(["--epochs", "1", "--precision", precision, "--backward", backward]) == 0


def test_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files.cifar10(tmp_path / "cifar", monkeypatch)
    files.caltech101(tmp_path / "caltech")
    files.tree(tmp_path / "tree")
    for data, where in (("cifar10", "cifar"), ("caltech101", "caltech"), ("folder", "tree")):
        assert main(["--data", data, "--data-dir", where, "--epochs", "1"]) == 0
    assert "test mean accuracy of the classes" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Glyph")  # DejaVu has no Chinese
def test_data_as_people_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names in other letters, images of other kinds, no test/, validation images of their own; then resumed."""
    for part, n in (("data", 5), ("val", 1), ("later", 2)):
        for name in ("Bär", "$猫_$"):
            for i in range(n):
                files.image(tmp_path / part / name / f"größe {i}.png", i, "RGBA" if i else "RGB")
    options = ["--data", "folder", "--val-dir", "val", "--split", "0.4", "--lr", "0.01"]
    assert main([*options, "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("folder: no data/test: 4 of 10 images are set apart for the test\n") == 1
    assert out.count("folder: converted 8 RGBA to colour\n") == 1
    assert "folder: 6 training, 2 validation, 4 test images of 3 x 8 x 8, 2 classes\n" in out
    folder = Path("runs/folder-lecture004/version_0")
    assert {path.name for path in folder.iterdir()} >= PRODUCTS
    assert load(folder / "last.ckpt")["run"]["classes"] == ["$猫_$", "Bär"]
    assert main(["--resume", str(folder / "last.ckpt"), "--epochs", "2", "--val-dir", "later"]) == 0
    assert "6 training, 4 validation, 4 test" in capsys.readouterr().out


def test_without_validation_the_last_checkpoint_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "adamw", "--weight-decay", "0.3", "--validation", "0"]
    assert main(["--epochs", "1", *options]) == 0
    assert "1,438 training, 0 validation, 359 test" in capsys.readouterr().out
    assert {path.name for path in RUN.iterdir()} >= PRODUCTS - {"best.ckpt"}
    assert not (RUN / "best.ckpt").exists()
    assert load(LAST)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.3
    assert main(["--resume", str(LAST), "--epochs", "2"]) == 0
    history = load(RUN.with_name("version_1") / "last.ckpt")["run"]["history"]
    assert [set(figures) for figures in history] == [{"train_loss", "train_accuracy"}] * 2
    for option, value in (("--validation", "0.1"), ("--weight-decay", "0.1")):
        assert main(["--resume", str(LAST), "--epochs", "2", option, value]) == 2
        assert f"{option}: {value}" in capsys.readouterr().err
