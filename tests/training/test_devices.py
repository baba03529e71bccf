"""Several processes, each with its share of every step: on a CPU, with gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.data import ImageData
from manualbp.training.networks import lecture004
from manualbp.training.sources import digits, folder
from tests.training import files
from tests.training.runs import LAST, TRAIN, column, load, scalars

TWO = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
TREE = ["--data", "folder", "--data-dir", "tree", "--batch-size", "2", "--lr", "0.01"]


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TRAIN), *arguments, *TWO]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def in_two(folder: Path, epochs: int, before: str, call: str) -> subprocess.CompletedProcess[str]:
    """train.py in two processes, with what is changed before: lines, and the call of `main` that ends them."""
    head = f"import sys\nsys.path.insert(0, {str(TRAIN.parent)!r})\nfrom manualbp.training.cli import main\n"
    script = folder / "changed.py"
    script.write_text(f"{head}{before}{call}\n")
    command = [sys.executable, str(script), "--epochs", str(epochs), *TWO]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_two_processes(tmp_path: Path) -> None:
    files.image(files.tree(tmp_path / "tree") / "test" / "b" / "odd.png")  # 5 images for the test
    older = tmp_path / "runs" / "folder-lecture004" / "version_0"
    older.mkdir(parents=True)  # the second process must not take it for the run's
    result = train(*TREE, "--epochs", "2")
    assert (result.returncode, result.stderr) == (0, "")
    run = older.with_name("version_1")
    found = {path.name for path in run.iterdir()}
    assert {"best.ckpt", "last.ckpt", "curves.png", "confusion.png", "filters.png", "metrics.csv"} <= found
    assert not list(older.iterdir())
    assert sorted(path.name for path in older.parent.iterdir()) == ["version_0", "version_1"]
    for words in ("on 2 devices", "audit: ", "epoch 2/2: ", "test accuracy"):
        assert result.stdout.count(words) == 1, result.stdout
    assert len(scalars(run, "train_loss_step")) == 2 * 2  # 6 images in batches of 2 x 2
    assert column(run, "epoch") == [1, 2]
    seconds, speed = (column(run, name) for name in ("seconds", "images_per_second"))
    assert [a * b for a, b in zip(seconds, speed, strict=True)] == pytest.approx([6, 6], rel=0.1)
    (accuracy,) = column(run, "test_accuracy")
    assert accuracy * 5 == pytest.approx(round(accuracy * 5), abs=1e-4)  # each image once

    # One process that tests the same checkpoint finds the same.
    data = ImageData(folder(tmp_path / "tree"), batch_size=2, seed=0)
    model = Classifier(
        lecture004(torch.nn, data.shape, 2), torch.nn.CrossEntropyLoss(), data, {"test_augmentation": "none"}
    )
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    (alone,) = trainer.test(model, data, ckpt_path=run / "best.ckpt", weights_only=True, verbose=False)
    assert alone["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert alone["test_loss"] == pytest.approx(column(run, "test_loss")[0], abs=1e-5)

    more = train("--resume", str(run / "last.ckpt"), "--epochs", "3")
    assert (more.returncode, more.stderr) == (0, "")
    resumed = load(run.with_name("version_2") / "last.ckpt")
    assert len(resumed["run"]["history"]) == 3


def test_two_processes_take_the_step_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Without batch normalisation and dropout; grey images of 7 x 7 are neither mirrored nor shifted."""
    files.tree(tmp_path / "tree", mode="L", size=(7, 7))
    options = [*TREE, "--network", "mlp", "--validation", "0", "--epochs", "2"]
    assert train(*options, "--output-dir", "two").returncode == 0
    assert main([*options, "--batch-size", "4", "--output-dir", "one", "--accelerator", "cpu", "--devices", "1"]) == 0
    two, one = (load(Path(run, "folder-mlp/version_0/last.ckpt")) for run in ("two", "one"))
    torch.testing.assert_close(two["state_dict"], one["state_dict"])
    assert two["run"]["history"][-1]["train_loss"] == pytest.approx(one["run"]["history"][-1]["train_loss"], rel=1e-4)


def test_two_processes_with_batch_normalisation(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree", size=(32, 32))
    result = train(*TREE, "--network", "resnet18", "--batch-size", "3", "--epochs", "1")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_fault_is_told_once(tmp_path: Path) -> None:
    """A layer that is wrong is found by both processes."""
    wrong = "import manualbp.nn\nfrom tests.training.test_check import Sigmoid\nmanualbp.nn.Sigmoid = Sigmoid\n"
    result = in_two(tmp_path, 1, wrong, "sys.exit(main())")
    assert result.returncode == 2
    assert result.stderr.count("the backward of Sigmoid is wrong") == 1
    assert result.stderr.count("\n") == 1
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def test_a_fault_of_the_first_alone_ends_both(tmp_path: Path) -> None:
    """The folder that it writes to is gone."""
    gone = (
        "import shutil\n"
        "from manualbp.training.callbacks import WholeFiles\n"
        "from manualbp.__main__ import leave\n"
        "save = WholeFiles.save_checkpoint\n"
        "def save_checkpoint(*arguments, **named):\n"
        "    shutil.rmtree('runs')\n"
        "    save(*arguments, **named)\n"
        "WholeFiles.save_checkpoint = save_checkpoint\n"
    )
    result = in_two(tmp_path, 3, gone, "leave(main())")
    assert result.returncode == 2
    assert "best.ckpt: cannot be written (No such file or directory)" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_interrupt_ends_both(tmp_path: Path) -> None:
    command = [sys.executable, str(TRAIN), "--epochs", "1000", *TWO]
    # A shell has what it starts in the background ignore interrupts, and that is inherited.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, handler)
    last = tmp_path / LAST
    deadline = time.monotonic() + 100
    while not last.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    try:
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.count("go on with: train.py --resume") == 1
    assert "Traceback" not in error


def test_shares_of_the_test_are_disjoint_and_whole(tmp_path: Path) -> None:
    data = ImageData(digits(tmp_path), 32, seed=0)
    shares = []
    for rank in range(3):
        trainer: Any = SimpleNamespace(world_size=3, global_rank=rank)
        data.trainer = trainer
        shares.append([i for batch in data.test_dataloader().batch_sampler for i in batch])  # pyright: ignore
    assert sorted(i for share in shares for i in share) == list(range(359))


def test_the_smallest_batch_is_the_last_of_an_epoch(tmp_path: Path) -> None:
    for batch_size, replicas in ((32, 1), (7, 2), (1294, 1), (647, 2), (2000, 1), (1293, 1)):
        data = ImageData(digits(tmp_path), batch_size, seed=0)
        trainer: Any = SimpleNamespace(world_size=replicas, global_rank=0)
        data.trainer = trainer
        loader: Any = data.train_dataloader()
        assert data.smallest_batch(replicas) == min(map(len, loader.batch_sampler))
