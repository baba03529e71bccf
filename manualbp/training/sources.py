"""Where images come from: four functions, each returning the same `Source`.

Every image is a uint8 tensor (channels, height, width), every label an index into the sorted class names.
"""

import os
import tarfile
import unicodedata
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jsonargparse import Namespace
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import CIFAR10, Caltech101
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.utils import check_integrity

from manualbp.training import UserError
from manualbp.training.files import Files, Images, conversions, decode, has_colour, hold, some

LONGEST_SIDE = 64  # pixels of an image in a folder tree: photographs are scaled down to it
CALTECH_TRAIN = 30  # images of a category, as is usual in the literature
CALTECH_SIDE = 83  # lecture 001, eq. 1.2
VALIDATION = 0.1  # the default of --validation
NAMES = ("digits", "cifar10", "caltech101", "folder")


class Source(NamedTuple):
    """Training and test images, uint8 (n, channels, height, width), with their labels, int64 (n,)."""

    train: tuple[Images, Tensor]
    test: tuple[Images, Tensor]
    classes: list[str]
    mirror: bool  # whether a mirrored image is still one of its class: not so for writing
    warp: bool = False  # whether training images are scaled and turned a little, too
    average: Literal["micro", "macro"] = "micro"  # of the accuracy: "micro" over images, "macro" over classes
    validation: tuple[Images, Tensor] | None = None  # in place of a share of the training images
    notes: Sequence[str] = ()  # what the user should know of how they were read, in lines


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


def caltech101(directory: Path, side: int = CALTECH_SIDE, channels: int = 1) -> Source:
    """Caltech-101 without the background class: 30 training images a category, side x side pixels.

    At 83 x 83 and grey they are as in lecture 001.
    """
    # torchvision's class downloads; it does not read, as it wants the background class, scipy and unbroken numbering.
    root = directory / "caltech101" / "101_ObjectCategories"
    if not root.is_dir():
        download(Caltech101, directory, directory / "caltech101")
    folders = class_folders(root)
    classes = [name for name in folders if name != "BACKGROUND_Google"]
    paths, labels = samples(folders, classes)
    # Which 30: the same for every run, whatever --seed is.
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    by_class = [order[labels[order] == label] for label in range(len(classes))]
    for name, of_class in zip(classes, by_class, strict=True):
        if len(of_class) <= CALTECH_TRAIN:
            raise UserError(f"{root / name}: {len(of_class)} images, more than {CALTECH_TRAIN} are needed")
    parts = torch.cat([c[:CALTECH_TRAIN] for c in by_class]), torch.cat([c[CALTECH_TRAIN:] for c in by_class])
    (train, test), _ = hold(
        *(Files([paths[i] for i in part.tolist()], channels, (side, side), any_kind=True) for part in parts)
    )
    return Source((train, labels[parts[0]]), (test, labels[parts[1]]), classes, mirror=True, warp=True, average="macro")


def folder(
    directory: Path,
    val_dir: Path | None = None,
    share: float | None = None,
    seed: int = 0,
    longest: int = LONGEST_SIDE,
    channels: int | None = None,
) -> Source:
    """Any tree DIRECTORY/train/<class>/*, DIRECTORY/test/<class>/* of images, and of val_dir/<class>/* for validation.

    Without test/ that share of every class (0.2 where it is None) is set apart for the test, by the seed; without
    train/ of DIRECTORY/<class>/*. All images are in colour if one for training is, unless `channels` says it, and take
    the size of the first training image, scaled down to `longest` pixels on its longer side.
    """
    root = directory / "train"
    if not root.is_dir():
        root = directory
        require_flat(directory)
    folders = class_folders(root)
    classes = list(folders)
    paths, labels = samples(folders, classes)
    counts = torch.bincount(labels, minlength=len(classes))
    if empty := [name for name, n in zip(classes, counts, strict=True) if not n]:
        raise UserError(
            f"{root}: no image ({', '.join(IMG_EXTENSIONS)}) of {some(empty)}: add images or remove folders"
        )
    notes = []
    if (directory / "test").is_dir():
        if share is not None:
            raise UserError(f"argument --split: {share}, but {directory / 'test'} is there: leave it out")
        train, test = (paths, labels), others(directory / "test", classes, "--data-dir", notes)
    else:
        share = 0.2 if share is None else share
        if counts.min() < 2:
            raise UserError(
                f"{root}: a single image of {classes[int(counts.argmin())]}, 2 are needed: one to train on, one for "
                f"the test, as there is no {directory / 'test'}"
            )
        train, test = (([paths[i] for i in part.tolist()], labels[part]) for part in set_apart(labels, share, seed))
        notes.append(f"no {directory / 'test'}: {len(test[0])} of {len(paths)} images are set apart for the test")
    parts = [train, test] if val_dir is None else [train, test, others(val_dir, classes, "--val-dir", notes)]
    # Of all that training could be given, so that another seed has images of the same shape.
    channels = channels or (3 if any(map(has_colour, paths)) else 1)
    size = size_of_first(paths, longest)
    images, kinds = hold(*(Files(of_part, channels, size) for of_part, _ in parts))
    if done := conversions(kinds, channels):
        notes.append(done)
    sets = [(held, labels) for held, (_, labels) in zip(images, parts, strict=True)]
    return Source(
        sets[0], sets[1], classes, channels == 3, validation=None if val_dir is None else sets[2], notes=notes
    )


def require_flat(directory: Path) -> None:
    """UserError where a directory without train/ has its like, which must not be taken for a class."""
    names = ("test", "testing", "train", "training", "val", "valid", "validation")
    if directory.is_dir() and (like := sorted(d.name for d in directory.iterdir() if d.name.casefold() in names)):
        raise UserError(f"{directory / 'train'}: no such folder, beside {', '.join(like)}: rename or add it")


def others(root: Path, classes: list[str], option: str, notes: list[str]) -> tuple[list[str], Tensor]:
    """The images of a test or validation folder, with the labels of training; what is lacking is noted."""
    folders = class_folders(root, option, least=1)
    if unknown := [name for name in folders if name not in classes]:
        raise UserError(f"{root}: classes without training images: {some(unknown)}: add some, or remove the folders")
    paths, labels = samples(folders, classes)
    if not paths:
        raise UserError(f"{root}: no image ({', '.join(IMG_EXTENSIONS)}): check {option}")
    counts = torch.bincount(labels, minlength=len(classes))
    if absent := [name for name, n in zip(classes, counts, strict=True) if not n]:
        notes.append(f"no images of {some(absent)} in {root}")
    return paths, labels


def set_apart(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to keep, and of that share of every class, one at least, drawn by the seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    apart = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        apart[of_class[: min(max(round(share * len(of_class)), 1), len(of_class) - 1)]] = True
    return (~apart).nonzero().flatten(), apart.nonzero().flatten()


def size_of_first(paths: list[str], longest: int) -> tuple[int, int]:
    """Of the first image that can be read, scaled down to `longest` pixels."""
    for path in paths:
        with suppress(ValueError):
            image = decode(path).image
            scale = min(1.0, longest / max(image.size))
            return max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return 1, 1


def source_of(options: Namespace) -> Source:
    """The images that the options of the command line name, or UserError."""
    directory, data = Path(options.data_dir), options.data
    for name, those in (
        *(("val_dir", ("folder",)), ("split", ("folder",))),
        *(("image_size", ("folder", "caltech101")), ("channels", ("folder", "caltech101"))),
    ):
        if options[name] is not None and data not in those:
            raise UserError(
                f"argument --{name.replace('_', '-')}: {options[name]}, but it is for --data {' or '.join(those)}, not "
                f"{data}: leave it out"
            )
    if data == "folder":
        if options.val_dir is not None and options.validation != VALIDATION:
            raise UserError(f"argument --validation: {options.validation}, but --val-dir is given: leave one out")
        val_dir = None if options.val_dir is None else Path(options.val_dir)
        longest = options.image_size or LONGEST_SIDE
        return folder(directory, val_dir, options.split, options.seed, longest, options.channels)
    if data == "caltech101":
        return caltech101(directory, options.image_size or CALTECH_SIDE, options.channels or 1)
    return cifar10(directory) if data == "cifar10" else digits(directory)


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


def class_folders(root: Path, option: str = "--data-dir", least: int = 2) -> dict[str, list[Path]]:
    """The folders of every class, by its name, sorted, without what systems put beside classes.

    A class has several folders where its name is there in several forms of Unicode: macOS may have ü as two characters.
    """
    try:
        entries = sorted(entry for entry in root.iterdir() if entry.is_dir() and is_plain(entry.name))
    except OSError as error:
        raise UserError(f"{root}: no such folder ({error.strerror}): check {option}") from error
    found: dict[str, list[Path]] = {}
    for entry in entries:
        if any("\udc80" <= letter <= "\udcff" for letter in entry.name):
            raise UserError(f"{root}: the name of the folder {os.fsencode(entry.name)!r} is no UTF-8: rename it")
        found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(entry)
    if not found:
        raise UserError(f"{root}: no folder in it for each class: check {option}")
    if len(found) < least:
        raise UserError(f"{root}: only one class, {next(iter(found))}: two are needed at least")
    return dict(sorted(found.items()))


def is_plain(name: str) -> bool:
    """Whether it is no hidden file or folder, and not what macOS puts into archives."""
    return not name.startswith(".") and name != "__MACOSX"


def samples(folders: dict[str, list[Path]], classes: list[str]) -> tuple[list[str], Tensor]:
    """Paths of the images of all classes, at any depth, and their labels."""
    of_class = [[path for folder in folders.get(name, []) for path in images_in(folder)] for name in classes]
    labels = torch.tensor([label for label, paths in enumerate(of_class) for _ in paths], dtype=torch.int64)
    return [path for paths in of_class for path in paths], labels


def images_in(folder: Path) -> list[str]:
    found = []
    for parent, inside, names in os.walk(folder, followlinks=True):
        inside[:] = filter(is_plain, inside)
        found += [(parent, name) for name in names if is_plain(name) and name.lower().endswith(IMG_EXTENSIONS)]
    return [os.path.join(*path) for path in sorted(found)]
