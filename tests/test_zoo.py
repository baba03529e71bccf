"""Whole networks, unmodified: torchvision's, and timm's where it is installed, by hand beside PyTorch, in float64."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

import manualbp
from benchmarks.zoo import compare, distance
from benchmarks.zoo_networks import SIZES, images, network, other, timms

ALIKE = 1e-9
FEW_BY_HAND = "fuse"  # alone it leaves most layers as they are


@pytest.mark.parametrize("name", SIZES)
def test_outputs_and_every_gradient_equal_pytorchs(name: str) -> None:
    check(narrow(network(name)), images(SIZES[name]))


def narrow(model: nn.Module) -> nn.Module:
    """Of alexnet and vgg the two hidden layers with 64 numbers for 4,096; `python -m benchmarks.zoo` has them whole."""
    wide = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == 4096]
    for name in wide:
        old = model.get_submodule(name)
        model.set_submodule(name, nn.Linear(64 if name != wide[0] else old.in_features, 64, dtype=old.weight.dtype))
    if wide:
        model.set_submodule("classifier.6", nn.Linear(64, 1000, dtype=torch.float64))
    return model


# `python -m benchmarks.zoo --others` runs all fourteen, in a quarter of an hour.
@pytest.mark.parametrize("name", ["dcgan_discriminator", "ssdlite320_mobilenet_v3_large"])
def test_networks_of_other_kinds(name: str) -> None:
    model, inputs = other(name)
    check(model, *inputs)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "seresnet50", "densenet121"])
def test_networks_of_timm(name: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed; `python -m benchmarks.zoo --timm` runs fifty of its")
    check(timms(name), images(64))


def check(model: nn.Module, *inputs) -> None:
    for way, result in compare(model, *inputs).items():
        assert result.outputs <= ALIKE, way
        assert result.gradients <= ALIKE, way
        if way != FEW_BY_HAND:
            assert result.coverage.layers == {}, way
            assert sum(result.coverage.by_hand.values()) >= 10


def test_a_segmentation_network() -> None:
    """Two images, its auxiliary classifier, bilinear upsampling; one step of SGD by hand and by PyTorch."""
    torch.manual_seed(0)
    model = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    ).double()
    x = images(64, 2)
    check(model, x)
    t = torch.randint(5, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    weights = []
    for by_hand in (True, False):
        one = copy.deepcopy(model)
        if by_hand:
            manualbp.convert(one)
        criterion = (manualbp.nn if by_hand else nn).CrossEntropyLoss(ignore_index=3)
        weights.append(train(one, lambda x, one=one, c=criterion: c(one(x)["out"], t), x, steps=1))
    assert distance(*weights) <= ALIKE


def train(model: nn.Module, loss_of, x: Tensor, steps: int) -> list[Tensor]:
    """The weights and buffers after some steps of SGD with momentum."""
    torch.manual_seed(1)  # dropout
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(x).backward()
        optimizer.step()
    return [t.detach().double() for t in model.state_dict().values()]


class Generator(nn.Module):
    """DCGAN's generator, small: noise to images of 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def test_a_gan() -> None:
    """Generator and discriminator, one step each by hand and by PyTorch."""
    torch.manual_seed(0)
    generator = Generator().double()
    discriminator = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(512, 1)
    ).double()
    z, real = torch.randn(4, 8, 1, 1, dtype=torch.float64), images(16, 4)
    results = []
    for by_hand in (True, False):
        g, d = copy.deepcopy(generator), copy.deepcopy(discriminator)
        criterion = (manualbp.nn if by_hand else nn).BCEWithLogitsLoss()
        if by_hand:
            manualbp.convert(g)
            manualbp.convert(d)

        def of_discriminator(z: Tensor, g=g, d=d, criterion=criterion) -> Tensor:
            scores = d(torch.cat([real, g(z).detach()]))
            return criterion(scores, torch.cat([torch.ones(4, 1), torch.zeros(4, 1)]).double())

        def of_generator(z: Tensor, g=g, d=d, criterion=criterion) -> Tensor:
            return criterion(d(g(z)), torch.ones(4, 1).double())

        results.append([*train(d, of_discriminator, z, 1), *train(g, of_generator, z, 1)])
        assert bool(manualbp.coverage(of_generator(z)).layers) != by_hand
    assert distance(*results) <= ALIKE


def test_ten_steps_of_resnet18() -> None:
    """From one seed, by hand and by PyTorch: the same weights and running statistics."""
    x, t = images(32, 4), torch.tensor([0, 3, 3, 9])
    weights = []
    for by_hand in (True, False):
        model = network("resnet18")
        if by_hand:
            manualbp.convert(model)
        criterion = (manualbp.nn if by_hand else nn).CrossEntropyLoss()
        weights.append(train(model, lambda x, m=model, c=criterion: c(m(x), t), x, steps=10))
    assert distance(*weights) <= ALIKE
