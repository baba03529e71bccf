"""Lecture 004's network as a textbook writes it: windows, a matrix product, formulas, and autograd for the rest."""

import torch
import torch.nn.functional as T
from torch import Tensor, nn


class Textbook(nn.Module):
    """`manualbp.training.networks.lecture004` with its own weights, sigmoid and max pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        w = dict(self.network.named_parameters())
        a1 = max_pool(sigmoid(convolve(x, w["g1.weight"], w["g1.bias"])))
        a2 = max_pool(sigmoid(convolve(a1, w["g2.weight"], w["g2.bias"]))).flatten(1)
        a3 = sigmoid(a2 @ w["W1.weight"].T + w["W1.bias"])
        return a3 @ w["W2.weight"].T + w["W2.bias"]


def convolve(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x [N, C, H, W], w [O, C, P, P] with P odd -> [N, O, H, W], zeros around."""
    (N, _, H, W), P = x.shape, w.shape[-1]
    windows = T.unfold(x, P, padding=P // 2)  # n, c p q, i j
    return (w.flatten(1) @ windows).view(N, -1, H, W) + b.view(-1, 1, 1)


def max_pool(x: Tensor) -> Tensor:
    """Of windows of 2 x 2, side by side. Equal maxima share the gradient; torch.nn's first one gets it all."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))
