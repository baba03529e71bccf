from types import ModuleType

import pytest
import torch

import manualbp.nn
from manualbp.training import UserError, torch_layers
from manualbp.training.networks import (
    ACTIVATIONS,
    NETWORKS,
    POOLINGS,
    SquaredError,
    airbench94,
    block,
    caltech,
    lecture004,
    mlp,
    whiten,
)


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


def shape_for(name: str) -> tuple[int, int, int]:
    return {"caltech": (1, 83, 83), "airbench94": (3, 32, 32)}.get(name, (1, 8, 8))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_backwards_start_from_the_same_weights(name: str) -> None:
    states = []
    for layers in (torch_layers, manualbp.nn):
        torch.manual_seed(3)
        states.append(NETWORKS[name](layers, shape_for(name), 10).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", ["lecture004", "block", "mlp", "caltech"])
def test_layers_are_of_the_kinds_asked_for(name: str) -> None:
    for layers in (torch_layers, manualbp.nn):
        for activation, of_class in ACTIVATIONS.items():
            network = NETWORKS[name](layers, shape_for(name), 10, activation)
            kinds = {type(layer) for layer in network}
            assert kinds & {getattr(layers, other) for other in ACTIVATIONS.values()} == {getattr(layers, of_class)}
        for pooling, pools in POOLINGS.items() if name != "mlp" else ():
            network = NETWORKS[name](layers, shape_for(name), 10, pooling=pooling)
            assert tuple(type(layer).__name__ for layer in network if "Pool" in type(layer).__name__) == pools


def test_the_block_is_of_true_convolution_relu_and_pooling() -> None:
    names = [type(layer).__name__ for layer in block(manualbp.nn, (3, 32, 32), 10)]
    assert names == [*["TrueConv2d", "ReLU", "MaxPool2d"] * 2, "Flatten", "Linear"]
    assert block(manualbp.nn, (3, 9, 14), 7)(torch.rand(2, 3, 9, 14)).shape == (2, 7)


def test_the_perceptron_starts_near_the_mean_of_its_targets() -> None:
    torch.manual_seed(0)
    yhat = mlp(manualbp.nn, (1, 8, 8), 10)(torch.randn(64, 1, 8, 8))
    assert 0.05 < yhat.mean() < 0.2


@pytest.mark.parametrize("layers", [torch_layers, manualbp.nn])
def test_squared_error_is_equation_3_1(layers: ModuleType) -> None:
    yhat = torch.tensor([[0.5, 0.1, 0.2], [0.0, 0.3, 1.0]], requires_grad=True)
    loss = SquaredError(layers)(yhat, torch.tensor([0, 1]))
    torch.testing.assert_close(loss.item(), (0.5**2 + 0.1**2 + 0.2**2 + 0.7**2 + 1) / 2 / 2)
    loss.backward()
    torch.testing.assert_close(yhat.grad, torch.tensor([[-0.5, 0.1, 0.2], [0.0, -0.7, 1.0]]) / 2)


@pytest.mark.parametrize("shape", [(3, 83, 83), (1, 64, 64)])
def test_the_caltech_network_takes_the_lectures_images_only(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"images of {shape[0]} x {shape[1]} x {shape[2]}, it needs 1 x 83 x 83"):
        caltech(manualbp.nn, shape, 101)


def test_sigmoids_start_neither_dead_nor_all_alike() -> None:
    torch.manual_seed(0)
    network = lecture004(torch.nn, (3, 32, 32), 10)
    x = torch.randn(16, 3, 32, 32)
    for name, layer in network.named_children():
        x = layer(x)
        if name.startswith("f") and name != "flatten":
            assert (x * (1 - x)).mean() > 0.02, name  # the mean slope, 1/4 at most
            assert x.std(0).mean() > 0.02, name  # how far images differ


@pytest.mark.parametrize(("shape", "rows"), [((3, 32, 32), 256), ((1, 25, 60), 2 * 256), ((4, 49, 49), 4 * 256)])
def test_airbench94_ends_in_what_the_poolings_leave(shape: tuple[int, int, int], rows: int) -> None:
    network = airbench94(torch.nn, shape, 7)
    assert network(torch.rand(2, *shape)).shape == (2, 7)
    W = network.get_submodule("W").get_parameter("weight")
    assert W.shape == (7, rows)
    assert W.std().item() == pytest.approx(1 / rows)


@pytest.mark.parametrize("shape", [(3, 24, 32), (1, 32, 24)])
def test_airbench94_refuses_images_of_which_pooling_leaves_nothing(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"{shape[1]} x {shape[2]}.*25 x 25"):
        airbench94(torch.nn, shape, 7)


def test_airbench94_begins_with_the_maps_as_they_are() -> None:
    network = airbench94(torch.nn, (3, 32, 32), 10)
    x = torch.rand(2, 24, 9, 9)
    torch.testing.assert_close(network.get_submodule("conv11")(x)[:, :24], x)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"whiten.weight", *(f"norm{n}{m}.weight" for n in (1, 2, 3) for m in (1, 2))}


def test_whitened_maps_are_uncorrelated_and_of_variance_one() -> None:
    x = torch.nn.functional.avg_pool2d(torch.randn(50, 3, 20, 20), 3, stride=1) * 3  # neighbours are alike
    conv = torch.nn.Conv2d(3, 24, 2, bias=False)
    whiten(conv, x, least=0)
    maps = conv(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(maps[:12], -maps[12:])
    torch.testing.assert_close(maps[:12] @ maps[:12].T / maps.shape[1], torch.eye(12), rtol=0, atol=1e-4)
