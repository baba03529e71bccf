"""What a run cannot write: one line, no half file, and the last good checkpoint is kept."""

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.whole import whole
from tests.training.runs import LAST, RUN, load, refused


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Half of it is written."""

    def save(checkpoint: object, file: io.BytesIO) -> None:
        file.write(b"half")

    def half(path: object, mode: str) -> object:
        return HalfFile(path, mode) if str(path).endswith(".ckpt.part") else open(path, mode)  # type: ignore

    patch.setattr("manualbp.training.callbacks.torch.save", save)
    patch.setattr("manualbp.training.whole.open", half, raising=False)


class HalfFile(io.FileIO):
    def write(self, content: object) -> int:
        super().write(b"h")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_picture(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("matplotlib.figure.Figure.savefig", full)


def full_table(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("manualbp.training.whole.os.replace", full)


def full_events(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)


def gone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder)


SPACE = "cannot be written (No space left on device)"
GONE = "cannot be written (No such file or directory)"
GO_ON = f"; go on with: train.py --resume {LAST}"


@pytest.mark.parametrize(
    ("change", "when", "words"),
    [
        (full_checkpoint, "on_train_epoch_start", [f"best.ckpt: {SPACE}", GO_ON]),
        (full_checkpoint, "on_train_epoch_end", [f"best.ckpt: {SPACE}", GO_ON]),
        (full_table, "on_train_epoch_start", [f"metrics.csv: {SPACE}", GO_ON]),
        (full_picture, "on_test_epoch_end", [f"curves.png: {SPACE}", GO_ON]),
        (full_events, "on_train_epoch_start", [f"{RUN}: TensorBoard's file cannot", GO_ON]),
        (gone, "on_train_epoch_start", [f"{RUN}: TensorBoard's file {GONE}"]),
        (gone, "on_train_epoch_end", [f"{RUN}/best.ckpt: {GONE}"]),
        (gone, "on_test_epoch_end", [f"{RUN}: TensorBoard's file {GONE}"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_written(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    when: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In the second epoch, or later."""
    hook = getattr(Classifier, when)
    changed = []

    def act(model: Classifier) -> None:
        hook(model)
        if model.current_epoch >= 1 and not changed:
            changed.append(True)
            change(RUN, monkeypatch)

    monkeypatch.setattr(Classifier, when, act)
    assert main(["--epochs", "2"]) == 2
    refused(capfd, words)
    assert not list(Path().rglob("*.part"))
    assert RUN.exists() is (change is not gone)
    if change is not gone:
        load(LAST)


def test_an_interrupt_leaves_no_half_file() -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not list(Path().iterdir())


def write_half() -> None:
    with whole("file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
