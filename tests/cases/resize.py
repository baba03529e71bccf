"""Adaptive pooling, unpooling and interpolation."""

import torch
from torch import Tensor

from tests.cases.make import Case, Make, distinct, fixed, normal, together


def positions(*shape: int, size: int) -> Make:
    """Different positions in each map of `size` pixels."""

    def make(g: torch.Generator) -> tuple[Tensor]:
        *maps, I, J = shape
        index = torch.stack([torch.randperm(size, generator=g)[: I * J] for _ in range(int(torch.tensor(maps).prod()))])
        return (index.reshape(shape),)

    return make


ADAPTIVE_AVG_POOL2D = [
    Case("adaptive_avg_pool2d", name, together(normal(*x), fixed(size)))
    for name, x, size in [
        ("global", (2, 3, 5, 4), 1),
        ("tiles", (2, 2, 6, 4), (3, 2)),
        ("overlap", (2, 2, 7, 5), (3, 4)),
        ("more windows than pixels", (1, 2, 3, 4), (5, 8)),
        ("one axis as it is, unbatched", (2, 7, 6), (None, 4)),
    ]
]

ADAPTIVE_MAX_POOL2D = [
    Case("adaptive_max_pool2d", name, together(distinct(*x), fixed(size)), kwargs)
    for name, x, size, kwargs in [
        ("global", (2, 3, 5, 4), 1, {}),
        ("tiles", (2, 2, 6, 4), (3, 2), {"return_indices": True}),
        ("overlap", (2, 2, 7, 5), (3, 4), {"return_indices": True}),
        ("more windows than pixels", (1, 2, 3, 4), (5, 8), {}),
        ("one axis as it is, unbatched", (2, 7, 6), (None, 4), {}),
    ]
]

MAX_UNPOOL2D = [
    Case("max_unpool2d", name, together(normal(*x), positions(*x, size=size)), kwargs)
    for name, x, size, kwargs in [
        ("tiles", (2, 2, 3, 2), 24, {"kernel_size": 2}),
        ("stride, padding", (2, 2, 3, 2), 5 * 3, {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("output_size", (2, 2, 3, 2), 7 * 5, {"kernel_size": 2, "output_size": (7, 5)}),
        ("whole shape", (2, 2, 3, 2), 8 * 5, {"kernel_size": (2, 3), "stride": 3, "output_size": (2, 2, 8, 5)}),
        ("unbatched", (2, 3, 2), 24, {"kernel_size": 2}),
    ]
]

INTERPOLATE = [
    Case("interpolate", f"{mode}, {name}", normal(*x), {"mode": mode, **kwargs})
    for mode, name, x, kwargs in [
        ("nearest", "factor 2", (2, 2, 3, 4), {"scale_factor": 2}),
        ("nearest", "factors 3 and 1/2", (2, 2, 3, 4), {"scale_factor": (3, 0.5)}),
        ("nearest", "size", (2, 2, 5, 4), {"size": (3, 7)}),
        ("nearest", "factor 2.4", (2, 2, 3, 5), {"scale_factor": 2.4}),
        ("nearest", "factor 2.4, recomputed", (2, 2, 3, 5), {"scale_factor": 2.4, "recompute_scale_factor": True}),
        ("nearest-exact", "size", (2, 2, 5, 4), {"size": (3, 7)}),
        ("bilinear", "factor 2", (2, 2, 3, 4), {"scale_factor": 2.0}),
        ("bilinear", "size", (2, 2, 5, 4), {"size": (3, 7)}),
        ("bilinear", "size, corners", (2, 2, 5, 4), {"size": (3, 7), "align_corners": True}),
        ("bilinear", "factors 1.7 and 0.6", (2, 2, 4, 5), {"scale_factor": (1.7, 0.6), "align_corners": False}),
        ("bilinear", "factor 1.7, corners", (1, 2, 4, 3), {"scale_factor": 1.7, "align_corners": True}),
        ("bilinear", "recomputed", (1, 2, 4, 3), {"scale_factor": 1.7, "recompute_scale_factor": True}),
        ("bilinear", "from one pixel", (2, 3, 1, 1), {"size": 4}),
        ("bicubic", "factors 1.7 and 0.6", (1, 2, 4, 5), {"scale_factor": (1.7, 0.6)}),
        ("bicubic", "size, corners", (2, 1, 5, 4), {"size": (3, 7), "align_corners": True}),
        ("area", "size", (2, 2, 5, 4), {"size": (3, 7)}),
        ("nearest", "one axis", (2, 2, 5), {"size": 7}),
        ("linear", "one axis", (2, 2, 5), {"scale_factor": 1.7}),
        ("area", "one axis", (2, 2, 5), {"scale_factor": 0.6}),
        ("nearest", "three axes", (1, 2, 2, 3, 4), {"scale_factor": 2}),
        ("nearest-exact", "three axes", (1, 2, 2, 3, 4), {"size": (3, 4, 2)}),
        ("trilinear", "three axes", (1, 2, 2, 3, 4), {"scale_factor": (1.5, 2, 0.7)}),
        ("trilinear", "three axes, corners", (1, 1, 2, 3, 4), {"size": (3, 2, 5), "align_corners": True}),
        ("area", "three axes", (1, 1, 2, 3, 4), {"size": (3, 2, 5)}),
    ]
]
