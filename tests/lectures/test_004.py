"""Lecture 004 (slides): "Convolutional Neural Networks". Formulas 4.1 to 4.9.

Its g * x is written as a sum over g_mn of the next layer's gradients at (i + m, j + n), eq. 4.6: forward, the rotated
kernel slides; backward, the kernel as it stands. Letters: z pre-activation, f activation, g kernel, yhat = softmax(z).
"""

import sympy
import torch
from torch import Tensor

import manualbp.functional as F
import manualbp.nn
from manualbp.kernels import reference
from manualbp.training.networks import lecture004
from tests.checks import EXACT, distance, random_like

YHAT, Y = [0.5, 0.0, 0.1, 0.2, 0.1], [1, 0, 0, 0, 0]


def images(*shape: int, seed: int = 1) -> Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


def gradient(t: Tensor) -> Tensor:
    assert t.grad is not None
    return t.grad


def test_4_1_the_network() -> None:
    """a1 = pool(f(g1 * x)); a2 = pool(f(g2 * a1)); a3 = f(W1 a2); yhat = softmax(W2 a3)   (lecture 004, eq. 4.1)"""
    network = lecture004(manualbp.nn, (1, 8, 8), 5).double()
    p = dict(network.named_parameters())
    x = images(2, 1, 8, 8)

    def f(z: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-z))

    def pool(a: Tensor) -> Tensor:
        return a.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    def convolved(x: Tensor, g: str) -> Tensor:
        return torch.nn.functional.conv2d(x, p[f"{g}.weight"], p[f"{g}.bias"], padding=2)

    a1 = pool(f(convolved(x, "g1")))
    a2 = pool(f(convolved(a1, "g2")))
    a3 = f(a2.flatten(1) @ p["W1.weight"].T + p["W1.bias"])
    z = a3 @ p["W2.weight"].T + p["W2.bias"]
    assert distance(network(x), z) <= EXACT
    yhat = F.softmax(network(x), 1)
    assert distance(yhat, torch.exp(z) / torch.exp(z).sum(1, keepdim=True)) <= EXACT


def test_4_2_cross_entropy_of_softmax() -> None:
    """L = -sum_i y_i log yhat_i; dL/dyhat_i = -y_i / yhat_i; dL/dz = yhat - y   (lecture 004, eq. 4.2)"""
    z, y, yhat = (list(sympy.symbols(f"{name}1:5", positive=True)) for name in ("z", "y", "yhat"))
    of_yhat = -sum(target * sympy.log(p) for target, p in zip(y, yhat, strict=True))
    assert [sympy.diff(of_yhat, p) for p in yhat] == [-target / p for target, p in zip(y, yhat, strict=True)]

    loss = reference.cross_entropy(z, y, sympy.exp, sympy.log)
    softmax = reference.softmax(z, sympy.exp)
    sums_to_one = {y[3]: 1 - y[0] - y[1] - y[2]}
    for k in range(4):
        difference = sympy.diff(loss, z[k]) - (softmax[k] - y[k])
        assert sympy.simplify(difference.subs(sums_to_one)) == 0


def test_4_2_on_tensors() -> None:
    """dL/dz = yhat - y of functional.cross_entropy   (lecture 004, eq. 4.2)"""
    z = images(1, 5).requires_grad_()
    F.cross_entropy(z, torch.tensor([0])).backward()
    yhat = torch.tensor([reference.softmax(z[0].tolist())], dtype=torch.float64)
    assert distance(gradient(z), yhat - torch.tensor([Y])) <= EXACT


def test_4_3_the_slides_numbers() -> None:
    """yhat = [.5 0 .1 .2 .1], class 1 true: dL/dz = yhat - y = [-.5 0 .1 .2 .1]   (lecture 004, eq. 4.3)"""
    assert [p - target for p, target in zip(YHAT, Y, strict=True)] == [-0.5, 0.0, 0.1, 0.2, 0.1]
    # As the derivative of L by z at scores whose softmax is the slide's yhat over its sum (0 as 1e-300).
    z = torch.tensor([[max(p, 1e-300) for p in YHAT]], dtype=torch.float64).log().requires_grad_()
    F.cross_entropy(z, torch.tensor([0])).backward()
    expected = torch.tensor([[p / 0.9 - target for p, target in zip(YHAT, Y, strict=True)]], dtype=torch.float64)
    assert distance(gradient(z), expected) <= EXACT


def test_4_3_erratum_yhat_does_not_sum_to_one() -> None:
    """The slide's yhat sums to 0.9, so no softmax gives it   (lecture 004, eq. 4.3)"""
    assert abs(sum(YHAT) - 0.9) <= EXACT
    assert abs(F.softmax(images(1, 5), 1).sum() - 1) <= EXACT


def test_4_4_sigmoid() -> None:
    """f' = f (1 - f)   (lecture 004, eq. 4.4)"""
    symbol = sympy.symbols("z", real=True)
    (f,) = reference.sigmoid([symbol], sympy.exp)
    assert sympy.simplify(sympy.diff(f, symbol) - f * (1 - f)) == 0
    z = images(6).requires_grad_()
    y = F.sigmoid(z)
    y.sum().backward()
    assert distance(gradient(z), (y * (1 - y)).detach()) <= EXACT


def test_4_5_fully_connected() -> None:
    """z_i = sum_j W_ij f(z_j): dz_i/dW_ij = f(z_j), dz_i/df(z_j) = W_ij   (lecture 004, eq. 4.5)"""
    f, w = images(4), images(3, 4, seed=2)
    for i in range(3):
        a, W = f.clone().requires_grad_(), w.clone().requires_grad_()
        F.linear(a[None], W)[0, i].backward()
        assert distance(gradient(W)[i], f) <= EXACT
        assert not gradient(W)[[k for k in range(3) if k != i]].any()
        assert distance(gradient(a), w[i]) <= EXACT


def convolutional() -> tuple[Tensor, Tensor, Tensor]:
    """z (5x6) and g (3x2) with their gradients, and dL/dz_next (7x7): z_next = g * f(z), all positions that see f."""
    z, g, dz_next = images(5, 6).requires_grad_(), images(3, 2, seed=2).requires_grad_(), images(7, 7, seed=3)
    f = F.pad(F.sigmoid(z), (1, 1, 2, 2))  # with zeros, so that (i + m, j + n) is never outside
    F.convolve(f[None, None], g[None, None])[0, 0].backward(dz_next)
    return z, g, dz_next


def test_4_6_gradient_of_a_convolutional_layers_input() -> None:
    """dL/dz_ij = (sum_mn g_mn dL/dz_next_(i+m)(j+n)) f'(z_ij)   (lecture 004, eq. 4.6)"""
    z, g, dz_next = convolutional()
    for i in range(5):
        for j in range(6):
            f = torch.sigmoid(z[i, j])
            total = sum(g[m, n] * dz_next[i + m, j + n] for m in range(3) for n in range(2)) * f * (1 - f)
            assert abs(gradient(z)[i, j] - total) <= EXACT


def test_4_7_gradient_of_a_kernel() -> None:
    """dL/dg_ij = sum_yx dL/dz_next_yx f(z_(y-i)(x-j))   (lecture 004, eq. 4.7)"""
    z, g, dz_next = convolutional()
    f = torch.sigmoid(z.detach())
    for i in range(3):
        for j in range(2):
            total = sum(
                dz_next[y, x] * f[y - i, x - j] for y in range(7) for x in range(7) if 0 <= y - i < 5 and 0 <= x - j < 6
            )
            assert abs(gradient(g)[i, j] - total) <= EXACT * 10


def test_4_8_pooling_learns_nothing() -> None:
    """No parameters; the error is sent back to the node it came from   (lecture 004, eq. 4.8)"""
    for pool in (manualbp.nn.MaxPool2d(2), manualbp.nn.AvgPool2d(2)):
        assert list(pool.parameters()) == []
    x = torch.tensor([[1.0, 5, 2, 0], [3, 4, 1, 7]]).view(1, 1, 2, 4).requires_grad_()
    manualbp.nn.MaxPool2d(2)(x).backward(torch.tensor([[[[10.0, 20.0]]]]))
    assert gradient(x)[0, 0].tolist() == [[0, 10, 0, 0], [0, 0, 0, 20]]


def test_4_9_hand_made_kernels() -> None:
    """Identity, blur and vertical edges [[-1 0 1] [-2 0 2] [-1 0 1]] on an image   (lecture 004, eq. 4.9)"""
    x = torch.tensor([[0.0, 0, 0, 9, 9, 9]] * 4, dtype=torch.float64)[None, None]  # dark left, bright right
    identity = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.float64)
    blur = torch.full((3, 3), 1 / 9, dtype=torch.float64)
    edges = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    rows = {
        identity: [0, 0, 9, 9],
        blur: [0, 3, 6, 9],
        edges: [0, 36, 36, 0],  # (1 + 2 + 1) * 9 where the edge is, nothing elsewhere
    }
    for kernel, row in rows.items():
        expected = torch.tensor([row] * 2, dtype=torch.float64)
        assert distance(F.correlate(x, kernel[None, None])[0, 0], expected) <= EXACT
    # True convolution rotates the kernel: bright on the right becomes negative.
    assert distance(F.convolve(x, edges[None, None])[0, 0], -torch.tensor([rows[edges]] * 2)) <= EXACT
