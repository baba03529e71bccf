"""Lecture 002 (slides) and lecture 000 (its transcript, the same numbers 2.x): back propagation for CNN.

Each row of the digest has its test, named by its number. Letters of the slides: x11 ... x33 the image, w11 ... w22 the
kernel, h11 ... h22 what comes out, E the error, d11 ... d22 the local gradients dE/dh, `*` true convolution.

Indices: v[x,y] = sum_ab w[a,b] phi(v_prev[x-a, y-b]) counts from 0. The first place at which a 2x2 kernel lies within
the image is (1, 1), so the slides' h11 is v[1,1], and h22 is v[2,2].
"""

from typing import Any

import torch
from sympy import Function, Symbol, diff, expand, prime, symbols
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from manualbp import nn
from manualbp.kernels import reference
from manualbp.training.networks import block
from tests.lectures.letters import close, sliding

x11, x12, x13, x21, x22, x23, x31, x32, x33 = symbols("x11 x12 x13 x21 x22 x23 x31 x32 x33")
w11, w12, w21, w22 = symbols("w11 w12 w21 w22")
d11, d12, d21, d22 = symbols("d11 d12 d21 d22")

image = [[x11, x12, x13], [x21, x22, x23], [x31, x32, x33]]
kernel = [[w11, w12], [w21, w22]]
rotated = [[w22, w21], [w12, w11]]  # by 180 degrees
delta = [[d11, d12], [d21, d22]]
steps = sliding(x_size=(3, 3), w_size=(2, 2))

# As printed on the slides.
h11 = x11 * w22 + x12 * w21 + x21 * w12 + x22 * w11
h12 = x12 * w22 + x13 * w21 + x22 * w12 + x23 * w11
h21 = x21 * w22 + x22 * w21 + x31 * w12 + x32 * w11
h22 = x22 * w22 + x23 * w21 + x32 * w12 + x33 * w11

# An error with the given local gradients: dE/dh11 = d11, and so on. Every E is this one, up to first order.
E = d11 * h11 + d12 * h12 + d21 * h21 + d22 * h22

# A prime for each letter: different sums of products are different numbers.
letters = [letter for table in (image, kernel, delta) for row in table for letter in row]
primes = {letter: prime(n) for n, letter in enumerate(letters, start=1)}


def numbers(table: list[list[Any]]) -> Tensor:
    """[1, 1, rows, columns]: the table with its letters replaced by their numbers."""
    return torch.tensor([[[[float(cell.subs(primes)) for cell in row] for row in table]]])


def test_2_1_forward_is_the_true_convolution() -> None:
    """v[x,y] = sum_ab w[a,b] phi(v_prev[x-a, y-b]) + b[x,y]   (lecture 002, eq. 2.1).

    The bias is one number for the whole map here, b[x,y] = b: it is shared as the kernel is.
    """
    v_prev, w, bias = torch.randn(1, 1, 5, 4), torch.randn(1, 1, 3, 2), torch.randn(1)
    v = F.convolve(F.sigmoid(v_prev), w, bias)
    phi = [reference.sigmoid(row) for row in v_prev[0, 0].tolist()]
    expected = [
        [
            sum(w[0, 0, a, b].item() * phi[x - a][y - b] for a in range(3) for b in range(2)) + bias.item()
            for y in range(1, 4)
        ]
        for x in range(2, 5)
    ]
    assert close(v[0, 0], expected)


def test_2_1_one_block_of_convolution_activation_and_pooling() -> None:
    """pool(phi(v)) with v = w * phi(v_prev) + b   (lecture 002, eq. 2.1): the block, here the image is phi(v_prev)."""
    network = block(nn, (1, 8, 8), 10)
    image = torch.randn(1, 1, 8, 8)
    w, b, *_ = network.parameters()
    v = F.convolve(image, w, b, padding=1)
    assert close(network[:3](image), F.max_pool2d(F.relu(v), 2))
    assert [type(layer) for layer in network[3:6]] == [type(layer) for layer in network[:3]]  # and once more


def test_2_2_the_3x3_image_and_the_2x2_kernel() -> None:
    """h11 = x11 w22 + x12 w21 + x21 w12 + x22 w11, and h12, h21, h22   (lecture 002, eq. 2.2)."""
    h = [[h11, h12], [h21, h22]]
    assert reference.correlate([[image]], [[rotated]], steps) == [[h]]
    assert close(F.convolve(numbers(image), numbers(kernel)), numbers(h))
    assert close(F.rotate(numbers(kernel)), numbers(rotated))


def test_2_3_local_gradient_is_the_full_convolution_with_the_rotated_kernel() -> None:
    """dE/dx[x,y] = sum_x'y' delta[x',y'] w[x'-x, y'-y] = delta * rot180(w)   (lecture 002, eq. 2.3).

    The slides' table, cell by cell; the factor phi'(v) follows below. `*` rotates once more, so what slides over the
    zero-padded delta is w as it stands.
    """
    dE_dx = [
        [d11 * w22, d11 * w21 + d12 * w22, d12 * w21],
        [d11 * w12 + d21 * w22, d11 * w11 + d12 * w12 + d21 * w21 + d22 * w22, d12 * w11 + d22 * w21],
        [d21 * w12, d21 * w11 + d22 * w12, d22 * w11],
    ]
    assert [[diff(E, letter) for letter in row] for row in image] == dE_dx
    assert reference.full_convolve([[delta]], [[rotated]], steps) == [[dE_dx]]

    x, w, d = numbers(image).requires_grad_(), numbers(kernel), numbers(delta)
    assert close(F.full_convolve(d, F.rotate(w), size=(3, 3)), numbers(dE_dx))
    assert close(F.convolve(d, F.rotate(w), padding=1), numbers(dE_dx))
    assert close(grad(F.convolve(x, w), x, d)[0], numbers(dE_dx))


def test_2_3_erratum_of_one_cell() -> None:
    """dE/dx23 = d12 w11 + d22 w21, where the slide has d12 w21 + d12 w22   (lecture 002, eq. 2.3, erratum)."""
    assert diff(E, x23) == d12 * w11 + d22 * w21
    assert diff(E, x23) != d12 * w21 + d12 * w22


def test_2_3_times_the_slope_of_the_activation() -> None:
    """delta[x,y] = sum_x'y' delta_next[x',y'] w_next[x'-x, y'-y] phi'(v[x,y])   (lecture 002, eq. 2.3).

    For any phi: the image is phi(v), and E is differentiated by v.
    """
    phi: Any = Function("phi")
    v = [[Symbol(f"v{x}{y}") for y in range(3)] for x in range(3)]
    E_of_v = E.subs({image[x][y]: phi(v[x][y]) for x in range(3) for y in range(3)})
    for x in range(3):
        for y in range(3):
            # x' and y' from 1 to 2 are the places of h; w[a,b] is there for a and b from 0 to 1.
            near = [(x_, y_) for x_ in (1, 2) for y_ in (1, 2) if x_ - x in (0, 1) and y_ - y in (0, 1)]
            total = sum(delta[x_ - 1][y_ - 1] * kernel[x_ - x][y_ - y] for x_, y_ in near)
            assert diff(E_of_v, v[x][y]) == expand(total * diff(phi(v[x][y]), v[x][y]))


def test_2_3_times_the_slope_of_a_sigmoid() -> None:
    """delta = (delta_next * rot180(w_next)) phi'(v)   (lecture 002, eq. 2.3), with phi' = phi (1 - phi)."""
    v, w, d = torch.randn(1, 1, 3, 3, requires_grad=True), numbers(kernel), numbers(delta)
    phi = F.sigmoid(v)
    (dE_dv,) = grad(F.convolve(phi, w), v, d)
    assert close(dE_dv, F.convolve(d, F.rotate(w), padding=1) * phi * (1 - phi))


def test_2_4_kernel_gradient_is_the_local_gradient_slid_over_the_input() -> None:
    """dE/dw[a,b] = sum_xy delta[x,y] phi(v_prev[x-a, y-b]) = delta * rot180(phi(v_prev))   (lecture 002, eq. 2.4).

    The image x11 ... x33 is phi(v_prev). Every weight is shared by all four h, so each sum has four terms.
    """
    dE_dw = [
        [d11 * x22 + d12 * x23 + d21 * x32 + d22 * x33, d11 * x21 + d12 * x22 + d21 * x31 + d22 * x32],
        [d11 * x12 + d12 * x13 + d21 * x22 + d22 * x23, d11 * x11 + d12 * x12 + d21 * x21 + d22 * x22],
    ]
    assert [[diff(E, letter) for letter in row] for row in kernel] == dE_dw
    for a in range(2):
        for b in range(2):
            places = [(x, y) for x in (1, 2) for y in (1, 2)]
            assert dE_dw[a][b] == sum(delta[x - 1][y - 1] * image[x - a][y - b] for x, y in places)

    # The gradient of the kernel that slides, the rotated one; that of w is the same turned back.
    [[of_rotated]] = reference.kernel_gradient([[image]], [[delta]], 1, 1, steps)
    assert [row[::-1] for row in of_rotated[::-1]] == dE_dw

    x, w, d = numbers(image), numbers(kernel).requires_grad_(), numbers(delta)
    assert close(F.rotate(F.kernel_gradient(x, d, size=(2, 2))), numbers(dE_dw))
    assert close(F.convolve(F.rotate(x), d), numbers(dE_dw))
    assert close(grad(F.convolve(x, w), w, d)[0], numbers(dE_dw))


def test_2_5_forward_error_local_gradients_update() -> None:
    """v = w * phi(v_prev) + b;  E;  delta = (delta_next * rot180(w_next)) phi'(v);  w <- w - alpha dE/dw.

    The summary in four steps (lecture 002, eq. 2.5): two layers by hand, then the same layers from the package and one
    step of gradient descent. The first phi(v_prev) is the image, E is half the squared error.
    """
    x, desired, alpha = torch.randn(1, 2, 6, 5), torch.rand(1, 2, 2, 3), 0.1
    network = torch.nn.Sequential(nn.TrueConv2d(2, 3, (3, 2)), nn.Sigmoid(), nn.TrueConv2d(3, 2, (3, 2)), nn.Sigmoid())
    w1, b1, w2, b2 = (p.detach().clone() for p in network.parameters())

    # 1. Forward.
    phi1 = F.sigmoid(F.convolve(x, w1, b1))
    phi2 = F.sigmoid(F.convolve(phi1, w2, b2))
    # 2. The error at the output, E = 1/2 sum (phi2 - desired)^2.
    dE_dphi2 = phi2 - desired
    # 3. Local gradients, from the last layer to the first; phi' = phi (1 - phi).
    delta2 = dE_dphi2 * phi2 * (1 - phi2)
    delta1 = F.full_convolve(delta2, F.rotate(w2), size=(4, 4)) * phi1 * (1 - phi1)
    # 4. Gradients and update.
    dE_dw1, dE_db1 = F.rotate(F.kernel_gradient(x, delta1, size=(3, 2))), delta1.sum((0, 2, 3))
    dE_dw2, dE_db2 = F.rotate(F.kernel_gradient(phi1, delta2, size=(3, 2))), delta2.sum((0, 2, 3))
    gradients = [dE_dw1, dE_db1, dE_dw2, dE_db2]
    updated = [p - alpha * dp for p, dp in zip([w1, b1, w2, b2], gradients, strict=True)]

    E = nn.MSELoss(reduction="sum")(network(x), desired) / 2
    E.backward()
    torch.optim.SGD(network.parameters(), lr=alpha).step()
    for p, dp, after in zip(network.parameters(), gradients, updated, strict=True):
        assert close(p.grad, dp)
        assert close(p, after)
    assert nn.MSELoss(reduction="sum")(network(x), desired) / 2 < E
