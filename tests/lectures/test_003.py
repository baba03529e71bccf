"""Lecture 003 (A. N. Rajagopalan, lecture 15): the multilayer perceptron and the delta rule. Formulas 3.1 to 3.5.

In the lecture's own sizes, 3 units in layer 3 and 2 in layer 4, with its letters: z4 = W3 a3 + b3, a = f(z), yhat = a4,
delta = dL/dz; f is the sigmoid. Sums over elements are written in plain Python, matrices are the package's.
"""

from math import exp

import torch
from torch import Tensor

import manualbp.functional as F
import manualbp.nn
from manualbp.training import autograd
from manualbp.training.networks import SquaredError, mlp
from tests.checks import EXACT, distance, random_like

Z3, B3, Y = [0.3, -1.2, 0.8], [0.1, -0.4], [1.0, 0.0]
W3 = [[0.5, -0.3, 0.9], [1.1, 0.7, -0.6]]


def f(z: float) -> float:
    return 1 / (1 + exp(-z))


def slope(z: float) -> float:
    """f'(z)"""
    return f(z) * (1 - f(z))


A3 = [f(z) for z in Z3]
Z4 = [sum(W3[j][i] * A3[i] for i in range(3)) + B3[j] for j in range(2)]
YHAT = [f(z) for z in Z4]
DELTA4 = [(YHAT[j] - Y[j]) * slope(Z4[j]) for j in range(2)]


def tensor(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def by_the_rules() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L, and z3, W3, b3 with their gradients."""
    z3, w3, b3 = (tensor(v).requires_grad_() for v in ([Z3], W3, B3))
    yhat = F.sigmoid(F.linear(F.sigmoid(z3), w3, b3))
    loss = F.mse_loss(yhat, tensor([Y]), reduction="sum") / 2
    loss.backward()
    return loss.detach(), z3, w3, b3


def gradient(t: Tensor) -> Tensor:
    assert t.grad is not None
    return t.grad


def test_3_1_squared_error() -> None:
    """L = 1/2 sum (yhat - y)^2, so dL/dyhat = yhat - y   (lecture 003, eq. 3.1)"""
    total = sum((YHAT[j] - Y[j]) ** 2 for j in range(2)) / 2
    assert abs(by_the_rules()[0] - total) <= EXACT
    yhat = tensor([YHAT]).requires_grad_()
    loss = SquaredError(autograd)(yhat, torch.tensor([0]))  # y = [1, 0]
    loss.backward()
    assert abs(loss.item() - total) <= EXACT
    assert distance(gradient(yhat), tensor([[YHAT[j] - Y[j] for j in range(2)]])) <= EXACT


def test_3_2_delta_rule() -> None:
    """delta_l = (W_l^T delta_{l+1}) . f'(z_l); delta_i^3 = sum_j delta_j^4 W_ji^3 f'(z_i^3)   (lecture 003, eq. 3.2)"""
    by_sums = [sum(DELTA4[j] * W3[j][i] for j in range(2)) * slope(Z3[i]) for i in range(3)]
    by_matrix = (tensor(W3).T @ tensor(DELTA4)) * tensor([slope(z) for z in Z3])
    assert distance(by_matrix, tensor(by_sums)) <= EXACT
    _, z3, _, _ = by_the_rules()
    assert distance(gradient(z3), tensor([by_sums])) <= EXACT


def test_3_3_weight_gradient_is_an_outer_product() -> None:
    """dL/dW_l = delta_{l+1} a_l^T; dL/dW_ij^3 = delta_i^4 a_j^3   (lecture 003, eq. 3.3)"""
    by_elements = [[DELTA4[i] * A3[j] for j in range(3)] for i in range(2)]
    assert distance(tensor(DELTA4)[:, None] @ tensor(A3)[None], tensor(by_elements)) <= EXACT
    _, _, w3, _ = by_the_rules()
    assert distance(gradient(w3), tensor(by_elements)) <= EXACT


def test_3_3_over_a_batch_outer_products_add_up() -> None:
    """dL/dW = sum_n delta[n] a[n]^T = delta^T a   (lecture 003, eq. 3.3, for more images than one)"""
    a, delta = (random_like(torch.empty(4, size, dtype=torch.float64), seed=size) for size in (3, 2))
    w = tensor(W3).requires_grad_()
    F.linear(a, w).backward(delta)
    assert distance(gradient(w), sum((torch.outer(delta[n], a[n]) for n in range(4)), torch.zeros(2, 3))) <= EXACT


def test_3_4_bias_gradient() -> None:
    """dL/db_l = delta_{l+1}   (lecture 003, eq. 3.4)"""
    _, _, _, b3 = by_the_rules()
    assert distance(gradient(b3), tensor(DELTA4)) <= EXACT


def test_3_5_one_step_of_gradient_descent() -> None:
    """theta <- theta - alpha dL/dtheta   (lecture 003, eq. 3.5): by hand for W3 and b3, and torch.optim.SGD's"""
    alpha = 0.3
    _, _, w3, b3 = by_the_rules()
    torch.optim.SGD([w3, b3], lr=alpha).step()
    by_hand = [[W3[i][j] - alpha * DELTA4[i] * A3[j] for j in range(3)] for i in range(2)]
    assert distance(w3.detach(), tensor(by_hand)) <= EXACT
    assert distance(b3.detach(), tensor([B3[i] - alpha * DELTA4[i] for i in range(2)])) <= EXACT


def test_3_1_to_3_5_in_the_whole_perceptron() -> None:
    """A step of `train.py --network mlp`, layer by layer backwards with 3.1 to 3.5   (lecture 003)"""
    torch.manual_seed(0)
    network, alpha = mlp(manualbp.nn, (1, 3, 3), 4).double(), 0.5
    x, labels = random_like(torch.empty(5, 1, 3, 3, dtype=torch.float64)), torch.tensor([0, 3, 1, 1, 2])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    loss = SquaredError(manualbp.nn)(network(x), labels)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=alpha).step()

    a = [x.flatten(1)]
    for name in ("W1", "W2", "W3"):
        a.append(1 / (1 + torch.exp(-(a[-1] @ before[f"{name}.weight"].T + before[f"{name}.bias"]))))
    y = torch.nn.functional.one_hot(labels, 4)
    assert abs(loss.item() - ((a[3] - y) ** 2).sum().item() / 2 / 5) <= EXACT  # 3.1, the mean over the images
    delta = (a[3] - y) / 5 * a[3] * (1 - a[3])
    for layer, name in ((2, "W3"), (1, "W2"), (0, "W1")):
        dw, db = delta.T @ a[layer], delta.sum(0)  # 3.3, 3.4
        after = dict(network.named_parameters())
        assert distance(after[f"{name}.weight"].detach(), before[f"{name}.weight"] - alpha * dw) <= EXACT  # 3.5
        assert distance(after[f"{name}.bias"].detach(), before[f"{name}.bias"] - alpha * db) <= EXACT
        delta = (delta @ before[f"{name}.weight"]) * a[layer] * (1 - a[layer])  # 3.2
