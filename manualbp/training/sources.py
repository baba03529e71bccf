"""Where images come from: four functions, each returning the same `Source`.

Every image is a uint8 tensor (channels, height, width), every label an index into the sorted class names.
"""

import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, ImageStat
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import CIFAR10, Caltech101
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.datasets.utils import check_integrity

from manualbp.training import UserError

HELD_BYTES = 4 << 30  # image sets up to this size are decoded once, larger ones in every epoch
LONGEST_SIDE = 64  # of an image in a folder tree: photographs are scaled down to it
CALTECH_TRAIN = 30  # images of a category, as is usual in the literature
CALTECH_SIZE = (83, 83)  # lecture 001, eq. 1.2
GREY, COLOUR = ("1", "L"), ("RGB", "P", "CMYK", "YCbCr")  # Pillow's modes


class Files:
    """Image files read on demand: `files[indices]` is a uint8 tensor (n, channels, height, width).

    They must be grey or colour as `channels` says, and are cropped to the proportions of `size`; with `any_kind` they
    are converted, padded to these proportions by their mean, and brought to one brightness and contrast.
    """

    def __init__(self, paths: Sequence[str], channels: int, size: tuple[int, int], any_kind: bool = False) -> None:
        self.paths, self.channels, self.size, self.any_kind = list(paths), channels, size, any_kind

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        width, height = self.size
        return len(self), self.channels, height, width

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.stack([self.read(self.paths[i]) for i in indices.tolist()])

    def read(self, path: str) -> Tensor:
        image = open_image(path)
        if channels_of(image, path) != self.channels and not self.any_kind:
            wanted = "grey" if self.channels == 1 else "colour"
            raise UserError(f"{path}: has mode {image.mode}, while the first training image is {wanted}: convert it")
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.any_kind:
            mean = tuple(round(channel) for channel in ImageStat.Stat(image).mean)
            image = ImageOps.pad(image, self.size, Image.Resampling.BICUBIC, color=mean)
        elif image.size != self.size:
            image = ImageOps.fit(image, self.size, Image.Resampling.BICUBIC)
        pixels = np.array(image).reshape(self.size[1], self.size[0], -1)
        return torch.from_numpy(standardised(pixels) if self.any_kind else pixels).permute(2, 0, 1)


def standardised(pixels: np.ndarray) -> np.ndarray:
    """The image with mean 128 and standard deviation 50, clipped to 0 ... 255: its lighting does not matter."""
    z = (pixels - pixels.mean()) / max(pixels.std(), 1.0)
    return (128 + 50 * z).round().clip(0, 255).astype(np.uint8)


Images = Tensor | Files


class Source(NamedTuple):
    """Training and test images, uint8 (n, channels, height, width), with their labels, int64 (n,)."""

    train: tuple[Images, Tensor]
    test: tuple[Images, Tensor]
    classes: list[str]
    mirror: bool  # whether a mirrored image is still one of its class: not so for writing
    warp: bool = False  # whether training images are scaled and turned a little, too
    average: Literal["micro", "macro"] = "micro"  # of the accuracy: "micro" over images, "macro" over classes


def digits(_: Path) -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 grey, a fifth of every class kept for the test."""
    data, labels = load_digits(return_X_y=True)
    images = torch.from_numpy((data * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    train, test = split(torch.from_numpy(labels), 0.2)
    labels = torch.from_numpy(labels)
    classes = [str(digit) for digit in range(10)]
    return Source((images[train], labels[train]), (images[test], labels[test]), classes, mirror=False)


def cifar10(directory: Path) -> Source:
    """CIFAR-10 in its python pickles, downloaded where they are not there."""
    archive, unpacked = directory / CIFAR10.filename, directory / CIFAR10.base_folder
    absent = not unpacked.is_dir()
    if absent and archive.exists() and not check_integrity(archive, CIFAR10.tgz_md5):
        raise UserError(f"{archive}: truncated or damaged (its checksum is not CIFAR-10's): remove or replace it")
    if absent:
        download(CIFAR10, directory, directory)
    try:
        parts = [CIFAR10(directory, train=train) for train in (True, False)]
    except RuntimeError as error:
        raise UserError(f"{unpacked}: a file in it is missing or damaged: remove the folder") from error
    train, test = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)) for part in parts
    )
    return Source(train, test, parts[0].classes, mirror=True)


def caltech101(directory: Path) -> Source:
    """Caltech-101 at 83 x 83, grey, as in lecture 001, without the background class: 30 training images a category."""
    # torchvision's class downloads; it does not read, as it wants the background class, scipy and unbroken numbering.
    root = directory / "caltech101" / "101_ObjectCategories"
    if not root.is_dir():
        download(Caltech101, directory, directory / "caltech101")
    classes = [name for name in classes_of(root) if name != "BACKGROUND_Google"]
    paths, labels = samples(root, classes)
    # Which 30: the same for every run, whatever --seed is.
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    by_class = [order[labels[order] == label] for label in range(len(classes))]
    for name, of_class in zip(classes, by_class, strict=True):
        if len(of_class) <= CALTECH_TRAIN:
            raise UserError(f"{root / name}: {len(of_class)} images, more than {CALTECH_TRAIN} are needed")
    parts = torch.cat([c[:CALTECH_TRAIN] for c in by_class]), torch.cat([c[CALTECH_TRAIN:] for c in by_class])
    train, test = (
        (hold(Files([paths[i] for i in part.tolist()], 1, CALTECH_SIZE, any_kind=True)), labels[part]) for part in parts
    )
    return Source(train, test, classes, mirror=True, warp=True, average="macro")


def folder(directory: Path) -> Source:
    """Any tree DIRECTORY/train/<class>/*, DIRECTORY/test/<class>/* of grey or of colour images.

    All images take the size of the first training image, scaled down to 64 pixels on its longer side.
    """
    classes = classes_of(directory / "train")
    if (others := classes_of(directory / "test")) != classes:
        only = sorted(set(classes) ^ set(others))
        raise UserError(f"{directory}: classes in only one of train and test: {', '.join(only)}")
    train, test = (samples(directory / part, classes) for part in ("train", "test"))
    first = open_image(train[0][0])
    channels = channels_of(first, train[0][0])
    scale = min(1.0, LONGEST_SIDE / max(first.size))
    size = (max(1, round(first.width * scale)), max(1, round(first.height * scale)))
    images = [hold(Files(paths, channels, size)) for paths, _ in (train, test)]
    return Source((images[0], train[1]), (images[1], test[1]), classes, mirror=channels == 3)


SOURCES = {"digits": digits, "cifar10": cifar10, "caltech101": caltech101, "folder": folder}


def download(dataset: type[CIFAR10] | type[Caltech101], directory: Path, made: Path) -> None:
    """Have torchvision fetch a dataset into the directory; `made` is the folder that it makes before it can fail."""
    new = [folder for folder in (made, directory) if not folder.exists()]
    try:
        with redirect_stdout(None):
            dataset(directory, download=True)
    except (OSError, RuntimeError, EOFError, ValueError, tarfile.TarError) as error:
        for folder in dict.fromkeys(new):
            with suppress(OSError):
                folder.rmdir()
        raise UserError(
            f"{directory}: {dataset.__name__} is not there and cannot be downloaded ({error}): "
            "unpack it there, or name another --data-dir"
        ) from error


def split(labels: Tensor, part: float) -> tuple[Tensor, Tensor]:
    """Indices of the images to keep and of those set apart: stratified, the same in every run."""
    apart = max(round(part * len(labels)), len(labels.unique()))
    kept, other = train_test_split(np.arange(len(labels)), test_size=apart, stratify=labels, random_state=0)
    return torch.from_numpy(kept), torch.from_numpy(other)


def hold(files: Files) -> Images:
    """Decode every file once, so that a bad one is found before training; keep the pixels if they fit in memory."""
    chunks = torch.arange(len(files)).split(256)
    held = torch.empty(files.shape, dtype=torch.uint8) if np.prod(files.shape) <= HELD_BYTES else None
    # In chunks: small images take less time than handing one to another thread does.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk, images in zip(chunks, pool.map(files.__getitem__, chunks), strict=True):
            if held is not None:
                held[chunk] = images
    return files if held is None else held


def open_image(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error}): repair or remove it") from error


def channels_of(image: Image.Image, path: str) -> int:
    if image.mode not in GREY + COLOUR:
        raise UserError(f"{path}: has mode {image.mode}: convert it to 8-bit grey (L) or colour (RGB)")
    return 1 if image.mode in GREY else 3


def classes_of(root: Path) -> list[str]:
    try:
        classes, _ = find_classes(str(root))
    except OSError as error:
        raise UserError(f"{root}: no such folder, or no folder in it for each class: check --data-dir") from error
    if len(classes) < 2:
        raise UserError(f"{root}: only one class, {classes[0]}: two are needed at least")
    return classes


def samples(root: Path, classes: list[str]) -> tuple[list[str], Tensor]:
    try:
        found = make_dataset(str(root), {name: i for i, name in enumerate(classes)}, IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(f"{root}: {str(error).partition('. ')[0]}: add images or remove the folder") from error
    return [path for path, _ in found], torch.tensor([label for _, label in found])
