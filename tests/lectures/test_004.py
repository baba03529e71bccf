"""Lecture 004, Convolutional Neural Networks: each row of the digest, its test named by its number.

Letters: g kernel, W matrix, z before and a = f(z) after the sigmoid f, y the true class as 1 among 0, yhat what the
network says, L the loss, `*` true convolution as the slides define it: z_next_ij = sum_uv g_uv a_(i-u)(j-v).
"""

from fractions import Fraction
from typing import Any

import sympy
import torch
from sympy import diff, simplify, symbols
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from manualbp import nn
from manualbp.kernels import reference
from manualbp.training.networks import lecture004
from tests.lectures.letters import close


def test_4_1_the_network() -> None:
    """a1 = pool(f(g1 * x)); a2 = pool(f(g2 * a1)); a3 = f(W1 a2); yhat = softmax(W2 a3)   (lecture 004, eq. 4.1).

    2 convolutional, 2 pooling, 2 fully connected and 3 sigmoid layers. Conv2d stores its kernel as it slides, which is
    the g of `*` rotated by 180 degrees; every layer adds a bias, which the slides leave out.
    """
    network = lecture004(nn, (1, 8, 8), 5)
    kinds = [nn.Conv2d, nn.MaxPool2d, nn.Linear, nn.Sigmoid]
    assert [sum(isinstance(layer, kind) for layer in network) for kind in kinds] == [2, 2, 2, 3]

    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1)  # the biases start at 0
    slid1, b1, slid2, b2, W1, b3, W2, b4 = network.parameters()
    g1, g2 = F.rotate(slid1), F.rotate(slid2)
    x = torch.randn(1, 1, 8, 8)
    a1 = F.max_pool2d(F.sigmoid(F.convolve(x, g1, b1, padding=2)), 2)
    a2 = F.max_pool2d(F.sigmoid(F.convolve(a1, g2, b2, padding=2)), 2)
    a3 = F.sigmoid(W1 @ a2.flatten() + b3)
    yhat = F.softmax(W2 @ a3 + b4, 0)
    assert close(F.softmax(network(x), 1)[0], yhat)


def test_4_2_cross_entropy_of_softmax_has_the_gradient_yhat_minus_y() -> None:
    """L = - sum_i y_i log yhat_i;  dL/dyhat_i = - y_i / yhat_i;  dL/dz = yhat - y   (lecture 004, eq. 4.2).

    The last for any y that sums to 1, with yhat = softmax(z).
    """
    y, yhat, z = list(symbols("y1:4")), symbols("yhat1:4"), list(symbols("z1:4"))
    L: Any = -sum(y[i] * sympy.log(yhat[i]) for i in range(3))
    for i in range(3):
        assert diff(L, yhat[i]) == -y[i] / yhat[i]

    softmax = reference.softmax(z, sympy.exp)
    L = reference.cross_entropy(z, y, sympy.exp, sympy.log)
    for i in range(3):
        # Through yhat, dL/dz_i = sum_k dL/dyhat_k dyhat_k/dz_i, and at once.
        chain: Any = sum(-y[k] / softmax[k] * diff(softmax[k], z[i]) for k in range(3))
        for dL_dz in (chain, diff(L, z[i])):
            difference = dL_dz - (softmax[i] - y[i])
            assert simplify(difference.subs(y[2], 1 - y[0] - y[1])) == 0


def test_4_2_in_numbers() -> None:
    """L = - sum_i y_i log yhat_i;  dL/dz = yhat - y   (lecture 004, eq. 4.2), of one class and of several."""
    z = torch.randn(4, requires_grad=True)
    yhat = torch.tensor(reference.softmax(z.tolist()))
    one, several = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([0.5, 0.25, 0.0, 0.25])
    for target, y in [(torch.tensor(2), one), (one, one), (several, several)]:
        L = F.cross_entropy(z, target)
        assert close(L, reference.cross_entropy(z.tolist(), y.tolist()))
        assert close(grad(L, z)[0], yhat - y)


def test_4_3_the_example_of_five_classes() -> None:
    """yhat = [.5 0 .1 .2 .1], class 1 true: dL/dz = yhat - y = [-.5 0 .1 .2 .1]   (lecture 004, eq. 4.3).

    Erratum: this yhat sums to 0.9 and holds a 0. A softmax sums to 1 and its parts are positive, so no z gives it. What
    is printed as dL/dz is yhat - y all the same.
    """
    tenths = Fraction(1, 10)
    yhat = [5 * tenths, 0 * tenths, tenths, 2 * tenths, tenths]
    y = [1, 0, 0, 0, 0]
    assert [a - b for a, b in zip(yhat, y, strict=True)] == [-5 * tenths, 0, tenths, 2 * tenths, tenths]

    assert sum(yhat) == 9 * tenths
    any_yhat = reference.softmax(list(symbols("z1:6", real=True)), sympy.exp)
    total: Any = sum(any_yhat)
    assert simplify(total) == 1
    assert all(part.is_positive for part in any_yhat)

    # With the tenth that is missing in the place of the 0: the score of the true class must rise, all others fall.
    possible = torch.tensor([0.5, 0.1, 0.1, 0.2, 0.1])
    z = possible.log().requires_grad_()
    (dz,) = grad(F.cross_entropy(z, torch.tensor(0)), z)
    assert close(F.softmax(z, 0), possible)
    assert close(dz, [-0.5, 0.1, 0.1, 0.2, 0.1])


def test_4_4_slope_of_the_sigmoid() -> None:
    """f(z) = 1 / (1 + exp(-z)),  f' = f (1 - f)   (lecture 004, eq. 4.4)."""
    z = sympy.Symbol("z")
    [f] = reference.sigmoid([z], sympy.exp)
    assert simplify(diff(f, z) - f * (1 - f)) == 0

    t = torch.linspace(-6, 6, 25, requires_grad=True)
    values = reference.sigmoid(t.tolist())
    assert close(F.sigmoid(t), values)
    assert close(grad(F.sigmoid(t).sum(), t)[0], [value * (1 - value) for value in values])


def test_4_5_fully_connected() -> None:
    """z_i = sum_k W_ik f(z_k):  dz_i/dW_ij = f(z_j),  dz_i/df(z_j) = W_ij   (lecture 004, eq. 4.5)."""
    f = symbols("f1:4")
    W = [symbols("W11 W12 W13"), symbols("W21 W22 W23")]
    [z] = reference.linear([f], W)
    for i in range(2):
        for j in range(3):
            assert diff(z[i], W[i][j]) == f[j]
            assert diff(z[i], W[1 - i][j]) == 0
            assert diff(z[i], f[j]) == W[i][j]

    a, layer = torch.randn(3, requires_grad=True), nn.Linear(3, 2, bias=False)
    for i in range(2):
        dW, da = grad(layer(a)[i], [layer.weight, a])
        assert torch.equal(dW[i], a)
        assert not dW[1 - i].any()
        assert torch.equal(da, layer.weight[i])


def convolutional_layer() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, g, z_next = g * f(z) of one map, and dL/dz_next at the slides' places.

    The slides number z_next as they number z: g lies within the map from place (M - 1, N - 1) on, M x N being its
    extents. So dL/dz_next with M - 1 rows and N - 1 columns of zeros around it has its numbers where the slides do.
    """
    z, g = torch.randn(6, 5, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    z_next = F.convolve(F.sigmoid(z)[None], g[None, None])[0]
    dz_next = F.pad(torch.randn(4, 4), (1, 1, 2, 2))
    return z, g, z_next, dz_next


def test_4_6_error_of_a_convolutional_layer() -> None:
    """dL/dz_ij = (sum_mn g_mn dL/dz_next_(i+m)(j+n)) f'(z_ij)   (lecture 004, eq. 4.6).

    Forward the rotated g slides, z_next_ij = sum_uv g_uv f(z_(i-u)(j-v)); backward g slides as it stands over the
    zero-padded dL/dz_next. That is `full_convolve` with the kernel that slid forward.
    """
    z, g, z_next, dz_next = convolutional_layer()
    inner = dz_next[2:-2, 1:-1]
    (dz,) = grad(z_next, z, inner)
    f = F.sigmoid(z)

    sums = torch.zeros(6, 5)
    for i in range(6):
        for j in range(5):
            sums[i, j] = sum(g[m, n].item() * dz_next[i + m, j + n].item() for m in range(3) for n in range(2))
    assert close(dz, sums * f * (1 - f))
    assert close(F.full_convolve(inner[None, None], F.rotate(g)[None, None], size=(6, 5))[0, 0], sums)


def test_4_7_kernel_gradient_of_a_convolutional_layer() -> None:
    """dL/dg_ij = sum_yx dL/dz_next_yx f(z_(y-i)(x-j))   (lecture 004, eq. 4.7).

    g is the kernel before the rotation of the forward pass, so `kernel_gradient`, that of the kernel that slid, is
    rotated back.
    """
    z, g, z_next, dz_next = convolutional_layer()
    inner = dz_next[2:-2, 1:-1]
    (dg,) = grad(z_next, g, inner)
    f = F.sigmoid(z)

    sums = torch.zeros(3, 2)
    for i in range(3):
        for j in range(2):
            places = [(y, x) for y in range(2, 6) for x in range(1, 5)]
            sums[i, j] = sum(dz_next[y, x].item() * f[y - i, x - j].item() for y, x in places)
    assert close(dg, sums)
    assert close(F.rotate(F.kernel_gradient(f[None, None], inner[None, None], size=(3, 2)))[0, 0], sums)


def test_4_8_pooling_learns_nothing_and_sends_the_error_back() -> None:
    """dL/dz = dL/dz_next at the node that the value came from, 0 elsewhere   (lecture 004, eq. 4.8)."""
    x = torch.tensor([[[7.0, 1.0, 2.0, 3.0], [0.0, 5.0, 8.0, 4.0]]], requires_grad=True)
    pool = nn.MaxPool2d(2)
    assert list(pool.parameters()) == []
    y = pool(x)
    assert y.tolist() == [[[7, 8]]]
    assert grad(y, x, torch.tensor([[[0.5, -2.0]]]))[0].tolist() == [[[0.5, 0, 0, 0], [0, 0, -2, 0]]]

    # A mean came from every node of its window, a quarter from each.
    average = nn.AvgPool2d(2)
    assert list(average.parameters()) == []
    dx = grad(average(x), x, torch.tensor([[[0.5, -2.0]]]))[0]
    assert dx.tolist() == [[[0.125, 0.125, -0.5, -0.5]] * 2]


def test_4_9_kernels_made_by_hand() -> None:
    """h = x * g for g the identity, a blur, and vertical edges [[-1 0 1] [-2 0 2] [-1 0 1]]   (lecture 004, eq. 4.9).

    The kernels slide as they are printed. Rotated by 180 degrees the first two stay what they are and the third one
    changes its sign, so true convolution shows the same edges with the other sign. What filters a network learns by
    itself, edges first and parts of objects later, is no formula.
    """
    identity = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    blur = torch.tensor([[0.107, 0.113, 0.107], [0.113, 0.119, 0.113], [0.107, 0.113, 0.107]])
    vertical = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])

    def filtered(x: Tensor, g: Tensor) -> Tensor:
        return F.conv2d(x[None], g[None, None])[0]

    upright = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]] * 5)  # dark on the left, bright on the right
    assert filtered(upright, identity).tolist() == [[0, 0, 1, 1]] * 3
    # The columns of the blur sum to 0.327, 0.345 and 0.327; those under bright pixels are added up.
    assert close(filtered(upright, blur), [[0, 0.327, 0.345 + 0.327, 0.999]] * 3)
    # 1 + 2 + 1 where a window has dark pixels on its left and bright ones on its right, else nothing.
    assert filtered(upright, vertical).tolist() == [[0, 4, 4, 0]] * 3
    assert not filtered(upright.T, vertical).any()  # a horizontal edge is none

    for g, sign in [(identity, 1), (blur, 1), (vertical, -1)]:
        assert close(F.convolve(upright[None], g[None, None])[0], sign * filtered(upright, g))
