"""The data module: a `Source` as shuffled, augmented batches of uint8 images.

The order and the augmentation of the training images depend on the seed and on the position in the run alone, not on
the state of a generator: a run that is resumed sees the images that the unbroken one would have seen.
"""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as T
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from manualbp.training import UserError
from manualbp.training.sources import Files, Images, Source, split

# Natural logarithms of the scale and of what it is multiplied with across and divided by down, angle in radians, shifts
# in halves of the image.
WARP = torch.tensor([[0.22], [0.15], [0.15], [0.26], [0.26]])
Batch = tuple[Tensor, Tensor]  # images (n, channels, height, width) uint8, labels (n,) int64


class Part(Dataset):
    """Some images of a set with their labels, read a batch at a time."""

    def __init__(self, images: Images, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = self.indices[list(indices)]
        return self.images[chosen], self.labels[chosen]


class ImageData(pl.LightningDataModule):
    """Batches of a source, with a fixed stratified share of its training images set apart for validation.

    validation: that share, from 0 to less than 1; of 0 the validation is empty and all images are for training. They
    are, too, where the source has its own images for validation.
    Attributes: `shape` (channels, height, width); `classes`, names; `mean` and `std` (channels, 1, 1), of the pixels
    0 ... 255 of the training images.
    Raises: UserError where a class has a single training image, which cannot be in both training and validation.
    """

    def __init__(self, source: Source, batch_size: int, seed: int, validation: float = 0.1) -> None:
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

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        generator = torch.Generator().manual_seed((self.seed << 31) + position(trainer))
        return (warp if self.source.warp else augment)(batch[0], self.source.mirror, generator), batch[1]


def position(trainer: pl.Trainer) -> int:
    """Of the batch in the run, counted over all processes."""
    return trainer.global_step * trainer.world_size + trainer.global_rank


def as_it_is(batch: Any) -> Any:
    """A batch that is read whole needs no collating."""
    return batch


def augment(x: Tensor, mirror: bool, generator: torch.Generator) -> Tensor:
    """Every image of x (n, channels, height, width) shifted by up to an eighth, black where it leaves; half mirrored.

    The same as torchvision's v2.RandomCrop and RandomHorizontalFlip one image at a time, in a sixth of their time.
    """
    n, _, height, width = x.shape
    margins = height // 8, width // 8
    padded = T.pad(x, (margins[1], margins[1], margins[0], margins[0]))
    top, left = (torch.randint(2 * margin + 1, (n,), generator=generator).tolist() for margin in margins)
    x = torch.stack([image[:, i : i + height, j : j + width] for image, i, j in zip(padded, top, left, strict=True)])
    if not mirror:
        return x
    mirrored = (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).to(x.device)
    return torch.where(mirrored, x.flip(3), x)


def warp(x: Tensor, mirror: bool, generator: torch.Generator) -> Tensor:
    """Every image of x scaled, stretched, turned and shifted at random, by up to `WARP`; half mirrored.

    Its own mirror image stands where it leaves. (torchvision's v2.RandomAffine has black there.)
    """
    n = len(x)
    scale, stretch, angle, right, down = ((2 * torch.rand(5, n, generator=generator) - 1) * WARP).unbind()
    sign = torch.where((torch.rand(n, generator=generator) < 0.5) & mirror, -1.0, 1.0)
    width, height = sign * (scale + stretch).exp(), (scale - stretch).exp()
    rows = [width * angle.cos(), -height * angle.sin(), right], [width * angle.sin(), height * angle.cos(), down]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = T.affine_grid(matrix.to(x.device), list(x.shape), align_corners=False)
    warped = T.grid_sample(x.float(), grid, padding_mode="reflection", align_corners=False)
    return warped.round().to(x.dtype)


def statistics(part: Part) -> Batch:
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
