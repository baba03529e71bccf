"""Every fault that a user can mend: one line that names it, exit code 2, and nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper
from torchvision.datasets import CIFAR10

from manualbp.training import UserError, run
from manualbp.training.cli import main
from tests.training import files
from tests.training.runs import refused

FOLDER = ["--data", "folder", "--data-dir", "data"]
Make = Callable[[Path, pytest.MonkeyPatch], object]


def nothing(root: Path, patch: pytest.MonkeyPatch) -> None:
    """The data directory is not there."""


def truncated(root: Path, patch: pytest.MonkeyPatch) -> None:
    archive = files.cifar10(root, patch) / CIFAR10.filename
    archive.write_bytes(archive.read_bytes()[:-100])


def damaged_batch(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = files.cifar10(root, patch) / "made" / CIFAR10.base_folder
    shutil.move(folder, root)
    (root / CIFAR10.base_folder / "data_batch_3").write_bytes(b"")


def few(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.caltech101(root, per_category=30)


def unreadable(root: Path, patch: pytest.MonkeyPatch) -> None:
    path = files.tree(root) / "train" / "b" / "2.png"
    path.write_bytes(path.read_bytes()[:60])


def unreadable_test(root: Path, patch: pytest.MonkeyPatch) -> None:
    (files.tree(root) / "test" / "b" / "1.png").write_text("no image")


def twelve_unreadable(root: Path, patch: pytest.MonkeyPatch) -> None:
    for path in sorted(files.tree(root).rglob("*.png")):
        path.write_text("no image")


def unreadable_everywhere(root: Path, patch: pytest.MonkeyPatch) -> None:
    """In training, test and validation: without an end, without a head, and one of which not even the head is right."""
    validation(root, patch)
    for path in (root / "train" / "a" / "0.png", root.parent / "val" / "b" / "1.png"):
        path.write_bytes(path.read_bytes()[:60])
    (root / "test" / "a" / "1.png").write_text("no image")


def single_image(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.image(root / "a" / "0.png")
    files.image(root / "a" / "1.png")
    files.image(root / "b" / "0.png")


def capitals(root: Path, patch: pytest.MonkeyPatch) -> None:
    (files.tree(root) / "train").rename(root / "Train")


def no_classes(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.image(root / "train" / "0.png")
    (root / "train" / ".ipynb_checkpoints").mkdir()


def validation(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.tree(root)
    (files.tree(root.parent / "more", classes="ab") / "test").rename(root.parent / "val")


def validation_of_more(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.tree(root)
    (files.tree(root.parent / "more", classes="abcd") / "test").rename(root.parent / "val")


def empty_validation(root: Path, patch: pytest.MonkeyPatch) -> None:
    (files.tree(root).parent / "val" / "a").mkdir(parents=True)


def empty_class(root: Path, patch: pytest.MonkeyPatch) -> None:
    for part in ("train", "test"):
        (files.tree(root) / part / "nobody").mkdir()


def one_class(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.tree(root, classes="a")


def one_image(root: Path, patch: pytest.MonkeyPatch) -> None:
    for i in (1, 2, 3):
        (files.tree(root) / "train" / "b" / f"{i}.png").unlink()
    for i in (1, 2):
        (root / "train" / "b" / f"{i}.png").unlink()


def other_classes(root: Path, patch: pytest.MonkeyPatch) -> None:
    (files.tree(root) / "test" / "b").rename(root / "test" / "c")


def too_small(root: Path, patch: pytest.MonkeyPatch) -> None:
    files.tree(root, size=(3, 3))


def in_the_way(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root.parent / "file").write_text("")


def text(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root.parent / "notes.ckpt").write_text("no checkpoint")


def empty(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root.parent / "notes.ckpt").write_text("")


def weights_only(root: Path, patch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(3)}, root.parent / "notes.ckpt")


def config(content: str) -> Make:
    return lambda root, patch: (root.parent / "options.yaml").write_text(content)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (nothing, ["--data", "cifar10", "--data-dir", "data"], ["data", "CIFAR10", "no network", "--data-dir"]),
        (nothing, ["--data", "caltech101", "--data-dir", "data"], ["data", "Caltech101", "no network"]),
        (truncated, ["--data", "cifar10", "--data-dir", "data"], ["cifar-10-python.tar.gz", "truncated", "replace"]),
        (damaged_batch, ["--data", "cifar10", "--data-dir", "data"], ["cifar-10-batches-py", "damaged", "remove"]),
        (few, ["--data", "caltech101", "--data-dir", "data"], ["Faces", "30 images"]),
        (nothing, FOLDER, ["data: ", "no such folder", "--data-dir"]),
        (no_classes, FOLDER, ["data/train", "no folder in it for each class"]),
        (capitals, FOLDER, ["data/train", "no such folder", "beside Train, test"]),
        (single_image, FOLDER, ["data: ", "a single image of b", "data/test"]),
        (one_image, [*FOLDER, "--split", "0.3"], ["--split: 0.3", "data/test is there"]),
        (nothing, [*FOLDER, "--split", "0"], ["--split", "0"]),
        (nothing, [*FOLDER, "--split", "1"], ["--split", "1"]),
        (nothing, ["--split", "0.3"], ["--split: 0.3", "--data folder, not digits"]),
        (nothing, ["--data", "cifar10", "--val-dir", "val"], ["--val-dir: val", "--data folder, not cifar10"]),
        (validation, [*FOLDER, "--val-dir", "val", "--validation", "0.2"], ["--validation: 0.2", "--val-dir"]),
        (validation, [*FOLDER, "--val-dir", "none"], ["none: ", "no such folder", "--val-dir"]),
        (validation_of_more, [*FOLDER, "--val-dir", "val"], ["val: ", "without training images: c, d"]),
        (empty_validation, [*FOLDER, "--val-dir", "val"], ["val: ", "no image", "--val-dir"]),
        (unreadable, FOLDER, ["data/train/b/2.png", "not a readable image"]),
        (unreadable_test, FOLDER, ["data/test/b/1.png", "not a readable image"]),
        (
            unreadable_everywhere,
            [*FOLDER, "--val-dir", "val"],
            ["3 files", "data/train/a/0.png (", "data/test/a/1.png (no image", "val/b/1.png (", "repair or remove"],
        ),
        (twelve_unreadable, FOLDER, ["12 files", "train/a/0.png", "test/a/1.png", "and 2 more"]),
        (empty_class, FOLDER, ["data/train", "nobody", "add images"]),
        (one_class, FOLDER, ["data/train", "only one class"]),
        (one_image, FOLDER, ["class b", "1 training image"]),
        (other_classes, FOLDER, ["data/test", "without training images: c:"]),
        (too_small, FOLDER, ["lecture004", "3 x 3", "4 x 4"]),
        (in_the_way, ["--output-dir", "file"], ["--output-dir", "file/digits-lecture004", "Not a directory"]),
        (nothing, ["--data", "mnist"], ["--data", "mnist", "digits"]),
        (nothing, ["--network", "lecture005"], ["--network", "lecture005", "lecture004"]),
        (nothing, ["--network", "resnet81"], ["--network", "resnet81", "resnet18", "torchvision"]),
        (nothing, ["--network", "zzz"], ["--network", "zzz", "lecture004", "torchvision"]),
        (nothing, ["--network", "alexnet"], ["--network alexnet", "8 x 8", "too small"]),
        (nothing, ["--network", "resnet18", "--batch-size", "1293"], ["--batch-size", "single image", "resnet18"]),
        (nothing, ["--network", "resnet18", "--activation", "tanh"], ["--activation", "tanh", "resnet18"]),
        (nothing, ["--network", "vgg11", "--pooling", "avg"], ["--pooling", "avg", "vgg11"]),
        (nothing, ["--network", "vgg11", "--stem", "3x3"], ["--stem", "3x3", "vgg11", "wide_resnet"]),
        (nothing, ["--stem", "3x3"], ["--stem", "3x3", "lecture004", "wide_resnet"]),
        (nothing, ["--network", "resnet18", "--stem", "5x5"], ["--stem", "5x5", "3x3"]),
        (nothing, ["--network", "caltech"], ["--network caltech", "1 x 8 x 8", "1 x 83 x 83", "caltech101"]),
        (nothing, ["--network", "mlp", "--pooling", "max"], ["--pooling", "max", "mlp"]),
        (nothing, ["--network", "mlp", "--label-smoothing", "0.1"], ["--label-smoothing", "mlp"]),
        (nothing, ["--label-smoothing", "1"], ["--label-smoothing", "1"]),
        (nothing, ["--pooling", "sum"], ["--pooling", "sum", "avg"]),
        (nothing, ["--activation", "step"], ["--activation", "step", "tanh"]),
        (too_small, [*FOLDER, "--network", "block"], ["block", "3 x 3", "4 x 4"]),
        (nothing, ["--optimizer", "lion"], ["--optimizer", "lion"]),
        (nothing, ["--backward", "jax"], ["--backward", "jax"]),
        (nothing, ["--fuse", "--backward", "torch"], ["--fuse", "--backward is torch"]),
        (config("fuse: true\nbackward: torch"), ["--config", "options.yaml"], ["--fuse", "--backward is torch"]),
        (nothing, ["--fuse=maybe"], ["--fuse", "maybe"]),
        (nothing, ["--epochs", "0"], ["--epochs", "0"]),
        (nothing, ["--epochs", "two"], ["--epochs", "two"]),
        (nothing, ["--batch-size", "-1"], ["--batch-size", "-1"]),
        (nothing, ["--lr", "0"], ["--lr", "0"]),
        (nothing, ["--lr", "nan"], ["--lr", "nan"]),
        (nothing, ["--lr", "inf"], ["--lr", "inf"]),
        (nothing, ["--seed", "-1"], ["--seed", "-1"]),
        (nothing, ["--precision", "31"], ["--precision", "31", "bf16-mixed"]),
        (nothing, ["--devices", "none"], ["--devices none"]),
        (nothing, ["--strategy", "none"], ["--strategy none"]),
        (nothing, ["--accelerator", "none"], ["--accelerator none"]),
        (nothing, ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp_spawn"], ["ddp_spawn", "choose ddp"]),
        (nothing, ["--accelerator", "cpu", "--devices", "360"], ["--devices", "360", "359 test images"]),
        (nothing, ["--epoch", "1"], ["--epoch"]),
        (nothing, ["--config", "none.yaml"], ["--config", "none.yaml"]),
        (config("epochs: 0"), ["--config", "options.yaml"], ["--epochs"]),
        (config("depth: 3"), ["--config", "options.yaml"], ["--config", "depth"]),
        (config("a: [1"), ["--config", "options.yaml"], ["--config"]),
        (nothing, ["--resume", "none.ckpt"], ["--resume", "none.ckpt", "No such file"]),
        (text, ["--resume", "notes.ckpt"], ["--resume", "notes.ckpt", "not a checkpoint"]),
        (empty, ["--resume", "notes.ckpt"], ["--resume", "notes.ckpt", "not a checkpoint"]),
        (weights_only, ["--resume", "notes.ckpt"], ["--resume", "notes.ckpt", "not a checkpoint of train.py"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_fault(
    make: Make,
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "data", monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert main(arguments) == 2
    refused(capfd, words)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "runs").exists()
    assert make is not nothing or not any(tmp_path.iterdir())


def test_fault_in_a_process_that_reads(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def read(*_: object) -> None:
        try:
            raise UserError("x.png: not a readable image")
        except UserError:
            wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
        wrapped.reraise()

    monkeypatch.setattr(run, "run", read)
    assert main([]) == 2
    assert capfd.readouterr().err == "train.py: error: x.png: not a readable image\n"
