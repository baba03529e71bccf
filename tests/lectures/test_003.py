"""Lecture 003, Modern Computer Vision, lecture 15: each row of the digest, its test named by its number.

Letters: z_{l+1} = W_l a_l + b_l and a_l = f(z_l) the units of layer l, W_l from layer l to layer l + 1,
delta_l = dL/dz_l, yhat the last a_l, y what it should be, `.` elementwise. As in the lecture, layer 3 has three units
and layer 4 has two.
"""

from fractions import Fraction
from typing import Any

import torch
from sympy import Function, Matrix, diff, expand, symbols
from torch.autograd import grad

import manualbp.functional as F
from manualbp import nn
from manualbp.kernels import reference
from manualbp.training.networks import SquaredError, mlp
from tests.lectures.letters import close


def test_3_1_half_the_squared_error() -> None:
    """L = 1/2 sum (yhat - y)^2   (lecture 003, eq. 3.1), so dL/dyhat = yhat - y: the 2 cancels.

    yhat = (1/2, 1/4, 1), y = (0, 1, 0): L = 1/2 (1/4 + 9/16 + 1) = 29/32.
    """
    yhat = torch.tensor([[0.5, 0.25, 1.0]], requires_grad=True)
    y = torch.tensor([[0.0, 1.0, 0.0]])
    for L in (F.mse_loss(yhat, y, reduction="sum") / 2, SquaredError(nn)(yhat, torch.tensor([1]))):
        assert Fraction(L.item()) == Fraction(29, 32)
        assert grad(L, yhat)[0].tolist() == [[0.5, -0.75, 1.0]]


def test_3_2_the_delta_rule() -> None:
    """delta_l = (W_l^T delta_{l+1}) . f'(z_l)   (lecture 003, eq. 3.2).

    Unit by unit delta_l[i] = (sum_j delta_{l+1}[j] W_l[j,i]) f'(z_l[i]), such as
    delta_3[1] = (delta_4[1] W_3[1,1] + delta_4[2] W_3[2,1]) f'(z_3[1]), for any f.
    """
    f: Any = Function("f")
    z3, delta4 = symbols("z1 z2 z3"), symbols("delta1 delta2")
    W3 = [symbols("W11 W12 W13"), symbols("W21 W22 W23")]
    [z4] = reference.linear([[f(z) for z in z3]], W3)
    L = sum(d * z for d, z in zip(delta4, z4, strict=True))  # dL/dz4 = delta4
    backward: Any = Matrix(W3).T * Matrix(delta4)
    for i in range(3):
        slope = diff(f(z3[i]), z3[i])
        assert diff(L, z3[i]) == expand(sum(delta4[j] * W3[j][i] for j in range(2)) * slope)
        assert diff(L, z3[i]) == expand(backward[i] * slope)


def test_3_2_the_delta_rule_in_numbers() -> None:
    """delta_l = (W_l^T delta_{l+1}) . f'(z_l)   (lecture 003, eq. 3.2), f the sigmoid with f' = f (1 - f)."""
    z3, delta4 = torch.randn(3, requires_grad=True), torch.randn(2)
    layer = nn.Linear(3, 2)
    (delta3,) = grad(layer(nn.Sigmoid()(z3)), z3, delta4)

    W3, f = layer.weight.tolist(), reference.sigmoid(z3.tolist())
    by_sums = [sum(delta4[j].item() * W3[j][i] for j in range(2)) * f[i] * (1 - f[i]) for i in range(3)]
    assert close(delta3, by_sums)
    assert close(delta3, (layer.weight.T @ delta4) * torch.tensor(f) * (1 - torch.tensor(f)))


def test_3_3_weight_gradient_is_an_outer_product() -> None:
    """dL/dW_l = delta_{l+1} a_l^T, that is dL/dW_l[i,j] = delta_{l+1}[i] a_l[j]   (lecture 003, eq. 3.3)."""
    a3, delta4 = torch.randn(3), torch.randn(2)
    layer = nn.Linear(3, 2)
    (dW3,) = grad(layer(a3), layer.weight, delta4)
    assert close(dW3, [[delta4[i].item() * a3[j].item() for j in range(3)] for i in range(2)])
    assert close(dW3, delta4[:, None] @ a3[None, :])

    # Of several images each adds its own.
    a3, delta4 = torch.randn(5, 3), torch.randn(5, 2)
    (dW3,) = grad(layer(a3), layer.weight, delta4)
    assert close(dW3, torch.stack([torch.outer(delta4[n], a3[n]) for n in range(5)]).sum(0))


def test_3_4_bias_gradient_is_delta() -> None:
    """dL/db_l = delta_{l+1}, since dz_{l+1}[i]/db_l[i] = 1   (lecture 003, eq. 3.4)."""
    a3, delta4 = torch.randn(3), torch.randn(2)
    layer = nn.Linear(3, 2)
    (db3,) = grad(layer(a3), layer.bias, delta4)
    assert torch.equal(db3, delta4)

    a3, delta4 = torch.randn(5, 3), torch.randn(5, 2)
    (db3,) = grad(layer(a3), layer.bias, delta4)
    assert close(db3, [sum(delta4[n, i].item() for n in range(5)) for i in range(2)])


def test_3_5_one_step_of_gradient_descent_on_paper() -> None:
    """theta <- theta - alpha dL/dtheta   (lecture 003, eq. 3.5).

    yhat = W x + b with W = (1/2, -1/4), b = 1/2, x = (2, 4) is 1/2. For y = 1, delta = yhat - y = -1/2 (eq. 3.1), so
    dL/dW = delta x^T = (-1, -2) and dL/db = -1/2. With alpha = 1/4: W = (3/4, 1/4) and b = 5/8, without rounding.
    """
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": torch.tensor([[0.5, -0.25]]), "bias": torch.tensor([0.5])})
    L = nn.MSELoss(reduction="sum")(layer(torch.tensor([2.0, 4.0])), torch.tensor([1.0])) / 2
    L.backward()
    torch.optim.SGD(layer.parameters(), lr=0.25).step()
    assert layer.weight.tolist() == [[0.75, 0.25]]
    assert layer.bias.tolist() == [0.625]


def test_3_5_one_step_of_the_perceptron() -> None:
    """theta <- theta - alpha dL/dtheta   (lecture 003, eq. 3.5), for every W and b of the lecture's four layers."""
    network, alpha = mlp(nn, (1, 4, 4), 3), 0.1
    x, label = torch.randn(1, 1, 4, 4), 2
    W1, b1, W2, b2, W3, b3 = before = [p.detach().clone() for p in network.parameters()]

    a1 = x.flatten()
    a2 = F.sigmoid(W1 @ a1 + b1)
    a3 = F.sigmoid(W2 @ a2 + b2)
    yhat = F.sigmoid(W3 @ a3 + b3)
    y = torch.tensor([0.0, 0.0, 1.0])
    delta4 = (yhat - y) * yhat * (1 - yhat)  # 3.1
    delta3 = (W3.T @ delta4) * a3 * (1 - a3)  # 3.2
    delta2 = (W2.T @ delta3) * a2 * (1 - a2)
    dW1, dW2, dW3 = torch.outer(delta2, a1), torch.outer(delta3, a2), torch.outer(delta4, a3)  # 3.3
    db1, db2, db3 = delta2, delta3, delta4  # 3.4

    SquaredError(nn)(network(x), torch.tensor([label])).backward()
    torch.optim.SGD(network.parameters(), lr=alpha).step()
    by_hand = [dW1, db1, dW2, db2, dW3, db3]
    for p, theta, dtheta in zip(network.parameters(), before, by_hand, strict=True):
        assert close(p.grad, dtheta)
        assert close(p, theta - alpha * dtheta)
