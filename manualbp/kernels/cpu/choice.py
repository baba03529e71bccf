"""Which kernel serves which convolution on a CPU: measured, and chosen here alone."""

from math import prod

import torch

from manualbp.kernels.cpu import triple
from manualbp.kernels.geometry import Geometry

TORCH, DIRECT, WINOGRAD_4, WINOGRAD_2 = "torch", "direct", "winograd, 4 x 4", "winograd, 2 x 2"
TILE = {WINOGRAD_4: 4, WINOGRAD_2: 2}


def of_convolution(face: str, dtype: torch.dtype, g: Geometry, N: int, C: int, O: int) -> str:
    """Which kernel makes a face ("correlate", "full_convolve", "kernel_gradient") of N images, of C maps to O.

    Beside each line its time over that of PyTorch's own (oneDNN), float32, and its largest error over PyTorch's: 1 to
    128 images, one thread of an AMD Zen 4 (AVX-512). What is slower is left to PyTorch's operation.

    winograd, 16 maps or more, stride 1                                      time            error
    correlate, full_convolve: 3 x 3, padded by 1, from 24 maps, 32 tiles     0.41 to 0.70    0.8 to 1.6
                              3 x 3, 128 tiles of 2 x 2                      0.64 to 0.95    0.2 to 0.4
                              5 x 5, 64 tiles                                0.69 to 0.81    0.4 to 0.8
                              of 3 x 3 (6 x 6, 9 x 9), 32 maps, 64 tiles     0.67 to 0.77    0.2 to 0.8
    kernel_gradient:          3 x 3, 8192 positions or more                  0.23 to 0.60    0.4 to 2.3
                              (of 64 maps 4096, of 256 maps 2048)            0.30 to 0.56    0.9 to 1.7
                              3 x 3, 64 tiles of 2 x 2                       0.45 to 0.86    0.2 to 1.8
                              5 x 5, 8192 positions or more                  0.70 to 0.76    1.5 to 2.4
                              of 3 x 3 (6 x 6, 9 x 9), 64 tiles              0.47 to 0.77    0.5 to 2.1
    direct                                                                   time
    kernel_gradient:          stride 2, 7 x 7                                0.72 to 0.87
                              1 x 1                                          0.70 to 0.79
                              few maps                                       0.65 to 0.81
                              groups, a map each, too                        0.63 to 0.84
                              128 positions or fewer                         0.25 to 1.07

    Of bfloat16 the CPU makes products in half the time (AVX512-BF16), where the tiles are float32 as before:

    correlate, full_convolve: 3 x 3, padded by 1, 64 to 256 maps, few tiles overhanging: 4 x 4      0.79 to 1.03
    kernel_gradient:          3 x 3, 16 maps, 32 tiles: 4 x 4                                       0.64 to 0.94
                              5 x 5, 16 maps, 8192 positions                                        1.18

    With fewer tiles the transform of the kernels weighs more than the products. Tiles of 4 x 4 round more than those of
    2 x 2; where PyTorch sums few numbers, or without a vendor's kernel, it rounds so little that only the latter do.
    What is above 1 is there because PyTorch has no forward operation for it: by those it has it takes 1.5 to 20.
    """
    if dtype == torch.float64 or len(g.w_size) != 2 or 0 in (N, C, O):
        return TORCH
    if triple.fits(g) and min(C, O) >= 16:
        kernel = _by_tiles(face, dtype != torch.float32, g, N, C, O)
        if kernel != TORCH:
            return kernel
    served = dtype == torch.float32 or g.groups > 1 or N * prod(g.y_size) <= 128
    return DIRECT if served and face == "kernel_gradient" else TORCH


def _by_tiles(face: str, half: bool, g: Geometry, N: int, C: int, O: int) -> str:
    if g.w_size not in ((3, 3), (5, 5)):
        return _by_sums(face, half, g, N, C, O)
    three = g.w_size[0] == 3
    if face == "kernel_gradient":
        many = 8192 if not three or min(C, O) < 64 else 4096 if min(C, O) < 256 else 2048
        if N * prod(g.y_size) >= many or (half and three and triple.tiles(4, N, g.y_size) >= 32):
            return WINOGRAD_4 if three else WINOGRAD_2
        return WINOGRAD_2 if three and not half and triple.tiles(2, N, g.y_size) >= 64 else TORCH
    size, maps = (g.y_size, C) if face == "correlate" else (g.x_size, O)
    tiles = triple.tiles(4, N, size)
    if three and g.padding == (1, 1) and maps >= 24 and tiles >= 32:
        overhang = 16 * tiles / (N * prod(size))
        return TORCH if half and (min(C, O) < 64 or max(C, O) > 256 or overhang > 1.2) else WINOGRAD_4
    return WINOGRAD_2 if not half and triple.tiles(2, N, size) >= (128 if three else 64) else TORCH


def _by_sums(face: str, half: bool, g: Geometry, N: int, C: int, O: int) -> str:
    """Of kernels that are sums of 3 x 3 without a tap to spare; padded by less, dx would be made of many zeros."""
    few = triple.tiles(2, N, g.y_size) < 64
    if half or few or min(C, O) < 32 or any(P % 3 for P in g.w_size) or prod(g.w_size) < 36:
        return TORCH
    if face == "kernel_gradient" and N * prod(g.y_size) >= 4096:
        return WINOGRAD_4 if 36 * triple.tiles(4, N, g.y_size) < 16 * triple.tiles(2, N, g.y_size) else WINOGRAD_2
    same = all(2 * pad >= P - 1 for P, pad in zip(g.w_size, g.padding, strict=True))
    return WINOGRAD_2 if same or face != "full_convolve" else TORCH
