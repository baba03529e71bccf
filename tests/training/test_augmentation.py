from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from manualbp.training import UserError, sources
from manualbp.training.augmentation import by_torchvision, crop, flip, warp
from manualbp.training.data import ImageData
from tests.training import files


def images(n: int = 40, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_chosen_images_are_mirrored() -> None:
    x = images(4)
    y = flip(x, torch.tensor([True, False, False, True]))
    assert torch.equal(y, torch.stack([x[0].flip(2), x[1], x[2], x[3].flip(2)]))


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_shifts_are_up_to_the_margin(mode: str) -> None:
    x = torch.zeros(400, 1, 16, 8, dtype=torch.uint8)
    x[:, :, 8, 2] = 255
    y = crop(x, (2, 1), mode, seeded())
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    _, _, rows, columns = y.nonzero(as_tuple=True)
    assert set(rows.tolist()) == {6, 7, 8, 9, 10}
    assert set(columns.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(("mode", "least"), [("constant", 0), ("reflect", 200)])
def test_what_stands_where_a_shifted_image_leaves(mode: str, least: int) -> None:
    assert crop(torch.full((50, 1, 8, 8), 200, dtype=torch.uint8), (2, 2), mode, seeded()).min() == least


def test_warping_scales_stretches_turns_and_shifts() -> None:
    """Where the middle of an image and a point to the right of it come to lie."""
    n, size, right = 400, 65, 8
    x = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    x[::2, :, 30:35, 30:35] = 250
    x[1::2, :, 30:35, 30 + right : 35 + right] = 250
    middle, point = (warp(x[i::2].repeat_interleave(2, 0), seeded()) for i in (0, 1))
    assert middle.dtype == torch.uint8
    assert middle.shape == x.shape

    def place(y: Tensor) -> Tensor:
        weight = y.double().squeeze(1)
        at = torch.arange(size, dtype=torch.float64)
        return torch.stack([(weight.sum(2) * at).sum(1), (weight.sum(1) * at).sum(1)], 1) / weight.sum((1, 2))[:, None]

    at, between = place(middle) - 32, place(point) - place(middle)
    assert 8 < at.abs().max() < 0.13 * 65 * 1.45 * 1.15  # shifted, scaled, turned
    length, angle = between.norm(dim=1) / right, torch.atan2(between[:, 0], between[:, 1])
    assert 0.68 < length.min() < 0.75 < 1.35 < length.max() < 1.46  # exp(+-(0.22 + 0.15))
    assert 0.13 < angle.abs().max() < 0.15 * 1.36  # exp(0.15) / exp(-0.15)


def test_warping_leaves_no_black() -> None:
    assert (warp(torch.full((50, 1, 20, 20), 200, dtype=torch.uint8), seeded()) == 200).all()


def test_cutout_blackens_a_quarter() -> None:
    x = torch.full((20, 3, 16, 16), 200, dtype=torch.uint8)
    y, _ = by_torchvision(x, torch.zeros(20, dtype=torch.int64), ["cutout"], 2, seed=0)
    assert set((y == 0).sum((1, 2, 3)).tolist()) == {3 * 64}
    assert len({tuple(image[0].nonzero()[0].tolist()) for image in 200 - y}) > 5  # not at one place


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_each_image_by_itself(channels: int) -> None:
    x = images(1, channels).expand(20, -1, -1, -1)
    y, _ = by_torchvision(x, torch.zeros(20, dtype=torch.int64), ["randaugment"], 2, seed=0)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert len({image.numpy().tobytes() for image in y}) > 10


def test_mixup_mixes_images_and_labels_alike() -> None:
    x = torch.tensor([0, 200], dtype=torch.uint8).repeat(5).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    y, shares = by_torchvision(x, torch.arange(10) % 2, ["mixup"], 2, seed=1)
    torch.testing.assert_close(shares.sum(1), torch.ones(10))
    torch.testing.assert_close(y.mean((1, 2, 3)), 200 * shares[:, 1])
    assert len(shares.unique()) > 1


@pytest.mark.parametrize("kind", ["randaugment", "cutout", "mixup"])
def test_what_torchvision_draws_depends_on_the_seed_alone(kind: str) -> None:
    x, labels = images(), torch.arange(40) % 2
    torch.manual_seed(7)
    before = torch.get_rng_state()
    (a, _), (b, _), (c, _) = (by_torchvision(x, labels, [kind], 2, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def epochs(data: ImageData) -> list[Tensor]:
    """The images of three epochs, in the order in which they are held."""
    found = []
    for epoch in range(3):
        trainer: Any = SimpleNamespace(world_size=1, global_rank=0, training=True, global_step=epoch)
        data.trainer, trainer.current_epoch = trainer, epoch
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        (batch,) = loader
        found.append(data.on_after_batch_transfer(batch, 0)[0][batch[2].argsort()])
    return found


def test_in_two_epochs_every_image_is_seen_both_ways(tmp_path: Path) -> None:
    source = sources.folder(files.tree(tmp_path, "abcde"))
    data = ImageData(source, 100, seed=0, validation=0, augmentation=["flip"])
    first, second, third = epochs(data)
    assert torch.equal(first, third)
    assert torch.equal(first, second.flip(3))
    x = data.train.images[data.train.indices]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(first, x, strict=True)]
    assert 3 < sum(mirrored) < 17


@pytest.mark.parametrize(
    ("source", "augmentation", "kinds"),
    [
        ("digits", None, ("crop",)),
        ("folder", None, ("crop", "flip")),
        ("caltech101", None, ("warp", "flip")),
        ("digits", ["none"], ("none",)),
    ],
)
def test_the_usual_augmentation(source: str, augmentation: Any, kinds: tuple[str, ...], tmp_path: Path) -> None:
    files.tree(tmp_path)
    files.caltech101(tmp_path)
    data = ImageData(getattr(sources, source)(tmp_path), 4, seed=0, augmentation=augmentation)
    assert data.augmentation == kinds


def test_without_augmentation_images_are_as_they_are(tmp_path: Path) -> None:
    data = ImageData(sources.digits(tmp_path), 2000, seed=0, validation=0, augmentation=["none"])
    assert torch.equal(epochs(data)[1], data.train.images[data.train.indices])


def test_images_no_larger_than_their_shift_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--crop-padding: 8.*8 x 8"):
        ImageData(sources.digits(tmp_path), 4, seed=0, crop_padding=8)
