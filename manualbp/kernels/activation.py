"""Slopes of activations, each in as few passes over memory as PyTorch's forward primitives allow."""

import torch
from torch import Tensor


def sigmoid_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta y (1 - y): the interpolation from delta y to 0 at y, which is also exact where y is near 1."""
    return (delta * y).lerp_(delta.new_zeros(()), y)


def tanh_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta (1 - y^2) = delta (1 + y) (1 - y): the interpolation from delta (1 + y) to 0 at y."""
    return torch.addcmul(delta, delta, y).lerp_(delta.new_zeros(()), y)


def relu_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta where y > 0, else 0; like PyTorch's, it lets delta pass where y is NaN."""
    return torch.where(y <= 0, 0, delta)
