"""The triple of the convolution by PyTorch's forward primitives, for images of one, two or three axes.

Shapes: x [N, C, H, W], w [O, C / groups, P, Q], delta [N, O, I, J]; with one axis or three, so many letters.
"""

from math import prod

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.geometry import Geometry
from manualbp.kernels.precision import certainly_finite, wide

# By the number of axes.
CORRELATE = {1: T.conv1d, 2: T.conv2d, 3: T.conv3d}
FULL_CONVOLVE = {1: T.conv_transpose1d, 2: T.conv_transpose2d, 3: T.conv_transpose3d}

# Elements of the matrix of windows that is built at a time: what a CPU's cache holds; a GPU wants few large products.
CHUNK = {"cpu": 2**20, "cuda": 2**27}

# Output positions whose windows are built at a time where rows are taken in pairs.
PAIRED = 2**14


def correlate(x: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """y = sum_cpq x[n, c, s i + d p - pad, ...] w[o, c, p, q] + b[o]."""
    return CORRELATE[len(g.w_size)](x, w, b, g.stride, g.padding, g.dilation, g.groups)


def full_convolve(delta: Tensor, w: Tensor, b: Tensor | None, g: Geometry) -> Tensor:
    """The rotated kernel slid over the zero-padded delta, which stride spreads, + b[c]: [N, C, H, W]."""
    # Pixels behind the last window see no delta: they are left out by the division in y_size and put back here.
    behind = [
        (H + 2 * pad - reach) % s for H, pad, reach, s in zip(g.x_size, g.padding, g.reach, g.stride, strict=True)
    ]
    convolve = FULL_CONVOLVE[len(g.w_size)]
    return convolve(delta, w, b, g.stride, g.padding, behind, g.groups, g.dilation)


def kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """dw[o, c, p, q] = sum_nij delta[n, o, i, j] x[n, c, s i + d p - pad, ...]: [O, C / groups, P, Q].

    0 times NaN is NaN, and a tap over the padding sees neither: where it sees nothing but numbers, the sum is theirs.
    """
    dw = _product_of_windows(x, delta, g)
    if certainly_finite(dw):
        return dw
    x_odd, delta_odd = ~x.isfinite(), ~delta.isfinite()
    numbers = _product_of_windows(x.masked_fill(x_odd, 0), delta.masked_fill(delta_odd, 0), g)
    met = (x_odd.to(x.dtype), torch.ones_like(delta)), (torch.ones_like(x), delta_odd.to(x.dtype))
    of_x, of_delta = (_product_of_windows(*both, g) > 0.5 for both in met)
    return torch.where(of_x | of_delta, _product_of_windows(x, delta, g, in_pairs=False), numbers)


def _product_of_windows(x: Tensor, delta: Tensor, g: Geometry, in_pairs: bool = True) -> Tensor:
    """`kernel_gradient` of numbers.

    A matrix product of the windows of x with delta. The windows are P Q times as large as x, so they are built and used
    up a few images at a time, in four pieces at least: shorter chains of additions round less. Half precision is summed
    over the pieces in float32. Which axis of the windows comes last decides how fast they are copied, and by whom they
    are multiplied.
    """
    (N, C), O, taps = x.shape[:2], delta.shape[1], prod(g.w_size)
    if N == 0:
        return x.new_zeros(O, C // g.groups, *g.w_size)
    positions = prod(delta.shape[2:])
    chunk = CHUNK.get(x.device.type, CHUNK["cuda"]) // (C * taps * positions)
    images = min(max(chunk, 2 * O // positions), N // 4) or 1  # a piece should be larger than the sum of them
    many = (128 if g.stride[-1] == 1 else 16) <= C and (x.stride(1) == 1 or C * taps >= 192)  # worth a copy
    if x.device.type == "cpu" and g.groups == 1 and many:
        plain = (len(g.w_size), *g.stride, *g.dilation) == (2, 1, 1, 1, 1) and g.w_size[0] > 1
        # Below, the sums cost what the products save.
        if in_pairs and plain and C * O >= 2**14 and x.dtype in (torch.float32, torch.float64):
            return _row_pairs(x, delta, g, min(PAIRED // positions, N // 2) or 1)
        return _maps_last(x, delta, g, images)
    return _maps_first(x, delta, g, images)


def _maps_last(x: Tensor, delta: Tensor, g: Geometry, images: int) -> Tensor:
    """The windows as [n i j, p q c]: a run of memory for each (q, c) where x is channels_last."""
    (N, C), O, axes = x.shape[:2], delta.shape[1], len(g.w_size)
    x, delta = x.movedim(1, -1), delta.movedim(1, -1)

    def piece(n: int) -> Tensor:
        rows = delta[n : n + images].reshape(-1, O)
        windows = _unfolded(_padded(x[n : n + images], g, 1), g, 1).movedim(1 + axes, -1)  # n i j p q c
        return _product(rows, windows.reshape(rows.shape[0], -1)).to(wide(x.dtype))

    dw = piece(0)
    for n in range(images, N, images):
        dw = dw.add_(piece(n))
    return dw.to(x.dtype).reshape(O, *g.w_size, C).movedim(-1, 1)


def _row_pairs(x: Tensor, delta: Tensor, g: Geometry, images: int) -> Tensor:
    """`_maps_last` with two rows of delta at a time, which takes two thirds to three quarters of the products.

    Of rows d and e of delta and the rows x0, x1, x2, x3 of x that they meet, three rows of the kernel get

        dw0 = d x0 + e x1    dw1 = d x1 + e x2    dw2 = d x2 + e x3        six products; by four, the same is
        m1 = d (x0 - x2)    m2 = (d + e) (x1 + x2)    m3 = (d - e) (x2 - x1)    m4 = e (x3 - x1)
        dw0 = m1 + (m2 + m3)/2    dw1 = (m2 - m3)/2    dw2 = (m2 + m3)/2 + m4

    and two rows of it, the first two lines of these, by three: m1 = d (x0 - x1), m2 = (d + e) x1, m3 = e (x2 - x1),
    dw0 = m1 + m2, dw1 = m2 + m3. A product is that of two matrices here, the sum over n, j and the pairs of rows taken
    at once. The kernel's rows are taken by threes; one or two may be left. Source: Winograd 1980, ch. 5, F(3, 2).
    """
    (N, C), (O, I, _), (P, Q) = x.shape[:2], delta.shape[1:], g.w_size
    below = I % 2  # a row of zeros, so that there are pairs
    x, delta = x.movedim(1, -1), delta.movedim(1, -1)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return _product(a.reshape(-1, O), b.unfold(2, Q, 1).movedim(-1, 3).reshape(-1, Q * C))

    sums: list[list[Tensor]] = []  # of three, two or one row of the kernel, the products
    for n in range(0, N, images):
        rows = T.pad(delta[n : n + images], (0, 0, 0, 0, 0, below)) if below else delta[n : n + images]
        d, e = rows[:, ::2], rows[:, 1::2]
        plus, minus = d + e, d - e
        padded = _padded(x[n : n + images], g, 1, below)
        m = []
        for p in range(0, P, 3):
            x0, x1, *others = (padded[:, k : k + I + below - 1 : 2] for k in range(p, min(p + 3, P) + 1))
            if len(others) == 2:
                x2, x3 = others
                m.append([product(d, x0 - x2), product(plus, x1 + x2), product(minus, x2 - x1), product(e, x3 - x1)])
            elif len(others) == 1:
                m.append([product(d, x0 - x1), product(plus, x1), product(e, others[0] - x1)])
            else:
                m.append([product(d, x0), product(e, x1)])
        sums = [[a.add_(b) for a, b in zip(*both, strict=True)] for both in zip(sums, m, strict=True)] if sums else m
    dw = []
    for m1, m2, *more in sums:
        if len(more) == 2:
            m3, m4 = more
            half = (m2 + m3) * 0.5
            dw += [m1 + half, (m2 - m3) * 0.5, half + m4]
        elif len(more) == 1:
            dw += [m1 + m2, m2 + more[0]]
        else:
            dw.append(m1 + m2)
    return torch.stack(dw, 1).reshape(O, P, Q, C).movedim(-1, 1)


def _maps_first(x: Tensor, delta: Tensor, g: Geometry, images: int) -> Tensor:
    """The windows as [c p q, n i j], group by group: a run of memory for each row."""
    (N, C), O, G, axes = x.shape[:2], delta.shape[1], g.groups, len(g.w_size)
    cpq = 0, *range(2 + axes, 2 + 2 * axes)
    nij = range(1, 2 + axes)

    def piece(n: int) -> Tensor:
        maps = _padded(x[n : n + images].transpose(0, 1), g, 2)  # c n h k; a few images, which stay in the cache
        rows = _unfolded(maps, g, 2).permute(*cpq, *nij).reshape(G, C // G * prod(g.w_size), -1)
        return _windows_by(rows, delta[n : n + images]).to(wide(x.dtype))

    dw = piece(0)
    for n in range(images, N, images):
        dw = dw.add_(piece(n))
    return dw.to(x.dtype).transpose(1, 2).reshape(O, C // G, *g.w_size)


def _padded(x: Tensor, g: Geometry, first: int, below: int = 0) -> Tensor:
    """The images, whose axes begin at `first`, with zeros around them, `below` more rows of them below; contiguous."""
    if not any(g.padding) and not below:
        return x.contiguous()
    margins = [(pad, pad + (below if axis == 0 else 0)) for axis, pad in enumerate(g.padding)]
    behind = [(0, 0)] * (x.ndim - first - len(margins))
    return T.pad(x, [pad for both in reversed(margins + behind) for pad in both])


def _unfolded(windows: Tensor, g: Geometry, first: int) -> Tensor:
    """A view of the padded images, whose axes begin at `first`: i j in their place, p q behind all others."""
    for axis, (reach, s, d) in enumerate(zip(g.reach, g.stride, g.dilation, strict=True), start=first):
        windows = windows.unfold(axis, reach, s)
        windows = windows[..., ::d] if d > 1 else windows
    return windows


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a^T b of a [K, O] and b [K, M]: a transposed 1 x 1 convolution, b's rows the maps of M pixels, a the kernel."""
    (K, O), M = a.shape, b.shape[1]
    if not _by_convolution(b, K, M, O):
        return (b.T @ a).T
    return T.conv_transpose2d(b.view(1, K, M, 1), a.reshape(K, O, 1, 1), dilation=(1, 2)).view(O, M)


def _windows_by(windows: Tensor, delta: Tensor) -> Tensor:
    """windows [G, M, K] by delta [n, O, ...], its maps in G groups, of K positions: [G, M, O / G]."""
    (G, M, K), O = windows.shape, delta.shape[1]
    last = delta.stride(1) == 1
    if G > 1 or not _by_convolution(windows, K, M, O):
        if last:
            return windows @ delta.movedim(1, -1).reshape(K, G, O // G).transpose(0, 1)
        return windows @ delta.transpose(0, 1).reshape(G, O // G, K).mT
    images = windows.view(1, M, 1, K).movedim(-1, 1)
    if last:
        y = T.conv_transpose2d(images, delta.movedim(1, -1).reshape(K, O, 1, 1), dilation=(1, 2))
    else:
        y = T.conv2d(images, delta.transpose(0, 1).reshape(O, K, 1, 1), dilation=(1, 2))
    return y.movedim(1, -1).reshape(1, M, O)


def _by_convolution(t: Tensor, K: int, M: int, O: int) -> bool:
    """Whether a product of [M, K] and [K, O] is taken as a 1 x 1 convolution.

    PyTorch leaves float32 on a CPU to MKL, which has half of oneDNN's rate on AMD's; a convolution is oneDNN's. Its
    dilation means nothing; with it PyTorch takes oneDNN in a single thread, too. MKL is as fast for small results.
    """
    return t.device.type == "cpu" and t.dtype == torch.float32 and K * M > 20480 and M * O >= 1024
