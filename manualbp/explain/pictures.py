"""Maps of numbers as PNG pictures in data: URIs, written with zlib alone.

A picture's colours are blue below zero and orange above, the stronger the farther, transparent at zero: whatever paper
it lies on, white or black, is its zero. So one picture serves a light page and a dark one.
"""

import base64
import struct
import zlib
from dataclasses import dataclass

import torch
import torch.nn.functional as T
from torch import Tensor

NEGATIVE, POSITIVE = (0x4A, 0x86, 0xC6), (0xCD, 0x7D, 0x30)  # means of base.css's scale in light and in dark
LINE = (128, 128, 128)
LEVELS = 63  # of each sign
NO_NUMBER = 2 * LEVELS + 1  # in the palette: between the maps, and what is not finite
PALETTE = bytes([*NEGATIVE * LEVELS, *LINE, *POSITIVE * LEVELS, *LINE])
ALPHA = bytes([*(round(255 * abs(i) / LEVELS) for i in range(-LEVELS, LEVELS + 1)), 110])
LARGEST = 56  # pixels of a map's longer side; of a larger one some numbers are left out
SMALLEST = 18  # a smaller one is drawn larger
THIN = 40  # pixels of a map, above which the lines between the maps are of two
BEYOND = 0.01  # of a map's pixels may be beyond the scale: a few very large ones would leave the others pale


@dataclass(frozen=True)
class Picture:
    """scale: from this size on numbers are in full colour. low, high: the range of all that were given.

    of: a pixel stands for `of` x `of` numbers, the largest of them in size. columns: maps in a row.
    """

    uri: str
    scale: float
    low: float
    high: float
    of: int
    columns: int


def sheet(maps: Tensor, columns: int = 8, smallest: int = SMALLEST) -> Picture:
    """Maps [n, h, w], or [n, numbers] which become squares, side by side in rows of so many at most."""
    maps = maps.detach().double()
    finite = maps[maps.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if maps.dim() == 2:
        side = -int(-(maps.shape[1] ** 0.5) // 1)
        maps = T.pad(maps, (0, side * side - maps.shape[1]), value=torch.nan).view(-1, side, side)
    of = -(-max(maps.shape[1:]) // LARGEST)
    if of > 1:
        _, at = T.max_pool2d(maps.abs(), of, ceil_mode=True, return_indices=True)
        maps = maps.flatten(1).gather(1, at.flatten(1)).view(at.shape)
    sizes = maps[maps.isfinite()].abs().sort().values
    beyond = int(BEYOND * len(sizes)) if max(maps.shape[1:]) > 1 else 0
    scale = float(sizes[-1 - beyond] or sizes[-1]) if len(sizes) else 0.0
    up = max(1, smallest // max(maps.shape[1:]))
    level = (maps / (scale or 1)).clamp(-1, 1).mul(LEVELS).round() + LEVELS
    level = torch.where(maps.isfinite(), level, NO_NUMBER).to(torch.uint8)
    level = level.repeat_interleave(up, 1).repeat_interleave(up, 2)
    rows = -(-len(level) // columns)
    columns = -(-len(level) // rows)
    line = 1 + (max(level.shape[1:]) > THIN)
    level = T.pad(level, (0, line, 0, line, 0, rows * columns - len(level)), value=NO_NUMBER)
    h, w = level.shape[1:]
    pixels = level.view(rows, columns, h, w).transpose(1, 2).reshape(rows * h, columns * w)[:-line, :-line]
    return Picture(png(pixels), scale, low, high, of, columns)


def ramp() -> str:
    """The scale itself, from full blue to full orange."""
    return png(torch.arange(2 * LEVELS + 1, dtype=torch.uint8)[None])


def png(pixels: Tensor) -> str:
    """[h, w] uint8, numbers in the palette, or [1 or 3, h, w] uint8, grey or colours, as a data: URI."""
    if pixels.dim() == 2:
        kind, before = 3, chunk(b"PLTE", PALETTE) + chunk(b"tRNS", ALPHA)
        pixels = pixels[None]
    else:
        kind, before = (0 if len(pixels) == 1 else 2), b""
    h, w = pixels.shape[1:]
    rows = pixels.movedim(0, 2).reshape(h, -1)
    rows = T.pad(rows, (1, 0))  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", w, h, 8, kind, 0, 0, 0)
    packed = zlib.compress(bytes(rows.flatten().tolist()), 9)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
