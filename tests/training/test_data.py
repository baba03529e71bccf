import os
import shutil
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from manualbp.training import UserError, sources
from manualbp.training import files as reading
from manualbp.training.data import ImageData
from manualbp.training.options import parse
from tests.training import files


def batches(data: ImageData, epoch: int) -> list[torch.Tensor]:
    trainer: Any = SimpleNamespace(
        world_size=1, global_rank=0, training=True, global_step=7 * epoch, current_epoch=epoch
    )
    data.trainer = trainer
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
    return [data.on_after_batch_transfer(batch, 0)[0] for batch in loader]


def test_digits(tmp_path: Path) -> None:
    source = sources.digits(tmp_path)
    (train, train_labels), (test, test_labels) = source.train, source.test
    assert train.shape == (1438, 1, 8, 8)
    assert test.shape == (359, 1, 8, 8)
    assert isinstance(train, torch.Tensor)
    assert train.dtype == torch.uint8
    assert train.max() == 255
    assert min(torch.bincount(test_labels)) >= 34
    assert len(train_labels) + len(test_labels) == 1797


def test_cifar10_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.cifar10(files.cifar10(tmp_path, monkeypatch))
    assert source.classes == files.CIFAR10_NAMES
    assert (source.train[0].shape, source.test[0].shape) == ((100, 3, 32, 32), (20, 3, 32, 32))
    first, label = CIFAR10(tmp_path, train=True)[3]
    assert label == source.train[1][3]
    assert isinstance(source.train[0], torch.Tensor)
    assert np.array_equal(np.array(first).transpose(2, 0, 1), source.train[0][3].numpy())


def test_caltech101_takes_thirty_images_of_a_category(tmp_path: Path) -> None:
    source = sources.caltech101(files.caltech101(tmp_path))
    assert source.classes == ["Faces", "ant"]
    assert source.train[0].shape == (60, 1, 83, 83)
    assert torch.bincount(source.train[1]).tolist() == [30, 30]
    assert torch.bincount(source.test[1]).tolist() == [2, 2]
    assert source.average == "macro"
    assert source.mirror
    assert source.warp
    images = source.train[0][torch.arange(60)].double()
    assert (images.mean((1, 2, 3)) - 128).abs().max() < 3
    assert (images.std((1, 2, 3)) - 50).abs().max() < 10
    # Padded by the image's mean: those of faces above and below, those of ants on the left and right.
    faces, ants = images[source.train[1] == 0], images[source.train[1] == 1].mT
    for padded in (faces, ants):
        assert padded[:, :, (0, 82)].std() < 3
        assert padded[:, :, 41].std() > 20
    again = sources.caltech101(tmp_path)
    every = torch.arange(60)
    assert torch.equal(again.train[0][every], source.train[0][every])


@pytest.mark.parametrize(
    ("suffix", "mode", "size", "shape"),
    [
        ("png", "RGB", (8, 8), (3, 8, 8)),
        ("png", "L", (9, 8), (1, 8, 9)),
        ("png", "P", (8, 8), (3, 8, 8)),
        ("jpg", "RGB", (8, 8), (3, 8, 8)),
        ("jpg", "L", (8, 8), (1, 8, 8)),
        ("jpg", "RGB", (128, 96), (3, 48, 64)),
    ],
)
def test_folder(tmp_path: Path, suffix: str, mode: str, size: tuple[int, int], shape: tuple[int, ...]) -> None:
    source = sources.folder(files.tree(tmp_path, suffix=suffix, mode=mode, size=size))
    assert source.classes == ["a", "b"]
    assert source.train[0].shape == (8, *shape)
    assert source.test[1].tolist() == [0, 0, 1, 1]
    assert source.mirror == (shape[0] == 3)
    if suffix == "png" and mode == "L":
        with Image.open(tmp_path / "train" / "b" / "0.png") as image:
            assert np.array_equal(np.array(image), source.train[0][torch.tensor([4])][0, 0].numpy())


def test_images_of_other_sizes_take_that_of_the_first(tmp_path: Path) -> None:
    files.image(files.tree(tmp_path) / "train" / "b" / "big.png", size=(40, 20))
    assert sources.folder(tmp_path).train[0].shape == (9, 3, 8, 8)


@pytest.mark.parametrize(
    ("more", "channels", "notes"),
    [
        ({}, 1, []),
        ({"train/b/9.png": "RGB"}, 3, ["converted 12 grey to colour"]),
        ({"test/b/9.png": "RGB"}, 1, ["converted 1 RGB to grey"]),
        ({"train/a/9.png": "LA", "test/a/9.tif": "F"}, 1, ["converted 1 LA, 1 float grey to grey"]),
        ({"train/b/9.png": "RGBA", "test/a/9.tif": "CMYK"}, 3, ["converted 12 grey, 1 CMYK, 1 RGBA to colour"]),
    ],
)
def test_mixed_kinds(tmp_path: Path, more: dict[str, str], channels: int, notes: list[str]) -> None:
    files.tree(tmp_path, mode="L")
    for path, mode in more.items():
        files.image(tmp_path / path, mode=mode)
    source = sources.folder(tmp_path)
    assert source.train[0].shape[1] == source.test[0].shape[1] == channels
    assert list(source.notes) == notes
    assert source.mirror == (channels == 3)


def test_the_size_is_that_of_the_first_image_as_it_is_shown(tmp_path: Path) -> None:
    files.tree(tmp_path, size=(12, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "train" / "a" / "0.png", exif=exif)
    source = sources.folder(tmp_path)
    assert source.train[0].shape == (8, 3, 12, 8)
    assert list(source.notes) == ["turned 1 by their EXIF"]


def test_what_systems_leave_is_neither_class_nor_image(tmp_path: Path) -> None:
    before = sources.folder(files.tree(tmp_path)).train[0]
    for folder in ("train", "test", "train/a"):
        for hidden in (".ipynb_checkpoints", "__MACOSX"):
            files.image(tmp_path / folder / hidden / "0.png")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (tmp_path / folder / name).write_text("no image")
    source = sources.folder(tmp_path)
    assert source.classes == ["a", "b"]
    assert isinstance(before, torch.Tensor)
    assert isinstance(source.train[0], torch.Tensor)
    assert torch.equal(source.train[0], before)


def test_images_lie_at_any_depth(tmp_path: Path) -> None:
    files.image(files.tree(tmp_path) / "train" / "b" / "of 2024" / "june" / "x.JPG")
    assert sources.folder(tmp_path).train[1].tolist() == [0] * 4 + [1] * 5


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_unicode_in_either_form_is_one_class(tmp_path: Path, forms: tuple[Any, Any]) -> None:
    files.tree(tmp_path)
    for part, form in zip(("train", "test"), forms, strict=True):
        (tmp_path / part / "b").rename(tmp_path / part / unicodedata.normalize(form, "Bär"))
        files.image(
            tmp_path / part / unicodedata.normalize("NFC", "Bär") / unicodedata.normalize(form, "größer 猫.png")
        )
    source = sources.folder(tmp_path)
    assert source.classes == ["Bär", "a"]
    assert source.train[1].tolist() == [0] * 5 + [1] * 4
    assert source.test[1].tolist() == [0] * 3 + [1] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_class_that_is_not_named_in_utf8(tmp_path: Path) -> None:
    files.tree(tmp_path)
    (tmp_path / "train" / "b").rename(tmp_path / "train" / os.fsdecode(b"B\xe4r"))
    with pytest.raises(UserError, match=r"train: .* b'B\\xe4r' is no UTF-8"):
        sources.folder(tmp_path)


def test_a_class_may_lack_test_images(tmp_path: Path) -> None:
    shutil.rmtree(files.tree(tmp_path, classes="abc") / "test" / "b")
    source = sources.folder(tmp_path)
    assert source.test[1].tolist() == [0, 0, 2, 2]
    assert list(source.notes) == [f"no images of b in {tmp_path / 'test'}"]


def test_validation_images_of_their_own(tmp_path: Path) -> None:
    own = files.tree(tmp_path / "own", classes="abc") / "test"
    own.joinpath("c").rename(tmp_path / "c")
    source = sources.folder(files.tree(tmp_path / "data"), own)
    data = ImageData(source, 4, seed=0)
    assert len(data.train) == 8
    assert data.validation.labels[data.validation.indices].tolist() == [0, 0, 1, 1]
    images = next(iter(data.val_dataloader()))[0]
    expected = reading.Files([str(own / "a" / "1.png")], 3, (8, 8))[torch.tensor([0])]
    assert torch.equal(images[1:2], expected)
    assert ImageData(source, 4, seed=0, validation=0).validation.indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("share", "apart"), [(None, [2, 1]), (0.01, [1, 1]), (0.5, [5, 2]), (0.99, [9, 2])])
def test_split(tmp_path: Path, flat: bool, share: float | None, apart: list[int]) -> None:
    """10 images of one class, 3 of the other."""
    root = tmp_path if flat else tmp_path / "train"
    for i in range(13):
        files.image(root / ("a" if i < 10 else "b") / f"{i}.png", seed=i)
    source = sources.folder(tmp_path, share=share)
    counts = [torch.bincount(labels).tolist() for _, labels in (source.train, source.test)]
    assert counts == [[10 - apart[0], 3 - apart[1]], apart]
    assert list(source.notes) == [f"no {tmp_path / 'test'}: {sum(apart)} of 13 images are set apart for the test"]
    every = [
        image.sum().item() for images, _ in (source.train, source.test) for image in images[torch.arange(len(images))]
    ]
    assert len(set(every)) == 13
    again, other = (sources.folder(tmp_path, share=share, seed=seed).test[0] for seed in (0, 1))
    n = torch.arange(sum(apart))
    assert torch.equal(again[n], source.test[0][n])
    assert not torch.equal(other[n], source.test[0][n])


def test_a_set_too_large_for_memory_is_read_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ImageData(sources.folder(files.tree(tmp_path)), batch_size=4, seed=0)
    monkeypatch.setattr(reading, "HELD_BYTES", 0)
    lazy = ImageData(sources.folder(tmp_path), batch_size=4, seed=0)
    assert isinstance(lazy.train.images, reading.Files)
    assert torch.equal(held.mean, lazy.mean)
    assert all(map(torch.equal, batches(held, 0), batches(lazy, 0)))
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"1\.png: not a readable image"):
        lazy.train.images[torch.arange(4)]


def test_parts_are_disjoint_stratified_and_fixed(tmp_path: Path) -> None:
    source = sources.digits(tmp_path)
    data, other = ImageData(source, 32, seed=0), ImageData(source, 32, seed=1)
    assert torch.equal(data.validation.indices, other.validation.indices)
    both = torch.cat([data.train.indices, data.validation.indices])
    assert both.sort().values.equal(torch.arange(1438))
    counts = torch.bincount(data.validation.labels[data.validation.indices])
    assert (counts.min(), counts.max()) == (14, 15)


def test_without_validation_all_images_are_for_training(tmp_path: Path) -> None:
    data = ImageData(sources.digits(tmp_path), 32, seed=0, validation=0)
    assert torch.equal(data.train.indices, torch.arange(1438))
    assert len(data.validation) == 0


def test_pixel_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = ImageData(sources.folder(files.tree(tmp_path)), 4, seed=0)
    assert isinstance(data.train.images, torch.Tensor)
    pixels = data.train.images[data.train.indices].double()
    torch.testing.assert_close(data.mean.flatten().double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(data.std.flatten().double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_order_and_augmentation_are_a_function_of_seed_and_position(tmp_path: Path) -> None:
    source = sources.folder(files.tree(tmp_path))
    data = ImageData(source, 4, seed=5)
    first, second = batches(data, 0), batches(data, 1)
    torch.manual_seed(99)
    assert all(map(torch.equal, second, batches(ImageData(source, 4, seed=5), 1)))
    assert not all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, batches(ImageData(source, 4, seed=6), 0)))


@pytest.mark.parametrize(
    ("data", "options", "shape"),
    [
        ("folder", [], (3, 32, 64)),
        ("folder", ["--image-size", "16"], (3, 8, 16)),
        ("folder", ["--image-size", "100", "--channels", "1"], (1, 48, 96)),
        ("caltech101", [], (1, 83, 83)),
        ("caltech101", ["--image-size", "20", "--channels", "3"], (3, 20, 20)),
    ],
)
def test_size_and_channels(data: str, options: list[str], shape: tuple[int, ...], tmp_path: Path) -> None:
    files.tree(tmp_path, size=(96, 48)) if data == "folder" else files.caltech101(tmp_path)
    _, parsed = parse(["--data", data, "--data-dir", str(tmp_path), *options])
    assert sources.source_of(parsed).train[0].shape[1:] == shape
