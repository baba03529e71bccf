"""Each map times a number, plus a number: what a normalisation is, once its statistics are known.

    y[n,c,...] = s[c] x[n,c,...] + t[c]

x, s and t stand in y once for each of its numbers, s[c] and t[c] in all numbers of a map, so with delta = dL/dy

    dL/dx = s delta        dL/ds[c] = sum delta x        dL/dt[c] = sum delta        the sums over all axes but c

Shapes: x, y, delta [N, C, ...]; s, t [C].
"""

from typing import Any

from torch import Tensor

from manualbp.functional.conv import over_all_but_maps
from manualbp.functional.rule import BilinearRule, run
from manualbp.kernels.norm import affine
from manualbp.kernels.precision import wide


class Affine(BilinearRule):
    """y = s x + t, map by map; t may be None. dL/dx = s delta, dL/ds = sum delta x, dL/dt = sum delta.

    Kept: s if dL/dx is asked for, x if dL/ds is.
    """

    @staticmethod
    def forward(x: Tensor, s: Tensor, t: Tensor | None) -> Tensor:
        return affine(x, s, t)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, s = ctx.saved_tensors
        x_needed, s_needed, t_needed = ctx.needs_input_grad
        d = delta.to(wide(delta.dtype))
        dx = run(Affine, delta, s, None) if x_needed else None
        ds = over_all_but_maps(d * x) if s_needed else None
        dt = over_all_but_maps(d) if t_needed else None
        return dx, ds, dt
