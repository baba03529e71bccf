from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from manualbp.training import UserError, sources
from manualbp.training.data import ImageData
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


def test_a_set_too_large_for_memory_is_read_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ImageData(sources.folder(files.tree(tmp_path)), batch_size=4, seed=0)
    monkeypatch.setattr(sources, "HELD_BYTES", 0)
    lazy = ImageData(sources.folder(tmp_path), batch_size=4, seed=0)
    assert isinstance(lazy.train.images, sources.Files)
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
