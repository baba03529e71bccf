"""The data module: a `Source` as shuffled, augmented batches of uint8 images.

The order and the augmentation of the training images depend on the seed and on the position in the run alone, not on
the state of a generator: a run that is resumed sees the images that the unbroken one would have seen.
"""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from manualbp.training import UserError, augmentation
from manualbp.training.sources import Files, Images, Source, split

Batch = tuple[Tensor, Tensor]  # images (n, channels, height, width) uint8, labels (n,) int64
Read = tuple[Tensor, Tensor, Tensor]  # and their indices in their part


class Part(Dataset):
    """Some images of a set with their labels, read a batch at a time."""

    def __init__(self, images: Images, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: Sequence[int]) -> Read:
        chosen = self.indices[list(indices)]
        return self.images[chosen], self.labels[chosen], torch.tensor(indices)


class ImageData(pl.LightningDataModule):
    """Batches of a source, with a fixed stratified share of its training images set apart for validation.

    validation: that share, from 0 to less than 1; of 0 the validation is empty and all images are for training. They
    are, too, where the source has its own images for validation.
    augmentation: what is done to training images, of `options.AUGMENTATIONS`; None: what the source allows, shifts and
    mirror images. An image that is mirrored in one epoch is not in the next one: in two epochs each is seen both ways.
    crop_padding: by how many pixels they are shifted at most; None: an eighth of height and width.
    Attributes: `shape` (channels, height, width); `classes`, names; `mean` and `std` (channels, 1, 1), of the pixels
    0 ... 255 of the training images.
    Raises: UserError where a class has a single training image, which cannot be in both training and validation.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        validation: float = 0.1,
        augmentation: Sequence[str] | None = None,
        crop_padding: int | None = None,
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.seed = source, batch_size, seed
        images, labels = source.train
        counts = torch.bincount(labels, minlength=len(source.classes))
        if source.validation is not None:
            validation = 0
        if validation and counts.min() < 2:
            raise UserError(
                f"class {source.classes[int(counts.argmin())]}: {int(counts.min())} training image, 2 are needed: "
                "one to train on, one for validation (or none of that: --validation 0)"
            )
        every = torch.arange(len(labels))
        kept, apart = split(labels, validation) if validation else (every, every[:0])
        self.train, self.validation = Part(images, labels, kept), Part(images, labels, apart)
        if source.validation is not None:
            self.validation = Part(*source.validation, torch.arange(len(source.validation[1])))
        self.test = Part(*source.test, torch.arange(len(source.test[1])))
        self.classes = source.classes
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self.mean, self.std = statistics(self.train)
        usual = ("warp" if source.warp else "crop", *["flip"] * source.mirror)
        self.augmentation = usual if augmentation is None else tuple(augmentation)
        _, height, width = self.shape
        self.margins = (height // 8, width // 8) if crop_padding is None else (crop_padding, crop_padding)
        if min(height, width) <= max(self.margins):
            raise UserError(f"argument --crop-padding: {crop_padding}: images of {height} x {width} are no larger")
        self.flipped_first = torch.rand(len(self.train), generator=torch.Generator().manual_seed(seed)) < 0.5

    def smallest_batch(self, replicas: int) -> int:
        """Images in the smallest training batch of a process, the last one of an epoch."""
        return -(-len(self.train) // replicas) % self.batch_size or self.batch_size

    def train_dataloader(self) -> DataLoader:
        # One process is the case of one replica: the same sampler, whose order is a function of seed and epoch.
        return self._loader(self.train, DistributedSampler(self.train, *self._share(), seed=self.seed))

    def val_dataloader(self) -> DataLoader:
        # Lightning gives each of several processes its share, all of the same size: an image may be there twice.
        return self._loader(self.validation)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test, UnrepeatedDistributedSampler(self.test, *self._share(), shuffle=False))

    def _share(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, part: Part, sampler: DistributedSampler | None = None) -> DataLoader:
        # Images held in memory are there sooner than another process could hand them over.
        workers = 2 if isinstance(part.images, Files) else 0
        return DataLoader(
            part,
            self.batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=as_it_is,
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Read, dataloader_idx: int) -> Batch:
        x, labels, indices = batch
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return x, labels
        kinds, seed = self.augmentation, (self.seed << 31) + position(trainer)
        generator = torch.Generator().manual_seed(seed)
        if "flip" in kinds:
            x = augmentation.flip(x, self.flipped_first[indices.cpu()] ^ (trainer.current_epoch % 2 == 1))
        if "crop" in kinds:
            x = augmentation.crop(x, self.margins, "reflect" if self.source.mirror else "constant", generator)
        if "warp" in kinds:
            x = augmentation.warp(x, generator)
        return augmentation.by_torchvision(x, labels, kinds, len(self.classes), seed)


def position(trainer: pl.Trainer) -> int:
    """Of the batch in the run, counted over all processes."""
    return trainer.global_step * trainer.world_size + trainer.global_rank


def as_it_is(batch: Any) -> Any:
    """A batch that is read whole needs no collating."""
    return batch


def statistics(part: Part) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channels, 1, 1) of the pixels of every channel."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for indices in torch.arange(len(part)).split(1024):
        pixels = part.__getitems__(indices.tolist())[0].double().transpose(0, 1).flatten(1)
        count, total, squares = count + pixels.shape[1], total + pixels.sum(1), squares + pixels.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    # A channel of one value only is left as it is.
    std = torch.where(std < 1e-3, 1.0, std)
    return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)
