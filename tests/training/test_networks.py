from types import ModuleType

import pytest
import torch

import manualbp.nn
from manualbp.training import UserError
from manualbp.training.networks import NETWORKS, lecture004


@pytest.mark.parametrize("layers", [torch.nn, manualbp.nn])
def test_lecture004_has_the_layers_of_equation_4_1(layers: ModuleType) -> None:
    network = lecture004(layers, (3, 32, 32), 10)
    names = [type(layer).__name__ for layer in network]
    block = ["Conv2d", "Sigmoid", "MaxPool2d"]
    assert names == [*block, *block, "Flatten", "Linear", "Sigmoid", "Linear"]
    own = {layer for layer in network if type(layer).__name__ != "Flatten"}
    assert all(type(layer) is getattr(layers, type(layer).__name__) for layer in own)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}
    assert shapes == {
        "g1.weight": (32, 3, 5, 5),
        "g2.weight": (64, 32, 5, 5),
        "W1.weight": (256, 64 * 8 * 8),
        "W2.weight": (10, 256),
    }


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 9, 14), (3, 4, 4)])
def test_lecture004_gives_a_score_to_every_class(shape: tuple[int, int, int]) -> None:
    assert lecture004(torch.nn, shape, 7)(torch.rand(2, *shape)).shape == (2, 7)


def test_lecture004_refuses_images_of_which_pooling_leaves_nothing() -> None:
    with pytest.raises(UserError, match="3 x 9"):
        lecture004(torch.nn, (1, 3, 9), 7)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_backwards_start_from_the_same_weights(name: str) -> None:
    states = []
    for layers in (torch.nn, manualbp.nn):
        torch.manual_seed(3)
        states.append(NETWORKS[name](layers, (1, 8, 8), 10).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_sigmoids_start_neither_dead_nor_all_alike() -> None:
    torch.manual_seed(0)
    network = lecture004(torch.nn, (3, 32, 32), 10)
    x = torch.randn(16, 3, 32, 32)
    for name, layer in network.named_children():
        x = layer(x)
        if name.startswith("f") and name != "flatten":
            assert (x * (1 - x)).mean() > 0.02, name  # the mean slope, 1/4 at most
            assert x.std(0).mean() > 0.02, name  # how far images differ
