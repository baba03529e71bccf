"""The functions that a fused forward calls, the layer that each stands for first (None for a function of the model).

A step of several layers that take one value is given the others as `more`: a layer and its settings each.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from manualbp.functional.activation.relu import relu_bits
from manualbp.functional.activation.table import Activation
from manualbp.functional.checks import low_precision
from manualbp.functional.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from manualbp.functional.linear import linear
from manualbp.functional.pool import max_pool2d
from manualbp.functional.rule import run
from manualbp.fuse.conv_pool import conv2d_avg_pool2d
from manualbp.fuse.norm import batch_norm_with_scale, correlation
from manualbp.fuse.pool import pooled
from manualbp.fuse.recompute import Layer, Reactivate, Recipe, factor_again
from manualbp.kernels.geometry import convolution, per_axis, transposed
from manualbp.nn.norm import batch_norm_settings

TRANSPOSED = conv_transpose1d, conv_transpose2d, conv_transpose3d
Settings = tuple[Any, ...] | None  # a function's, or None for those of the layer
More = tuple[tuple[Any, Settings], ...]
Outputs = tuple[Tensor, ...]


def normalised(norm: Any, x: Tensor, settings: Settings, phi: Activation | None) -> tuple[Tensor, Tensor, Tensor]:
    """(phi(z), s, t): batch norm's output and what it comes to, z = s x + t. The settings are the layer's, or given."""
    return batch_norm_with_scale("batch_norm", x, phi, *(settings or batch_norm_settings(norm, x)))


def reactivated(activation: nn.Module | None, z: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """a = phi(z), phi being that of the recipe; kept: the sources."""
    return run(Reactivate, z, recipe, *(x.view_as(x) if x is z else x for x in sources))


def activated(activation: nn.Module | None, z: Tensor, phi: Activation) -> Tensor:
    """a = phi(z), not in the place of z."""
    return phi.of(z)


def gated(layer: nn.Module | None, a: Tensor, g: Tensor, recipe: Recipe, *sources: Tensor) -> Tensor:
    """a g; kept: g, and the sources instead of a."""
    if torch.broadcast_shapes(a.shape, g.shape) != a.shape:
        return a * g
    return factor_again(a, [("product", None, g, None)], recipe, sources)[0]


def recorrelated(conv: Any, a: Tensor, settings: Settings, more: More, recipe: Recipe, *sources: Tensor) -> Outputs:
    """The convolutions of a; kept: the sources instead of a."""
    layers: list[Layer | Tensor] = []
    for layer, how in ((conv, settings), *more):
        given = how or (layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        w, b, stride, padding, dilation, groups = given
        op = f"conv{w.ndim - 2}d"
        a, w, b = low_precision(op, input=a, weight=w, bias=b)
        g = convolution(op, a.shape, w.shape, stride, padding, dilation, groups, b, axes=w.ndim - 2)
        layers.append(correlation(a, w, b, g))
    return factor_again(a, layers, recipe, sources)


def retransposed(conv: Any, a: Tensor, settings: Settings, more: More, recipe: Recipe, *sources: Tensor) -> Outputs:
    """The transposed convolutions of a; kept: the sources instead of a."""
    layers: list[Layer | Tensor] = []
    for layer, how in ((conv, settings), *more):
        if how is None:
            how = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
            how = layer.weight, layer.bias, *how
        w, b, stride, padding, behind, groups, dilation = how
        axes = w.ndim - 2
        op = f"conv_transpose{axes}d"
        a, w, b = low_precision(op, input=a, weight=w, bias=b)
        g = transposed(op, a.shape, w.shape, stride, padding, behind, groups, dilation, b, axes=axes)
        if a.ndim != axes + 2 or tuple(a.shape[2:]) != g.y_size:  # one image only, or room for more windows
            layers.append(TRANSPOSED[axes - 1](a, *how))
        else:
            layers.append(("full_convolve", g.of(a, w), w, b))
    return factor_again(a, layers, recipe, sources)


def relinear(layer: Any, a: Tensor, settings: Settings, more: More, recipe: Recipe, *sources: Tensor) -> Outputs:
    """The linear layers of a; kept: the sources instead of a."""
    as_rows = a.ndim > 1 and recipe.is_plain and all(t.shape == a.shape for t in sources)
    layers: list[Layer | Tensor] = []
    for one, how in ((layer, settings), *more):
        weight, bias = how or (one.weight, one.bias)
        a, w, b = low_precision("linear", input=a, weight=weight, bias=bias)
        if w.ndim != 2 or a.shape[-1:] != w.shape[-1:] or not (as_rows or a.ndim == 2):
            layers.append(linear(a, weight, bias))
        else:
            layers.append(("linear", None, w, b if b is None else b.expand(w.shape[0])))
    if a.ndim <= 2:
        return factor_again(a, layers, recipe, sources)
    ys = factor_again(a.flatten(0, -2), layers, recipe, [t.flatten(0, -2) for t in sources] if as_rows else sources)
    own = (isinstance(layer, Tensor) for layer in layers)
    return tuple(y if there else y.unflatten(0, a.shape[:-1]) for there, y in zip(own, ys, strict=True))


def rectified(activation: nn.Module | None, z: Tensor) -> Tensor:
    """max(z, 0); kept: a bit a number."""
    return relu_bits(z)


def activated_pool(pool: Any, x: Tensor, phi: Activation, fixed: bool, flat: bool) -> Tensor:
    """phi(pool(x)); if `flat`, with the maps one behind the other in memory: to flatten them copies nothing then.

    Where the result is not `fixed`, but may be changed in place, its slope is not told by it.
    """
    how = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    if fixed and not flat:
        return pooled("max_pool2d", x, phi, *how)
    z = max_pool2d(x, *how)
    z = z.contiguous() if flat else z
    if fixed or not phi.of_output:
        return phi.of(z)
    return relu_bits(z) if phi.name == "relu" else run(Reactivate, z, Recipe(phi, ("plain",)), z.view_as(z))


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
