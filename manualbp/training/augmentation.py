"""How training images are changed at random: uint8 batches x (n, channels, height, width), on the device they are on.

What torchvision's v2 transforms draw once for a whole batch is drawn for every image here: shifts and mirror images.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as T
from torch import Tensor
from torchvision.transforms import v2

# Natural logarithms of the scale and of what it is multiplied with across and divided by down, angle in radians, shifts
# in halves of the image.
WARP = torch.tensor([[0.22], [0.15], [0.15], [0.26], [0.26]])


def flip(x: Tensor, chosen: Tensor) -> Tensor:
    """The images of x that are chosen (n,) mirrored."""
    return torch.where(chosen.to(x.device)[:, None, None, None], x.flip(3), x)


def crop(x: Tensor, margins: tuple[int, int], mode: str, generator: torch.Generator) -> Tensor:
    """Every image of x shifted by up to `margins` pixels, down and across.

    mode: what stands where it leaves, "reflect" (its mirror image) or "constant" (black). In a sixth of the time of
    torchvision's v2.RandomCrop, one image at a time.
    """
    n, _, height, width = x.shape
    padded = T.pad(x, (margins[1], margins[1], margins[0], margins[0]), mode=mode)
    top, left = (torch.randint(2 * margin + 1, (n,), generator=generator).tolist() for margin in margins)
    return torch.stack([image[:, i : i + height, j : j + width] for image, i, j in zip(padded, top, left, strict=True)])


def warp(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image of x scaled, stretched, turned and shifted at random, by up to `WARP`.

    Its own mirror image stands where it leaves. (torchvision's v2.RandomAffine has black there.)
    """
    scale, stretch, angle, right, down = ((2 * torch.rand(5, len(x), generator=generator) - 1) * WARP).unbind()
    width, height = (scale + stretch).exp(), (scale - stretch).exp()
    rows = [width * angle.cos(), -height * angle.sin(), right], [width * angle.sin(), height * angle.cos(), down]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = T.affine_grid(matrix.to(x.device), list(x.shape), align_corners=False)
    warped = T.grid_sample(x.float(), grid, padding_mode="reflection", align_corners=False)
    return warped.round().to(x.dtype)


def by_torchvision(x: Tensor, labels: Tensor, kinds: Sequence[str], classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """x and its labels by those of v2.RandAugment, v2.RandomErasing (a quarter, black) and v2.MixUp that are in kinds.

    These draw from the global generator, which is left as it was. Mixed labels are shares (n, classes).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if "randaugment" in kinds:
            turn = v2.RandAugment()
            x = torch.stack([turn(image) for image in x])
        if "cutout" in kinds:
            cut = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1))
            x = torch.stack([cut(image) for image in x])
        if "mixup" in kinds:
            return v2.MixUp(alpha=0.2, num_classes=classes)(x.float(), labels)
    return x, labels
