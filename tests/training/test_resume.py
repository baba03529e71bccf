"""A run that was ended goes on, from its last.ckpt, to the same weights."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.progress import EventFile
from tests.training import files
from tests.training.runs import LAST, PRODUCTS, TRAIN, load, refused, rows, same_weights, scalars


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.tree(tmp_path / "tree")  # in colour: shifted, mirrored
    options = ["--data", "folder", "--data-dir", "tree", "--batch-size", "1", "--epochs", "60", "--lr", "0.02"]
    name = "folder-lecture004/version_0"
    command = [sys.executable, str(TRAIN), *options, "--output-dir", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    last = tmp_path / "killed" / name / "last.ckpt"
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = len(load(last)["run"]["history"])
    assert 1 <= done < 60
    assert done <= len(rows(last.parent)) <= done + 1
    kept = last.read_bytes()

    assert main([*options, "--output-dir", "unbroken"]) == 0
    assert main(["--resume", str(last), "--output-dir", "resumed"]) == 0
    unbroken, resumed = (tmp_path / where / name for where in ("unbroken", "resumed"))
    for file in ("last.ckpt", "best.ckpt"):
        assert same_weights(unbroken / file, resumed / file)
    a, b = load(unbroken / "last.ckpt"), load(resumed / "last.ckpt")
    torch.testing.assert_close(a["optimizer_states"], b["optimizer_states"], rtol=0, atol=0)
    assert a["run"]["history"] == b["run"]["history"]
    assert len(b["run"]["history"]) == 60
    assert last.read_bytes() == kept
    assert {path.name for path in resumed.iterdir()} >= PRODUCTS


def test_kinds_are_kept_and_cannot_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "1", "--network", "block", "--activation", "tanh"]) == 0
    last = "runs/digits-block/version_0/last.ckpt"
    assert main(["--resume", last, "--epochs", "2"]) == 0
    assert "Tanh" in capsys.readouterr().out
    assert main(["--resume", last, "--epochs", "2", "--activation", "relu"]) == 2
    assert "--activation: relu" in capsys.readouterr().err


def test_a_run_is_made_longer(finished: Path) -> None:
    assert main(["--resume", str(finished / "last.ckpt"), "--epochs", "2", "--output-dir", "runs"]) == 0
    assert len(load(LAST)["run"]["history"]) == 2


def test_the_other_backward_goes_on(finished: Path) -> None:
    arguments = ["--resume", str(finished / "last.ckpt"), "--epochs", "2", "--backward", "torch"]
    assert main([*arguments, "--output-dir", "runs"]) == 0


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(model: Classifier) -> None:
        if model.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "on_train_epoch_start", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(["--epochs", "3"]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning has ignore further interrupts
    error = capsys.readouterr().err.strip()
    assert error == f"train.py: interrupted; go on with: train.py --resume {LAST}"
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({}, ["--optimizer", "adam"], ["--optimizer", "adam", "sgd"]),
        ({}, ["--data", "folder"], ["--data", "folder", "digits"]),
        ({}, ["--split", "0.3"], ["--split", "0.3", "the default"]),
        ({}, ["--val-dir", "val"], ["--val-dir", "val", "the default"]),
        ({"epoch": 5}, [], ["--epochs", "1", "6 behind"]),
        ({"shape": [1, 9, 9]}, [], ["--resume", "shape", "1, 9, 9", "1, 8, 8"]),
        ({"classes": ["cat", "dog"]}, [], ["--resume", "classes", "cat, dog", "0, 1"]),
        ({"state_dict": {"network.other": torch.zeros(2)}}, [], ["--resume", "another network"]),
    ],
)
def test_checkpoint_of_something_else(
    finished: Path,
    change: dict[str, object],
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    checkpoint = load(finished / "last.ckpt")
    for name, value in change.items():
        (checkpoint if name in checkpoint else checkpoint["run"])[name] = value
    torch.save(checkpoint, "changed.ckpt")
    assert main(["--resume", "changed.ckpt", *arguments]) == 2
    refused(capfd, ["changed.ckpt", *words])
    assert not (tmp_path / "runs").exists()


def test_truncated_checkpoint(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("part.ckpt").write_bytes((finished / "last.ckpt").read_bytes()[:-1000])
    assert main(["--resume", "part.ckpt"]) == 2
    refused(capfd, ["part.ckpt", "damaged"])


class Interrupted(threading.Condition):
    """An interrupt comes when its lock is locked, and before `with` knows."""

    def __enter__(self) -> bool:
        locked = super().__enter__()
        signal.raise_signal(signal.SIGINT)
        return locked


def test_an_interrupt_leaves_the_queue_of_the_event_file_unlocked(tmp_path: Path) -> None:
    """Else the end of the run would wait for it without an end, and interrupts are ignored by then."""
    logger = EventFile(tmp_path, "events", "run")
    Path(logger.log_dir).mkdir(parents=True)
    logger.log_metrics({"a": 1.0}, 0)
    queue = logger.experiment._get_file_writer().event_writer._async_writer._byte_queue
    free = queue.not_full
    queue.not_full = Interrupted(queue.mutex)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"a": 2.0}, 1)
    queue.not_full = free
    end = threading.Thread(target=logger.finalize, args=("failed",), daemon=True)
    end.start()
    end.join(10)
    assert not end.is_alive()
    assert scalars(Path(logger.log_dir), "a") == [1, 2]
