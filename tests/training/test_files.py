"""Images of every kind that people have, each as it is shown."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from manualbp.training import UserError, files


def of(mode: str, *pixel: float) -> Image.Image:
    """One colour, 6 x 4."""
    return Image.new(mode, (6, 4), pixel[0] if len(pixel) == 1 else pixel)


def deep(kind: str, value: float) -> Image.Image:
    return Image.fromarray(np.full((4, 6), value, kind))


def palette(*colours: int) -> Image.Image:
    image = Image.new("P", (6, 4), 1)
    image.putpalette(colours)
    return image


RED, GREEN, BLUE, MIDDLE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128,)
KINDS: list[tuple[str, Image.Image, str, dict[str, Any], tuple[int, ...]]] = [
    # the kind that is said, what is saved, its format and options, the pixel that is shown: of 3 numbers, it has colour
    ("grey", of("L", 128), "png", {}, MIDDLE),
    ("grey", of("L", 128), "jpg", {}, MIDDLE),
    ("1-bit", of("1", 1), "png", {}, (255,)),
    ("1-bit", of("1", 0), "bmp", {}, (0,)),
    ("LA", of("LA", 0, 127), "png", {}, MIDDLE),
    ("LA", of("LA", 128, 255), "png", {}, MIDDLE),
    ("transparent grey", of("L", 7), "png", {"transparency": 7}, (255,)),
    ("transparent grey", of("L", 128), "png", {"transparency": 7}, MIDDLE),
    ("16-bit grey", deep("uint16", 32896), "png", {}, MIDDLE),
    ("16-bit grey", deep("uint16", 65535), "png", {}, (255,)),
    ("16-bit grey", deep("uint16", 100), "png", {}, (0,)),
    ("16-bit grey", deep("uint16", 32896), "tif", {}, MIDDLE),
    ("16-bit grey", deep(">u2", 32896), "tif", {}, MIDDLE),
    ("16-bit grey", deep("uint16", 32896), "pgm", {}, MIDDLE),
    ("16-bit grey", deep("int32", 32896), "tif", {}, MIDDLE),
    ("float grey", deep("float32", 128 / 255), "tif", {}, MIDDLE),
    ("float grey", deep("float32", 128), "tif", {}, MIDDLE),
    ("float grey", deep("float32", 32896), "tif", {}, MIDDLE),
    ("RGB", of("RGB", *RED), "png", {}, RED),
    ("RGB", of("RGB", *RED), "webp", {"lossless": True}, RED),
    ("transparent RGB", of("RGB", *RED), "png", {"transparency": RED}, (255, 255, 255)),
    ("RGBA", of("RGBA", 0, 0, 0, 0), "png", {}, (255, 255, 255)),
    ("RGBA", of("RGBA", 255, 0, 0, 127), "png", {}, (255, 128, 128)),
    ("RGBA", of("RGBA", 255, 0, 0, 127), "webp", {"lossless": True}, (255, 128, 128)),
    ("CMYK", of("CMYK", 0, 255, 255, 0), "tif", {}, RED),
    ("CMYK", of("CMYK", 0, 255, 255, 0), "jpg", {"quality": 100}, RED),
    ("palette", palette(*RED, *GREEN, *BLUE), "png", {}, GREEN),
    ("palette", palette(*RED, *GREEN, *BLUE), "bmp", {}, GREEN),
    ("transparent palette", palette(*RED, *GREEN), "png", {"transparency": 1}, (255, 255, 255)),
    ("transparent palette", palette(*RED, *GREEN), "png", {"transparency": b"\xff\x7f"}, (128, 255, 128)),
    ("transparent palette", palette(*RED, *GREEN), "png", {"transparency": 0}, GREEN),
]


@pytest.mark.parametrize(("kind", "image", "suffix", "options", "pixel"), KINDS)
def test_kinds(
    kind: str, image: Image.Image, suffix: str, options: dict[str, Any], pixel: tuple[int, ...], tmp_path: Path
) -> None:
    path = str(tmp_path / f"image.{suffix}")
    image.save(path, **options)
    colour = len(pixel) == 3
    assert files.has_colour(path) == colour
    picture = files.decode(path)
    assert (picture.kind, picture.turned, picture.image.mode) == (kind, False, "RGB" if colour else "L")
    x = files.read_as(path, (3, 4, 6))
    assert x.dtype == torch.uint8
    expected = torch.tensor(pixel if colour else pixel * 3).view(3, 1, 1)
    assert (x.int() - expected).abs().max() <= (2 if suffix == "jpg" else 0)
    grey = files.read_as(path, (1, 4, 6))
    assert grey.shape == (1, 4, 6)
    assert abs(int(grey[0, 0, 0]) - expected.view(3).float() @ torch.tensor([0.299, 0.587, 0.114])) <= 2


PLACES = {  # of the first pixel, and of the next in its row, by orientation: row and column in what is shown
    1: ((0, 0), (0, 1)),
    2: ((0, 2), (0, 1)),
    3: ((1, 2), (1, 1)),
    4: ((1, 0), (1, 1)),
    5: ((0, 0), (1, 0)),
    6: ((0, 1), (1, 1)),
    7: ((2, 1), (1, 1)),
    8: ((2, 0), (1, 0)),
}


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {"quality": 100}),
        ("png", {}),
        ("webp", {"lossless": True}),
        ("tif", {}),
        ("tif", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("orientation", PLACES)
def test_turned_as_exif_says(orientation: int, suffix: str, options: dict[str, Any], tmp_path: Path) -> None:
    pixels = np.zeros((2, 3), np.uint8)
    pixels[0, :2] = 250, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(pixels).save(path, exif=exif, **options)
    picture = files.decode(path)
    assert picture.turned == (orientation > 1)
    shown = np.array(picture.image.convert("L"))
    assert shown.shape == ((2, 3) if orientation < 5 else (3, 2))
    first, second = PLACES[orientation]
    assert shown[first] > 240
    assert 110 < shown[second] < 130


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_turns_nothing(tmp_path: Path) -> None:
    of("L", 128).save(tmp_path / "image.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert not files.decode(str(tmp_path / "image.jpg")).turned


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (deep("float32", float("nan")), "nan"),
        (deep("float32", 1e6), "1e+06"),
        (deep("int32", -1), "-1"),
        (deep("int32", 70000), "70000"),
    ],
)
def test_values_without_a_known_white_are_refused(image: Image.Image, words: str, tmp_path: Path) -> None:
    path = str(tmp_path / "image.tif")
    image.save(path)
    with pytest.raises(UserError, match=r"image\.tif: not a readable image .*0 to 65535") as error:
        files.read_as(path, (1, 4, 6))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("kinds", "channels", "words"),
    [
        ({"RGB": 3}, 3, ""),
        ({"grey": 3}, 1, ""),
        ({"RGB": 3, "grey": 1}, 3, "converted 1 grey to colour"),
        ({"grey": 3, "RGB": 1}, 1, "converted 1 RGB to grey"),
        ({"RGB": 3, files.TURNED: 2}, 3, "turned 2 by their EXIF"),
        (
            {"RGB": 9, "16-bit grey": 1, "CMYK": 2, "RGBA": 3, files.TURNED: 4},
            3,
            "converted 3 RGBA, 2 CMYK, 1 16-bit grey to colour; turned 4 by their EXIF",
        ),
    ],
)
def test_conversions_in_words(kinds: dict[str, int], channels: int, words: str) -> None:
    assert files.conversions(Counter(kinds), channels) == words
