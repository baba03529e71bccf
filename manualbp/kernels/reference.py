"""The lecture's own sums as plain loops over nested lists: slow, and the truth that every fast kernel answers to.

Any number type will do (float, Fraction, SymPy symbols); where an exponential or a logarithm is needed it is an
argument. Tensors come in by `tensor.tolist()`. Letters as in `kernels.geometry`; lists are indexed
x[n][c][h][k], w[o][c][p][q], y[n][o][i][j], and delta as y.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from manualbp.kernels.geometry import Geometry

Nested = list[Any]


def zeros(*shape: int) -> Nested:
    """A nested list of zeros."""
    return [zeros(*shape[1:]) if len(shape) > 1 else 0 for _ in range(shape[0])]


def taps(g: Geometry, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
    """(h, k, p, q): the pixels (h, k) that the window of output (i, j) sees, and the kernel offset of each."""
    (H, W), (P, Q), (s, t), (top, left), (d, e) = g.x_size, g.w_size, g.stride, g.padding, g.dilation
    for p in range(P):
        for q in range(Q):
            h, k = s * i + d * p - top, t * j + e * q - left
            if 0 <= h < H and 0 <= k < W:
                yield h, k, p, q


def trilinear(g: Geometry, N: int, C: int, O: int) -> Iterator[tuple[int, ...]]:
    """The index tuples (n, o, i, j, c, h, k, p, q) of every product in

    F(x, w, delta) = sum delta[n,o,i,j] x[n,c,h,k] w[o,c',p,q]

    with c the input map that c' = c mod (C / groups) stands for in the group of o. (lecture 002, eq. 2.1 and 2.4;
    lecture 001, eq. 1.4 and 1.5)
    """
    I, J = g.y_size
    per_group, o_per_group = C // g.groups, O // g.groups
    for n in range(N):
        for o in range(O):
            first = o // o_per_group * per_group
            for c in range(first, first + per_group):
                for i in range(I):
                    for j in range(J):
                        for h, k, p, q in taps(g, i, j):
                            yield n, o, i, j, c, h, k, p, q


def correlate(x: Nested, w: Nested, g: Geometry) -> Nested:
    """y = dF/d delta."""
    N, C, O = len(x), len(w[0]) * g.groups, len(w)
    y = zeros(N, O, *g.y_size)
    for n, o, i, j, c, h, k, p, q in trilinear(g, N, C, O):
        y[n][o][i][j] += x[n][c][h][k] * w[o][c % len(w[0])][p][q]
    return y


def full_convolve(delta: Nested, w: Nested, g: Geometry) -> Nested:
    """dx = dF/dx (lecture 002, eq. 2.3): the rotated kernel over the zero-padded delta, term by term."""
    N, C, O = len(delta), len(w[0]) * g.groups, len(w)
    dx = zeros(N, C, *g.x_size)
    for n, o, i, j, c, h, k, p, q in trilinear(g, N, C, O):
        dx[n][c][h][k] += delta[n][o][i][j] * w[o][c % len(w[0])][p][q]
    return dx


def kernel_gradient(x: Nested, delta: Nested, C: int, O: int, g: Geometry) -> Nested:
    """dw = dF/dw (lecture 002, eq. 2.4): delta over the layer's input, C and O maps."""
    per_group = C // g.groups
    dw = zeros(O, per_group, *g.w_size)
    for n, o, i, j, c, h, k, p, q in trilinear(g, len(x), C, O):
        dw[o][c % per_group][p][q] += delta[n][o][i][j] * x[n][c][h][k]
    return dw


def over_maps(f: Callable[[Any], Any], x: Nested) -> Nested:
    """f of every map x[n][c]."""
    return [[f(plane) for plane in image] for image in x]


def max_pool(x: Nested, g: Geometry) -> tuple[Nested, Nested]:
    """The largest value of each window and its position h W + k, the first one of equals (lecture 001, eq. 1.6)."""
    I, J = g.y_size

    def one_map(plane: Nested) -> tuple[Nested, Nested]:
        y, index = zeros(I, J), zeros(I, J)
        for i in range(I):
            for j in range(J):
                h, k = next((h, k) for h, k, _, _ in taps(g, i, j))
                for h2, k2, _, _ in taps(g, i, j):
                    if plane[h2][k2] > plane[h][k]:
                        h, k = h2, k2
                y[i][j], index[i][j] = plane[h][k], h * g.x_size[1] + k
        return y, index

    both = over_maps(one_map, x)
    return [[m[0] for m in image] for image in both], [[m[1] for m in image] for image in both]


def put(delta: Nested, index: Nested, g: Geometry) -> Nested:
    """Each delta added at the position that its window took its value from (lecture 001, eq. 1.6)."""
    W = g.x_size[1]
    dx = [[zeros(*g.x_size) for _ in image] for image in delta]
    for n, image in enumerate(delta):
        for c, plane in enumerate(image):
            for i, row in enumerate(plane):
                for j, value in enumerate(row):
                    at = index[n][c][i][j]
                    dx[n][c][at // W][at % W] += value
    return dx


def divisor(g: Geometry, i: int, j: int, count_include_pad: bool, override: Any = None) -> Any:
    """What the sum over the window of (i, j) is divided by: m^2, or the number of pixels that count."""
    if override is not None:
        return override
    (H, W), (P, Q), (s, t), (top, left) = g.x_size, g.w_size, g.stride, g.padding
    if not count_include_pad:
        return sum(1 for _ in taps(g, i, j))
    return (min(s * i - top + P, H + top) - (s * i - top)) * (min(t * j - left + Q, W + left) - (t * j - left))


def window_mean(x: Nested, g: Geometry, count_include_pad: bool = True, override: Any = None) -> Nested:
    """The mean of each window (lecture 001, eq. 1.1)."""
    I, J = g.y_size

    def one_map(plane: Nested) -> Nested:
        return [
            [
                sum(plane[h][k] for h, k, _, _ in taps(g, i, j)) / divisor(g, i, j, count_include_pad, override)
                for j in range(J)
            ]
            for i in range(I)
        ]

    return over_maps(one_map, x)


def window_spread(delta: Nested, g: Geometry, count_include_pad: bool = True, override: Any = None) -> Nested:
    """Each delta times 1 / m^2 to every pixel of its window (lecture 001, eq. 1.7)."""
    I, J = g.y_size

    def one_map(plane: Nested) -> Nested:
        dx = zeros(*g.x_size)
        for i in range(I):
            for j in range(J):
                for h, k, _, _ in taps(g, i, j):
                    dx[h][k] += plane[i][j] / divisor(g, i, j, count_include_pad, override)
        return dx

    return over_maps(one_map, delta)


def linear(x: Nested, w: Nested, b: Nested | None = None) -> Nested:
    """y[n][o] = sum_i x[n][i] w[o][i] + b[o] (lecture 003)."""
    return [
        [sum(a * v for a, v in zip(row, column, strict=True)) + (b[o] if b else 0) for o, column in enumerate(w)]
        for row in x
    ]


def sigmoid(x: Nested, exp: Callable[[Any], Any] = math.exp) -> Nested:
    """f(z) = 1 / (1 + exp(-z)) of a list (lecture 004, eq. 4.4)."""
    return [1 / (1 + exp(-z)) for z in x]


def softmax(z: Nested, exp: Callable[[Any], Any] = math.exp) -> Nested:
    """yhat_i = exp(z_i) / sum_k exp(z_k) of a list (lecture 004, eq. 4.1)."""
    powers = [exp(v) for v in z]
    return [power / sum(powers) for power in powers]


def cross_entropy(
    z: Nested, y: Nested, exp: Callable[[Any], Any] = math.exp, log: Callable[[Any], Any] = math.log
) -> Any:
    """L = -sum_i y_i log yhat_i of a list (lecture 004, eq. 4.2)."""
    return -sum(target * log(yhat) for target, yhat in zip(y, softmax(z, exp), strict=True))
