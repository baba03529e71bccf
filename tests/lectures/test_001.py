"""Lecture 001 (transcript): a full convolutional network, trained. Formulas 1.1 to 1.8.

Its convolution is the true one, so the forward kernel is the FLIPPED W: y_j = sum_i x_i * W_ij, the rotated W_ij slid
over the input map x_i. Letters as spoken: i input map, j output map, l the loss.
"""

import torch
from torch import Tensor

import manualbp.functional as F
import manualbp.nn
from manualbp.kernels import reference
from manualbp.kernels.geometry import pooling
from manualbp.nn import LENET5_C3, AvgPool2d, ConnectedConv2d, Conv2d, MaxPool2d, Sigmoid, random_connections
from manualbp.training.networks import block, caltech
from tests.checks import EXACT, distance, random_like


def images(*shape: int, seed: int = 1) -> Tensor:
    return random_like(torch.empty(shape, dtype=torch.float64), seed)


def gradient(t: Tensor) -> Tensor:
    assert t.grad is not None
    return t.grad


def flip(w: Tensor) -> Tensor:
    """Rows and columns reversed."""
    return w.flip(-2, -1)


def slide(x: Tensor, w: Tensor) -> Tensor:
    """One kernel as it stands slid over one map."""
    (H, W), (P, Q) = x.shape, w.shape
    y = torch.zeros(H - P + 1, W - Q + 1, dtype=torch.float64)
    for i in range(H - P + 1):
        for j in range(W - Q + 1):
            y[i, j] = (x[i : i + P, j : j + Q] * w).sum()
    return y


def convolve(x: Tensor, w: Tensor) -> Tensor:
    """x * w: the flipped kernel slid over one map."""
    return slide(x, flip(w))


def zero_padded(x: Tensor, margin: int) -> Tensor:
    return torch.nn.functional.pad(x, (margin,) * 4)


def test_1_1_convolution_summed_over_input_maps_nonlinearity_pooling_subsampling() -> None:
    """x_j = pool(f(sum_i x_i * W_ij + b_j)), alternating   (lecture 001, eq. 1.1)"""
    x, w, b = images(1, 2, 6, 6), images(3, 2, 3, 3, seed=2), images(3, seed=3)
    y = F.avg_pool2d(F.sigmoid(F.convolve(x, w, b)), 2)
    for j in range(3):
        v = sum((convolve(x[0, i], w[j, i]) for i in range(2)), torch.zeros(4, 4)) + b[j]
        f = 1 / (1 + torch.exp(-v))
        pooled = torch.stack([torch.stack([f[r : r + 2, c : c + 2].mean() for c in (0, 2)]) for r in (0, 2)])
        assert distance(y[0, j], pooled) <= EXACT
    kinds = [type(layer).__name__ for layer in block(manualbp.nn, (1, 8, 8), 10)]
    assert kinds[:6] == ["TrueConv2d", "ReLU", "MaxPool2d"] * 2


def test_1_2_the_network_layer_by_layer() -> None:
    """83x83 grey -> 64 of 75x75 -> 64 of 14x14 -> 256 of 6x6 -> 256 of 1x1 -> 101   (lecture 001, eq. 1.2)"""
    x = torch.randn(1, 1, 83, 83)
    shapes = []
    for layer in caltech(manualbp.nn, (1, 83, 83), 101):
        x = layer(x)
        if isinstance(layer, Conv2d | AvgPool2d | torch.nn.Linear):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 75, 75), (64, 14, 14), (256, 6, 6), (256, 1, 1), (101,)]


def test_1_2_the_layers_are_those_that_are_spoken_of() -> None:
    """9x9 kernels, pooling 10x10 with stride 5, 9x9 again with a random fan-in of 16, pooling 6x6 (eq. 1.2, 1.3)"""
    conv1, f1, pool1, conv2, f2, pool2, _, W = caltech(manualbp.nn, (1, 83, 83), 101)
    assert (conv1.weight.shape, conv2.weight.shape, W.weight.shape) == ((64, 1, 9, 9), (256 * 16, 9, 9), (101, 256))
    assert isinstance(f1, Sigmoid)
    assert isinstance(f2, Sigmoid)
    assert (pool1.kernel_size, pool1.stride, pool2.kernel_size) == (10, 5, 6)
    assert isinstance(conv2, ConnectedConv2d)
    assert (conv2.connections.sum(1) == 16).all()


def test_1_3_a_connection_table_saves_parameters() -> None:
    """Each of the 256 maps sees a random 16 of the 64   (lecture 001, eq. 1.3)"""
    table = random_connections(64, 256, 16, torch.Generator().manual_seed(0))
    layer = ConnectedConv2d(64, 256, 9, table)
    assert sum(p.numel() for p in layer.parameters()) == 256 * 16 * 81 + 256
    assert sum(p.numel() for p in Conv2d(64, 256, 9).parameters()) == 256 * 64 * 81 + 256
    assert sum(p.numel() for p in ConnectedConv2d(6, 16, 5, LENET5_C3).parameters()) == 1516  # LeCun et al. 1998


def test_1_3_what_is_not_connected_has_no_part() -> None:
    """y_j = sum over the connected i of x_i slid over by W_ij; the others get no gradient   (lecture 001, eq. 1.3)"""
    layer = ConnectedConv2d(4, 3, 2, [[0, 2], [1], [0, 1, 3]], bias=False).double()
    x = images(1, 4, 5, 5).requires_grad_()
    y = layer(x)
    w0, w2 = layer.weight[0], layer.weight[1]
    assert distance(y[0, 0], slide(x[0, 0], w0) + slide(x[0, 2], w2)) <= EXACT
    y[0, 0].sum().backward()
    assert [bool(gradient(x)[0, i].any()) for i in range(4)] == [True, False, True, False]
    assert [bool(dw.any()) for dw in gradient(layer.weight)] == [True, True, False, False, False, False]


def test_1_4_gradient_of_an_input_map() -> None:
    """dl/dx_i = sum_j (dl/dy_j, zero padded) slid over by W_ij, which is NOT flipped   (lecture 001, eq. 1.4)

    The forward kernel is the flipped W_ij; what full convolution flips once more is W_ij as it stands.
    """
    x, w, dy = images(1, 2, 5, 5).requires_grad_(), images(3, 2, 3, 3, seed=2), images(1, 3, 3, 3, seed=3)
    F.convolve(x, w).backward(dy)
    for i in range(2):
        by_maps = sum((slide(zero_padded(dy[0, j], 2), w[j, i]) for j in range(3)), torch.zeros(5, 5))
        assert distance(gradient(x)[0, i], by_maps) <= EXACT


def test_1_5_gradient_of_a_kernel() -> None:
    """dl/dW_ij = dl/dy_j convolved with x_i, rows and columns flipped   (lecture 001, eq. 1.5)

    dl/dy_j slides over x_i (the gradient by the forward kernel, flip(W_ij)), and the result is flipped back to W_ij.
    """
    x, w, dy = images(1, 2, 5, 5), images(3, 2, 3, 3, seed=2).requires_grad_(), images(1, 3, 3, 3, seed=3)
    F.convolve(x, w).backward(dy)
    for i in range(2):
        for j in range(3):
            assert distance(gradient(w)[j, i], flip(slide(x[0, i], dy[0, j]))) <= EXACT
            assert distance(gradient(w)[j, i], slide(flip(x[0, i]), flip(dy[0, j]))) <= EXACT


def test_1_6_max_pooling_copies_the_gradient_to_the_maximum() -> None:
    """dl/dx is dl/dy at the position of the maximum, zero elsewhere   (lecture 001, eq. 1.6)"""
    x = torch.tensor([[1.0, 2, 3], [4, 9, 5], [6, 7, 8]], dtype=torch.float64).view(1, 1, 3, 3).requires_grad_()
    MaxPool2d(3)(x).backward(torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64))
    assert gradient(x)[0, 0].tolist() == [[0, 0, 0], [0, 0.5, 0], [0, 0, 0]]


def test_1_7_average_pooling_spreads_the_gradient() -> None:
    """dl/dx = dl/dy upsampled, times 1/m^2: 0.5 over 3x3 gives 0.5/9 each   (lecture 001, eq. 1.7)"""
    x = images(1, 1, 3, 3).requires_grad_()
    AvgPool2d(3)(x).backward(torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64))
    assert distance(gradient(x), torch.full((1, 1, 3, 3), 0.5 / 9, dtype=torch.float64)) <= EXACT
    g = pooling("lecture 001", (1, 1, 3, 3), 3, None, 0, 1, False)
    assert reference.window_spread([[[[0.5]]]], g) == [[[[0.5 / 9] * 3] * 3]]


def test_1_8_negative_log_likelihood_of_softmax_by_gradient_descent() -> None:
    """l = -log softmax(z)_t; a step of stochastic gradient descent lowers it by alpha |dl/dtheta|^2  (eq. 1.8)"""
    z, t, alpha = images(1, 4), torch.tensor([2]), 1e-4
    w = images(4, 4, seed=2).requires_grad_()
    loss = F.cross_entropy(F.linear(z, w), t)
    powers = torch.exp(w @ z[0])
    assert abs(loss.item() + torch.log(powers[2] / powers.sum()).item()) <= EXACT
    loss.backward()
    torch.optim.SGD([w], lr=alpha).step()
    lowered = (loss - F.cross_entropy(F.linear(z, w), t)).item()
    expected = alpha * gradient(w).square().sum().item()
    assert 0.99 * expected < lowered < expected  # the loss is convex: a little less than the slope says
