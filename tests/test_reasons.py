"""memory's last column: what a layer keeps, and why, in words."""

import pytest
import torch
from torch import nn

import manualbp
import manualbp.nn as by_hand
from manualbp.reasons import WHY
from tests.test_memory import FLOAT, apart, numbers, why


def test_every_reason_is_one_of_a_layer() -> None:
    assert set(WHY) <= set(by_hand.__all__)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), "output: it tells the slope"),
        (nn.ReLU6(inplace=True), "a bit a number: what the slope is"),
        (nn.Hardtanh(), "a bit a number: what the slope is"),
        (nn.LeakyReLU(-0.1), "a bit a number: what the slope is"),
        (nn.LeakyReLU(inplace=True), "output: it tells the slope"),
        (nn.GELU(), "input: the output does not tell the slope"),
        (nn.ELU(inplace=True), "output: works in place"),
        (nn.SiLU(inplace=True), "a copy of the input: works in place"),
        (nn.Softmax(1), "output: it tells the slope"),
        (nn.Dropout(inplace=True), "the noise"),
        (nn.BatchNorm2d(4).eval(), "input, for its distance from the mean; mean and deviation"),
        (nn.BatchNorm2d(4, affine=False).eval(), "mean and deviation"),
        (nn.GroupNorm(2, 4), "input, for its distance from the mean; mean and deviation"),
        (nn.Upsample(scale_factor=2), "nothing: linear, its factors are constants"),
        (nn.ConvTranspose2d(4, 4, 3), "input, for the weight's gradient"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "a padded or cast copy of input or weight"),
        (nn.SELU(), "input: the output does not tell the slope"),
        (nn.Softshrink(), "a bit a number: what the slope is"),
        (nn.Hardsigmoid(inplace=True), "a bit a number: what the slope is"),
        (nn.RReLU(), "PyTorch's own, manualbp has no RReLU: 2x4x8x8 float32, neither input nor output; input"),
    ],
)  # fmt: skip
def test_reasons(layer: nn.Module, expected: str) -> None:
    """Behind a convolution, whose output nobody keeps but this layer."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), layer)
    assert why(manualbp.memory(model, torch.rand(2, 4, 8, 8)))["1"] == expected


def test_layers_that_torch_nn_lacks_are_by_hand_all_ways() -> None:
    receipt = manualbp.memory(by_hand.TrueConv2d(3, 4, 3), torch.randn(2, 3, 5, 5, requires_grad=True))
    (row,) = receipt.rows
    assert numbers(receipt)[""] == apart(4 * 3 * 9 * FLOAT)
    assert row.why.startswith("by hand all ways: input, for the weight's gradient (x itself); the rotated kernel")
