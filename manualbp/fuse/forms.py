"""The bilinear layers whose first factor may be computed again, each with the three derivatives of its own rule.

    y = B(a, w) + b        dL/da = B(., w)^T delta        dL/dw = B(a, .)^T delta        dL/db: delta, summed over what
                                                                                         one number of b stands for
The derivations are those of functional.conv, functional.conv_transpose, functional.linear and fuse.product. A rule that
keeps a asks its own backward pass for all three; one that computes a again asks for each by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from manualbp.functional.conv import Correlate, FullConvolve, KernelGradient, over_all_but_maps
from manualbp.functional.linear import Linear
from manualbp.functional.rule import BilinearRule, run
from manualbp.fuse.product import Product


@dataclass(frozen=True)
class Form:
    """B: a rule of a, w, b and, for a convolution, a geometry `g`, which its derivatives take as well."""

    rule: type[BilinearRule]
    by_a: Callable[..., Tensor]  # dL/da of delta, w, g
    by_w: Callable[..., Tensor]  # dL/dw of a, delta, g, the shape of w
    by_b: Callable[..., Tensor]  # dL/db of delta


FORMS = {
    "correlate": Form(
        Correlate,
        lambda delta, w, g: run(FullConvolve, delta, w, None, g),
        lambda a, delta, g, shape: run(KernelGradient, a, delta, g),
        over_all_but_maps,
    ),
    "full_convolve": Form(
        FullConvolve,
        lambda delta, w, g: run(Correlate, delta, w, None, g),
        lambda a, delta, g, shape: run(KernelGradient, delta, a, g),
        over_all_but_maps,
    ),
    "linear": Form(
        Linear,
        lambda delta, w, g: run(Linear, delta, w.mT, None),
        lambda a, delta, g, shape: run(Linear, delta.mT, a.mT, None),
        lambda delta: delta.sum(0),
    ),
    "product": Form(
        Product,
        lambda delta, w, g: run(Product, delta, w, None),
        lambda a, delta, g, shape: (delta * a).sum_to_size(shape),
        lambda delta: delta,
    ),
}


def form_of(name: str, g: Any) -> tuple[Form, list[Any]]:
    """The form, and what follows b among its rule's arguments."""
    return FORMS[name], [] if g is None else [g]
