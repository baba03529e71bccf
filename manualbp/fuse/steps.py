"""The functions that a fused forward calls, the layer that each stands for first (None for a function of the model)."""

from math import prod
from typing import Any

from torch import Tensor, nn

from manualbp.functional.activation.relu import relu_bits
from manualbp.functional.checks import low_precision, same_kind
from manualbp.functional.pool import max_pool2d
from manualbp.functional.rule import run
from manualbp.fuse.conv_pool import conv2d_avg_pool2d
from manualbp.fuse.norm import batch_norm_with_scale
from manualbp.fuse.norm import recorrelated as again
from manualbp.fuse.pool import activated
from manualbp.fuse.recompute import Reactivate, Recipe
from manualbp.kernels.geometry import convolution, per_axis
from manualbp.nn.norm import batch_norm_settings


def normalised(norm: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, s, t): the layer's output and what it comes to, z = s x + t."""
    return batch_norm_with_scale("batch_norm", x, *batch_norm_settings(norm, x))


def reactivated(activation: nn.Module | None, z: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """a = phi(z), phi being that of the recipe; kept: the sources."""
    return run(Reactivate, z, recipe, *sources)


def recorrelated(conv: Any, a: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """The convolution of a; kept: the sources instead of a."""
    x, w, b = low_precision(a, conv.weight, conv.bias)
    same_kind("conv2d", input=x, weight=w, bias=b)
    g = convolution("conv2d", x.shape, w.shape, conv.stride, conv.padding, conv.dilation, conv.groups, b)
    return again(x, w, b, g, recipe, sources)


def rectified(activation: nn.Module | None, z: Tensor) -> Tensor:
    """max(z, 0); kept: a bit a number."""
    return relu_bits(z)


def activated_pool(pool: Any, x: Tensor, phi: str, flat: bool) -> Tensor:
    """phi(pool(x)); if `flat`, with the maps one behind the other in memory: to flatten them copies nothing then."""
    y = max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    return activated(phi, y.contiguous() if flat else y)


def folded(conv: Any, pool: Any, x: Tensor) -> Tensor:
    """pool(conv(x)) as one convolution."""
    how = conv.stride, conv.padding, conv.dilation, conv.groups, pool.kernel_size, pool.stride
    return conv2d_avg_pool2d(x, conv.weight, conv.bias, *how)


def folds(conv: Any, pool: Any) -> bool:
    """Whether the two layers are one convolution, of fewer products than the first."""
    average_of_all = not (any(per_axis("fuse", "padding", pool.padding, 2, 0)) or pool.ceil_mode)
    if not average_of_all or pool.divisor_override is not None or conv.padding_mode != "zeros":
        return False
    m, t = (per_axis("fuse", name, getattr(pool, name), 2, 1) for name in ("kernel_size", "stride"))
    axes = zip(conv.stride, conv.dilation, conv.kernel_size, m, strict=True)
    taps = [s * (a - 1) + d * (P - 1) + 1 for s, d, P, a in axes]
    return prod(taps) < prod(conv.kernel_size) * prod(t)
