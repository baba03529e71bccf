"""The triple of the convolution, by a compiled kernel where one serves, else by PyTorch's forward primitives.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], delta [N, O, I, J]; with one axis or three, so many letters.
"""

from torch import Tensor

from manualbp.kernels import conv_primitives as primitives
from manualbp.kernels.cpu import conv as compiled
from manualbp.kernels.cuda import calls as on_a_card
from manualbp.kernels.geometry import Geometry
from manualbp.kernels.layout import laid_out


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y = sum_cpq x[n, c, s i + d p - pad, ...] w[o, c, p, q] + b[o]; channels_last if x or w is."""
    x = laid_out(x, g.last)
    if compiled.serves(compiled.CORRELATE, g, x.shape[0], x.shape[1], w.shape[0], x, w, b):
        return compiled.correlate(x, w, b, g)
    return primitives.correlate(x, w, b, g)


def full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """The rotated kernel slid over the zero-padded delta, which stride spreads, + b[c]: [N, C, H, W]."""
    delta = laid_out(delta, g.last)
    if compiled.serves(compiled.FULL_CONVOLVE, g, delta.shape[0], w.shape[1] * g.groups, w.shape[0], delta, w, b):
        return compiled.full_convolve(delta, w, b, g)
    return primitives.full_convolve(delta, w, b, g)


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw[o, c, p, q] = sum_nij delta[n, o, i, j] x[n, c, s i + d p - pad, ...]: [O, C / groups, P, Q]."""
    if compiled.serves(compiled.KERNEL_GRADIENT, g, x.shape[0], x.shape[1], delta.shape[1], x, delta):
        dw = compiled.kernel_gradient(x, delta, g)
    elif on_a_card.serves_kernel_gradient(x, delta, g):
        from manualbp.kernels.cuda import conv as in_triton  # Triton takes a second to load

        dw = in_triton.kernel_gradient(x, delta, g)
    else:
        dw = primitives.kernel_gradient(x, delta, g)
    # In the order of memory that a kernel has beside such images: PyTorch would copy it to that one.
    return laid_out(dw, True) if g.last else dw.contiguous().flatten().reshape(dw.shape)
