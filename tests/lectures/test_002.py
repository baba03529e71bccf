"""Lectures 000 (transcript) and 002 (slides): one block, convolution -> activation -> pooling. Formulas 2.1 to 2.5.

The lectures' `*` is the TRUE convolution: the kernel is rotated by 180 degrees, then slid. `reference` slides kernels
as they stand (cross-correlation), so the rotation is written out here.
"""

from typing import Any

import sympy
import torch

import manualbp.functional as F
from manualbp.kernels import reference
from manualbp.kernels.geometry import convolution
from manualbp.nn import MaxPool2d, ReLU, TrueConv2d
from tests.checks import EXACT, distance, random_like

# The slide's example: a 3x3 image x, a 2x2 kernel w, and the 2x2 local gradients d of the output h.
G = convolution("lecture 002", (1, 1, 3, 3), (1, 1, 2, 2), 1, 0, 1, 1)
x11, x12, x13, x21, x22, x23, x31, x32, x33 = sympy.symbols("x11 x12 x13 x21 x22 x23 x31 x32 x33")
w11, w12, w21, w22 = sympy.symbols("w11 w12 w21 w22")
d11, d12, d21, d22 = sympy.symbols("d11 d12 d21 d22")
X = [[x11, x12, x13], [x21, x22, x23], [x31, x32, x33]]
W = [[w11, w12], [w21, w22]]
D = [[d11, d12], [d21, d22]]


def rot180(m: list[list[Any]]) -> list[list[Any]]:
    return [row[::-1] for row in m[::-1]]


def convolve(x: list[list[Any]], w: list[list[Any]]) -> list[list[Any]]:
    """x * w of the lecture."""
    return reference.correlate([[x]], [[rot180(w)]], G)[0][0]


def error() -> Any:
    """E with dE/dh = d: the sum of d h."""
    h = convolve(X, W)
    return sum(D[i][j] * h[i][j] for i in range(2) for j in range(2))


def equal(table: list[list[Any]], expected: list[list[Any]]) -> bool:
    return sympy.simplify(sympy.Matrix(table) - sympy.Matrix(expected)).is_zero_matrix is True


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


def test_2_1_true_convolution() -> None:
    """v[x,y] = sum_ab w[a,b] phi(v_prev[x-a, y-b]) + b[x,y]   (lecture 002, eq. 2.1)

    a and b run against x and y: the kernel is rotated. Positions are counted so that no v_prev is outside of the image.
    """
    phi_v_prev, w, b = images(5, 6), images(3, 2, seed=2), images(1, seed=3)
    v = F.convolve(phi_v_prev[None, None], w[None, None], b)[0, 0]
    for x in range(2, 5):
        for y in range(1, 6):
            total = sum(w[a, c] * phi_v_prev[x - a, y - c] for a in range(3) for c in range(2)) + b[0]
            assert abs(v[x - 2, y - 1] - total) <= EXACT


def test_2_2_the_slides_example() -> None:
    """h11 = x11 w22 + x12 w21 + x21 w12 + x22 w11, and h12, h21, h22   (lecture 002, eq. 2.2)"""
    h = [
        [
            x11 * w22 + x12 * w21 + x21 * w12 + x22 * w11,
            x12 * w22 + x13 * w21 + x22 * w12 + x23 * w11,
        ],
        [
            x21 * w22 + x22 * w21 + x31 * w12 + x32 * w11,
            x22 * w22 + x23 * w21 + x32 * w12 + x33 * w11,
        ],
    ]
    assert equal(convolve(X, W), h)


def test_2_3_local_gradient_is_the_full_convolution_with_the_rotated_kernel() -> None:
    """dE/dx = d * rot180(w), full   (lecture 002, eq. 2.3): the slide's 3x3 table, one cell of it as 2.2 has it"""
    table = [
        [d11 * w22, d11 * w21 + d12 * w22, d12 * w21],
        [d11 * w12 + d21 * w22, d11 * w11 + d12 * w12 + d21 * w21 + d22 * w22, d12 * w11 + d22 * w21],
        [d21 * w12, d21 * w11 + d22 * w12, d22 * w11],
    ]
    # The forward kernel is rot180(w), so the one that full convolution rotates once more is w.
    assert equal(reference.full_convolve([[D]], [[rot180(W)]], G)[0][0], table)
    assert equal([[sympy.diff(error(), x) for x in row] for row in X], table)


def test_2_3_erratum_the_printed_cell_is_not_the_derivative() -> None:
    """The slide prints dE/dx23 = d12 w21 + d12 w22; by eq. 2.2 it is d12 w11 + d22 w21   (lecture 002, eq. 2.3)"""
    derivative = sympy.diff(error(), x23)
    assert sympy.expand(derivative - (d12 * w11 + d22 * w21)) == 0
    assert sympy.expand(derivative - (d12 * w21 + d12 * w22)) != 0


def test_2_3_with_the_slope_of_the_activation() -> None:
    """delta[x,y] = sum_x'y' delta_next[x',y'] w_next[x'-x, y'-y] phi'(v[x,y])   (lecture 002, eq. 2.3)"""
    v, w, delta_next = images(5, 4).requires_grad_(), images(3, 2, seed=2), images(3, 3, seed=3)
    F.convolve(F.sigmoid(v)[None, None], w[None, None])[0, 0].backward(delta_next)
    phi = 1 / (1 + torch.exp(-v.detach()))
    slope = phi * (1 - phi)
    delta = torch.zeros(5, 4, dtype=torch.float64)
    for x in range(5):
        for y in range(4):
            for x_next in range(2, 5):  # v_next's positions, counted as in eq. 2.1
                for y_next in range(1, 4):
                    if 0 <= x_next - x < 3 and 0 <= y_next - y < 2:
                        delta[x, y] += delta_next[x_next - 2, y_next - 1] * w[x_next - x, y_next - y] * slope[x, y]
    assert v.grad is not None
    assert distance(v.grad, delta) <= EXACT


def test_2_4_kernel_gradient() -> None:
    """dE/dw[a,b] = sum_xy delta[x,y] phi(v_prev[x-a, y-b]) = delta * rot180(phi(v_prev))   (lecture 002, eq. 2.4)"""
    table = [
        [d11 * x22 + d12 * x23 + d21 * x32 + d22 * x33, d11 * x21 + d12 * x22 + d21 * x31 + d22 * x32],
        [d11 * x12 + d12 * x13 + d21 * x22 + d22 * x23, d11 * x11 + d12 * x12 + d21 * x21 + d22 * x22],
    ]
    # kernel_gradient is the derivative by the kernel that slides, rot180(w): rotated back it is that by w.
    assert equal(rot180(reference.kernel_gradient([[X]], [[D]], 1, 1, G)[0][0]), table)
    assert equal([[sympy.diff(error(), w) for w in row] for row in W], table)


def test_2_2_to_2_4_on_tensors() -> None:
    """functional.convolve, full_convolve and kernel_gradient give the numbers of the symbols   (lecture 002)"""
    x, w, d = images(1, 1, 3, 3), images(1, 1, 2, 2, seed=2), images(1, 1, 2, 2, seed=3)
    numbers = {
        symbol: value.item()
        for symbols, values in ((X, x), (W, w), (D, d))
        for symbol, value in zip([s for row in symbols for s in row], values.flatten(), strict=True)
    }
    for ours, table in [
        (F.convolve(x, w), convolve(X, W)),
        (F.full_convolve(d, F.rotate(w), (3, 3)), [[sympy.diff(error(), x) for x in row] for row in X]),
        (F.rotate(F.kernel_gradient(x, d, (2, 2))), [[sympy.diff(error(), w) for w in row] for row in W]),
    ]:
        expected = torch.tensor([[float(cell.subs(numbers)) for cell in row] for row in table], dtype=torch.float64)
        assert distance(ours[0, 0], expected) <= EXACT


def test_2_5_forward_error_local_gradients_update() -> None:
    """The four steps of the summary, by hand and by the layers   (lecture 002, eq. 2.5)"""
    x, target, alpha = images(2, 1, 5, 5), images(2, 3, 2, 2, seed=2), 0.1
    layer = TrueConv2d(1, 3, 2).double()
    w, b = layer.weight.detach().clone(), layer.bias
    assert b is not None
    b_before = b.detach().clone()

    # By the layers: E = 1/2 |a - target|^2, one step of gradient descent.
    a = MaxPool2d(2)(ReLU()(layer(x)))
    ((a - target) ** 2).sum().div(2).backward()
    torch.optim.SGD(layer.parameters(), lr=alpha).step()

    # By hand. Forward: v = w * x + b, phi = max(v, 0), a = the maximum of each 2x2.
    v = F.convolve(x, w, b_before)
    phi = v.clamp(min=0)
    a, index = torch.nn.functional.max_pool2d(phi, 2, return_indices=True)
    # Error, and its local gradients: to where each maximum was, times phi'.
    delta = torch.zeros_like(v).flatten(2).scatter(2, index.flatten(2), (a - target).flatten(2)).view_as(v) * (v > 0)
    # Kernel gradient: delta * rot180(x); the bias stands once in every v.
    dw = torch.zeros_like(w)
    for p in range(2):
        for q in range(2):
            dw[:, 0, p, q] = (delta * x[:, :, 1 - p : 5 - p, 1 - q : 5 - q]).sum((0, 2, 3))
    assert distance(layer.weight.detach(), w - alpha * dw) <= EXACT
    assert distance(b.detach(), b_before - alpha * delta.sum((0, 2, 3))) <= EXACT
