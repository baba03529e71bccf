"""Lecture 001, a full convolutional network: each row of the digest, its test named by its number.

Letters: x_i input map, y_j output map before the non-linearity, l the loss, W_ij the kernel from map i to map j,
k_ij = W_ij with rows and columns flipped, `*` true convolution. In code W[j, i], output maps first, as in PyTorch.
"""

from math import log

import pytest
import torch
from torch.autograd import grad

import manualbp.functional as F
from manualbp import nn
from manualbp.kernels import reference
from manualbp.training.networks import caltech
from tests.checks import EXACT
from tests.lectures.letters import close

Pooling = torch.nn.AvgPool2d | torch.nn.MaxPool2d


def test_1_1_layers_alternate_convolution_with_non_linearity_and_pooling_with_subsampling() -> None:
    """a_j = f(sum_i k_ij * x_i), then pool(a_j) with only every s-th value kept   (lecture 001, eq. 1.1)."""
    x, k = torch.randn(1, 3, 9, 8), torch.randn(2, 3, 3, 2)
    y = F.convolve(x, k)
    for j in range(2):
        each_input_map = [F.convolve(x[:, i : i + 1], k[j : j + 1, i : i + 1]) for i in range(3)]
        assert close(y[:, j : j + 1], torch.stack(each_input_map).sum(0))

    a, s = F.sigmoid(y), 2
    for pool in (F.max_pool2d, F.avg_pool2d):
        assert close(pool(a, 3, stride=s), pool(a, 3, stride=1)[..., ::s, ::s])

    layers = list(caltech(nn, (1, 83, 83), 101).children())[:6]
    kinds = [torch.nn.Conv2d, torch.nn.Sigmoid, Pooling] * 2
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))


def test_1_2_from_one_image_of_83x83_to_101_categories() -> None:
    """1x83x83 -> 64x75x75 -> 64x14x14 -> 256x6x6 -> 256x1x1 -> 101 scores   (lecture 001, eq. 1.2).

    83 - 9 + 1 = 75;  (75 - 10) / 5 + 1 = 14;  14 - 9 + 1 = 6;  6 - 6 + 1 = 1.
    """
    network = caltech(nn, (1, 83, 83), 101)
    x, maps, windows = torch.randn(1, 1, 83, 83), [], []
    for layer in network.children():
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | Pooling):
            maps.append(tuple(x.shape[1:]))
            windows.append((layer.kernel_size, layer.stride))
    assert maps == [(64, 75, 75), (64, 14, 14), (256, 6, 6), (256, 1, 1)]
    assert windows == [((9, 9), (1, 1)), (10, 5), ((9, 9), (1, 1)), (6, 6)]
    assert x.shape == (1, 101)
    assert network[-1].weight.shape == (101, 256)  # fully connected; the softmax is in the loss, eq. 1.8


def test_1_3_a_connection_table_saves_parameters() -> None:
    """y_j = sum over a random subset of i of k_ij * x_i   (lecture 001, eq. 1.3).

    256 maps that see 16 of the 64 input maps each, against all 64: a quarter of the kernels, of 9x9 numbers each.
    """

    def parameters(layer: torch.nn.Module) -> int:
        return sum(p.numel() for p in layer.parameters())

    conv2 = caltech(nn, (1, 83, 83), 101).get_submodule("conv2")
    assert parameters(conv2) == 256 * 16 * 81 + 256

    table = nn.random_connections(64, 256, fan_in=16)
    assert table.sum(1).tolist() == [16] * 256
    assert len({tuple(row) for row in table.tolist()}) == 256  # each map its own subset
    assert parameters(nn.ConnectedConv2d(64, 256, 9, table)) == 256 * 16 * 81 + 256
    assert parameters(nn.Conv2d(64, 256, 9)) == 256 * 64 * 81 + 256

    # The table that LeCun et al. (1998) drew up for layer C3 of LeNet-5: 60 connections, 1516 parameters.
    assert parameters(nn.ConnectedConv2d(6, 16, 5, nn.LENET5_C3)) == 60 * 25 + 16 == 1516


def test_1_3_what_is_not_connected_has_no_effect() -> None:
    """dl/dx_i = 0 for l = sum y_j wherever the table does not connect i with j   (lecture 001, eq. 1.3).

    The kernels are numbered row by row of the table, and those of another y_j get no gradient either.
    """
    layer = nn.ConnectedConv2d(6, 16, 5, nn.LENET5_C3)
    kernels = [(i, j) for j, seen in enumerate(nn.LENET5_C3) for i in seen]
    x = torch.randn(6, 7, 7, requires_grad=True)
    y = layer(x)
    for j, seen in enumerate(nn.LENET5_C3):
        dx, dW = grad(y[j].sum(), [x, layer.weight], retain_graph=True)
        assert tuple(i for i in range(6) if dx[i].any()) == seen
        assert [kernel for kernel, d in zip(kernels, dW, strict=True) if d.any()] == [(i, j) for i in seen]


def test_1_4_input_gradient_is_the_zero_padded_delta_convolved_with_W() -> None:
    """dl/dx_i = sum_j (dl/dy_j, zero padded) * W_ij, W not flipped   (lecture 001, eq. 1.4).

    Forward y_j = sum_i k_ij * x_i with k_ij, the flipped W_ij. Backward, written out, `*` is
    dl/dx_i[r,s] = sum_j sum_pq dl/dy_j[r-p, s-q] W_ij[p,q], and dl/dy_j is 0 outside of the map.
    """
    x, W = torch.randn(1, 2, 5, 4, requires_grad=True), torch.randn(3, 2, 3, 2)
    y = F.convolve(x, F.rotate(W))
    dy = torch.randn(1, 3, 3, 3)
    (dx,) = grad(y, x, dy)

    by_sums = torch.zeros(1, 2, 5, 4)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        for p in range(3):
            for q in range(2):
                for r in range(p, p + 3):
                    for s in range(q, q + 3):
                        by_sums[0, i, r, s] += dy[0, j, r - p, s - q] * W[j, i, p, q]
    assert close(dx, by_sums)
    assert close(dx, F.convolve(dy, W.transpose(0, 1), padding=(2, 1)))  # the sum over j is over its input maps


def test_1_5_kernel_gradient_is_delta_convolved_with_the_flipped_input() -> None:
    """dl/dW_ij = dl/dy_j * (x_i with rows and columns flipped)   (lecture 001, eq. 1.5).

    Taken by the letter, as a convolution read from its first corner on, this is the gradient of k_ij, the kernel that
    is convolved with. That of W_ij, the flipped k_ij, has the same numbers flipped:
    dl/dW_ij[p,q] = sum_rs dl/dy_j[r,s] x_i[r+p, s+q].
    """
    x, W = torch.randn(1, 2, 5, 4), torch.randn(3, 2, 3, 2, requires_grad=True)
    k = F.rotate(W)
    y = F.convolve(x, k)
    dy = torch.randn(1, 3, 3, 3)
    dW, dk = grad(y, [W, k], dy)

    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        by_sums = [[(dy[0, j] * x[0, i, p : p + 3, q : q + 3]).sum().item() for q in range(2)] for p in range(3)]
        assert close(dW[j, i], by_sums)
        by_convolution = F.convolve(F.rotate(x[:, i : i + 1]), dy[:, j : j + 1])[0, 0]
        assert close(dk[j, i], by_convolution)
        assert close(dW[j, i], F.rotate(by_convolution))
        assert not close(dW[j, i], by_convolution)


def test_1_6_max_pooling_copies_the_gradient_to_the_maximum() -> None:
    """dl/dx[p',q'] = dl/dy where x[p',q'] is the maximum of its window, 0 elsewhere   (lecture 001, eq. 1.6)."""
    x = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [7.0, 8.0, 6.0]]], requires_grad=True)
    (dx,) = grad(F.max_pool2d(x, 3), x, torch.tensor([[[0.5]]]))
    assert dx.tolist() == [[[0, 0, 0], [0, 0, 0.5], [0, 0, 0]]]

    # Two windows of 2x2, one step apart, with the same maximum: it gets both gradients.
    x = torch.tensor([[[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]]], requires_grad=True)
    (dx,) = grad(F.max_pool2d(x, 2, stride=1), x, torch.tensor([[[0.5, 0.25]]]))
    assert dx.tolist() == [[[0, 0.75, 0], [0, 0, 0]]]


def test_1_7_average_pooling_spreads_the_gradient() -> None:
    """dl/dx = upsample(dl/dy) / m^2   (lecture 001, eq. 1.7); 0.5 over a window of 3x3 is 0.5 / 9 each."""
    m = 3
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    dy = torch.tensor([[[[0.5, 1.0], [-2.0, 3.0]]]])
    (dx,) = grad(F.avg_pool2d(x, m), x, dy)
    assert close(dx[0, 0, :3, :3], [[0.5 / 9] * 3] * 3)
    upsampled = dy.repeat_interleave(m, -2).repeat_interleave(m, -1)
    assert close(dx, upsampled / m**2)


def test_1_8_negative_log_likelihood_and_one_step_of_stochastic_gradient_descent() -> None:
    """l = -log softmax(z)_t for the class t; theta <- theta - alpha dl/dtheta   (lecture 001, eq. 1.8).

    The output layer is z = W h + b of one image. With dl/dz_c = softmax(z)_c - [c = t] one step is
    W_c <- W_c - alpha dl/dz_c h and b_c <- b_c - alpha dl/dz_c.
    """
    h, t, alpha = torch.randn(1, 4), 2, 0.5
    layer = nn.Linear(4, 3)
    W, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    z, target = layer(h), torch.tensor([t])
    l = F.nll_loss(F.log_softmax(z, 1), target)
    probability = reference.softmax(z[0].tolist())
    assert l.item() == pytest.approx(-log(probability[t]), rel=EXACT)
    assert l.item() == pytest.approx(F.cross_entropy(z, target).item(), rel=EXACT)

    l.backward()
    torch.optim.SGD(layer.parameters(), lr=alpha).step()
    for c in range(3):
        dz = probability[c] - (c == t)
        assert close(layer.weight[c], W[c] - alpha * dz * h[0])
        assert close(layer.bias[c], b[c] - alpha * dz)
    assert F.cross_entropy(layer(h), target) < l
