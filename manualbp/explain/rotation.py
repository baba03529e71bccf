"""The page of a convolution alone: its panels, and what becomes of dx if the rotation is left out."""

import torch
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain import convolution
from manualbp.explain.convolution import forward, geometry_of
from manualbp.explain.data import Draft, Grid
from manualbp.kernels import reference
from manualbp.nn import TrueConv2d


def describe(draft: Draft, layer: nn.Conv2d, t: dict[str, Grid]) -> None:
    convolution.describe(draft, layer, t)
    if draft.alone and draft.maps is None:
        _not_rotated(draft, layer, t)


def _not_rotated(draft: Draft, layer: nn.Conv2d, t: dict[str, Grid]) -> None:
    """What the rotation is for: the loss 1/2 sum (y - target)^2, target = y - delta, after a step along either dx.

    The rate is halved as long as that makes the loss after a step along the right one smaller.
    """
    x, w, delta, right = (t[name].values for name in ("x", "w", "delta", "dx"))
    true = isinstance(layer, TrueConv2d)
    kernel = w if true else w.flip(-2, -1)
    numbers = reference.full_convolve(delta.tolist(), kernel.tolist(), geometry_of(layer, x, w))
    wrong = torch.tensor(numbers, dtype=x.dtype)[..., : x.shape[-2], : x.shape[-1]]
    draft.grid("dx_wrong", wrong, "dx by the wrong kernel", "gradient", stem="dx")
    b, target = t["b"].values if "b" in t else None, t["y"].values - delta

    def loss(rate: float, by: Tensor) -> float:
        return float(F.mse_loss(forward(layer, x - rate * by, w, b), target, reduction="sum") / 2)

    rate = 1.0
    while loss(rate / 2, right) < loss(rate, right):
        rate /= 2
    losses = {"before": loss(0, right), "right": loss(rate, right), "wrong": loss(rate, wrong), "rate": rate}
    title = "if the kernel were rotated here, too" if true else "if the kernel were not rotated"
    draft.more["wrong"] = {"title": title, "grid": "dx_wrong", "loss": losses}
