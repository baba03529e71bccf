"""Image files as they are shown: any mode that Pillow reads, turned as their EXIF says, over white, in 8 bits."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, ImageStat, UnidentifiedImageError
from torch import Tensor

from manualbp.training import UserError

HELD_BYTES = 4 << 30  # image sets up to this size are decoded once, larger ones in every epoch
NAMED = 10  # files or classes in a message
TURNED = "turned"  # counted beside the kinds
KINDS = {"1": "1-bit", "L": "grey", "P": "palette", "PA": "palette", "F": "float grey"}  # by Pillow's modes
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation


class Files:
    """Image files read on demand: `files[indices]` is a uint8 tensor (n, channels, height, width).

    They become grey (1 channel) or colour (3), and are cropped to the proportions of `size` (width, height); with
    `any_kind` they are padded to these proportions by their mean, and brought to one brightness and contrast.
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
        try:
            return self.pixels(decode(path).image)
        except ValueError as error:
            raise unreadable({path: str(error)}) from error

    def pixels(self, image: Image.Image) -> Tensor:
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.any_kind:
            mean = tuple(round(channel) for channel in ImageStat.Stat(image).mean)
            image = ImageOps.pad(image, self.size, Image.Resampling.BICUBIC, color=mean)
        elif image.size != self.size:
            image = ImageOps.fit(image, self.size, Image.Resampling.BICUBIC)
        pixels = np.array(image).reshape(self.size[1], self.size[0], -1)
        return torch.from_numpy(standardised(pixels) if self.any_kind else pixels).permute(2, 0, 1)


Images = Tensor | Files


def read_as(path: str, shape: Sequence[int], any_kind: bool = False) -> Tensor:
    """One image as a run with images of that shape (channels, height, width) read them: uint8 of that shape.

    any_kind: whether that run was one of --data caltech101. Raises: UserError for a file that cannot be read.
    """
    channels, height, width = shape
    return Files([path], channels, (width, height), any_kind).read(path)


def hold(*sets: Files) -> tuple[list[Images], Counter[str]]:
    """Decode every file once, so that bad ones are found before training; keep the pixels that fit in memory.

    Returns the images of each set, and how many of all there are of each kind, and `TURNED`.
    Raises: UserError that names the bad files of all sets.
    """
    images, kinds, reasons = [], Counter(), {}
    # In chunks: small images take less time than handing one to another thread does.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for files in sets:
            held = torch.empty(files.shape, dtype=torch.uint8) if np.prod(files.shape) <= HELD_BYTES else None
            images.append(files if held is None else held)
            chunks = torch.arange(len(files)).split(256)
            for found, bad in pool.map(look_through, [files] * len(chunks), [held] * len(chunks), chunks):
                kinds += found
                reasons |= bad
    if reasons:
        raise unreadable(reasons)
    return images, kinds


def look_through(files: Files, held: Tensor | None, indices: Tensor) -> tuple[Counter[str], dict[str, str]]:
    """Decode these files, into `held` if it is there. Returns their kinds, and why some of them are unreadable."""
    kinds, reasons, pixels = Counter(), {}, []
    for i in indices.tolist():
        try:
            picture = decode(files.paths[i])
        except ValueError as error:
            reasons[files.paths[i]] = str(error)
            continue
        kinds[picture.kind] += 1
        kinds[TURNED] += picture.turned
        if held is not None:
            pixels.append(files.pixels(picture.image))
    if pixels and held is not None and not reasons:
        held[indices] = torch.stack(pixels)
    return kinds, reasons


def conversions(kinds: Counter[str], channels: int) -> str:
    """What was done to the images of these kinds, in words; nothing if each already was what is used."""
    used, name = ("grey", "grey") if channels == 1 else ("RGB", "colour")
    others = sorted((-n, kind) for kind, n in kinds.items() if kind not in (used, TURNED))
    converted = f"converted {', '.join(f'{-n} {kind}' for n, kind in others)} to {name}" if others else ""
    turned = f"turned {kinds[TURNED]} by their EXIF" if kinds[TURNED] else ""
    return "; ".join(filter(None, (converted, turned)))


def unreadable(reasons: dict[str, str]) -> UserError:
    if len(reasons) == 1:
        ((path, reason),) = reasons.items()
        return UserError(f"{path}: not a readable image ({reason}): repair or remove it")
    files = some([f"{path} ({reason})" for path, reason in reasons.items()])
    return UserError(f"{len(reasons)} files are no readable images: {files}: repair or remove them")


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def standardised(pixels: np.ndarray) -> np.ndarray:
    """The image with mean 128 and standard deviation 50, clipped to 0 ... 255: its lighting does not matter."""
    z = (pixels - pixels.mean()) / max(pixels.std(), 1.0)
    return (128 + 50 * z).round().clip(0, 255).astype(np.uint8)


class Picture(NamedTuple):
    """An image as it is shown, of mode L or RGB; the kind of its file; whether its EXIF had it turned."""

    image: Image.Image
    kind: str
    turned: bool


def decode(path: str) -> Picture:
    """Raises: ValueError, saying why the file is unreadable."""
    try:
        # Not by its name: Pillow 13.0 then maps an uncompressed TIFF, and mixes up the rows of one that it turns.
        with open(path, "rb") as file, Image.open(file) as image:
            turn = TURNS.get(orientation(image))
            image.load()
            kind = kind_of(image)
            if turn is not None and orientation(image) in TURNS:  # a TIFF is turned when it is loaded
                image = image.transpose(turn)
            return Picture(shown(image), kind, turn is not None)
    except UnidentifiedImageError as error:
        raise ValueError("no image that Pillow knows") from error
    except Exception as error:  # a damaged file has Pillow raise almost any
        raise ValueError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def has_colour(path: str) -> bool:
    """By the head of the file alone; False for one that cannot be read."""
    with suppress(Exception), Image.open(path) as image:
        return not is_grey(image.mode)
    return False


def is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La") or is_deep(mode)


def is_deep(mode: str) -> bool:
    return mode == "F" or mode.startswith("I")  # I, I;16, I;16B


def kind_of(image: Image.Image) -> str:
    kind = "16-bit grey" if image.mode.startswith("I") else KINDS.get(image.mode, image.mode)
    return f"transparent {kind}" if "transparency" in image.info else kind


def orientation(image: Image.Image) -> Any:
    """EXIF's, None where there is none. (ImageOps.exif_transpose also writes the other tags anew, which may fail.)"""
    with suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def shown(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, what is transparent laid over white."""
    if is_deep(image.mode):
        return eight_bits(image)
    mode = "L" if is_grey(image.mode) else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits, scaled.

    White is 65535, or in floating point the first of 1, 255 and 65535 that no value exceeds.
    """
    v = np.array(image, np.float64)
    white = next((limit for limit in ((1, 255, 65535) if image.mode == "F" else (65535,)) if v.max() <= limit), 0)
    if not white or not v.min() >= 0:
        raise ValueError(f"its values are {v.min():g} to {v.max():g}, outside of 0 to 65535")
    v[v == image.info.get("transparency")] = white
    return Image.fromarray((v * (255 / white)).round().astype(np.uint8))
