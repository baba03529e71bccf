"""The kernel gradient, product by product: direct.c, which has the formula. It serves every shape of two axes.

x and delta lie in channels_last, [N, H, W, C] in memory, and so does what is made of them.
"""

from ctypes import addressof, c_ssize_t

from torch import Tensor

from manualbp.kernels.cpu.build import scratch, threads
from manualbp.kernels.cpu.calls import KIND, call, images_last
from manualbp.kernels.geometry import Geometry


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw[o, c, p, q] = sum_nij delta[n, o, i, j] x[n, c, s i + d p - pad, ...]."""
    (N, C, H, W), (_, O, I, J) = x.shape, delta.shape
    dw, settings = images_last(x, O, C // g.groups, *g.w_size), (g.stride, g.dilation, g.padding)
    of_x, of_delta = (H * W * C, W * C, C), (I * J * O, J * O, O)
    if g.w_size == (1, 1) and g.padding == (0, 0):
        # Pixels between those that the one tap sees are passed over. Of all pixels all images are one column.
        of_x, settings = (of_x[0], of_x[1] * g.stride[0], of_x[2] * g.stride[1]), ((1, 1), g.dilation, g.padding)
        N, H, W, I, J = N, I, J, I, J
        if max(g.stride) == 1:
            of_x, of_delta, (N, H, W, I, J) = (0, C, C), (0, O, O), (1, N * I * J, 1, N * I * J, 1)
    numbers = N, H, W, C, I, J, O, *g.w_size, g.groups, *(n for both in settings for n in both)
    of = (c_ssize_t * 22)(*numbers, *of_x, *of_delta)
    kind, t = KIND[x.dtype], threads()
    room = scratch(4 * call("direct_room", kind, addressof(of), t))
    call("direct_kernel_gradient", kind, x, delta, dw, room, addressof(of), t)
    return dw
