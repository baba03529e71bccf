"""torchvision's networks in training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

import manualbp
from manualbp.training import UserError, vision
from manualbp.training.check import check, distinct, first_of_each_kind
from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.vision import NAMES, has_stem, network_of, require_size
from tests.training import files
from tests.training.runs import load, scalars

TREE = ["--data", "folder", "--data-dir", "tree", "--batch-size", "4", "--lr", "0.01"]


def on_meta(name: str, *arguments: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return network_of(name, *arguments)


def test_names_are_those_of_classification_networks() -> None:
    assert {"alexnet", "resnet18", "vit_b_16", "wide_resnet50_2"} <= set(NAMES)
    assert not [name for name in NAMES if "rcnn" in name or "fcn" in name or "quantized" in name or "r3d" in name]


def test_the_stem_is_that_of_residual_networks() -> None:
    assert {name for name in NAMES if has_stem(name)} == {
        name for name in NAMES if "resnet" in name or "resnext" in name
    }
    for name in ("resnet101", "resnext101_64x4d", "wide_resnet101_2", "vgg11", "squeezenet1_0", "mobilenet_v2"):
        assert has_stem(name) == isinstance(on_meta(name, (3, 32, 32), 10), models.ResNet)


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_of_grey_and_of_colour_images(channels: int) -> None:
    network = network_of("shufflenet_v2_x0_5", (channels, 32, 32), 7).eval()
    x = torch.randn(2, channels, 32, 32)
    assert network(x).shape == (2, 7)
    assert network.state_dict().keys() == models.get_model("shufflenet_v2_x0_5").state_dict().keys()


def test_grey_images_are_three_equal_channels() -> None:
    torch.manual_seed(0)
    grey = network_of("shufflenet_v2_x0_5", (1, 32, 32), 7).eval()
    colour = network_of("shufflenet_v2_x0_5", (3, 32, 32), 7).eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(grey(x), colour(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_small_stem_keeps_the_size_of_the_image(name: str) -> None:
    network = on_meta(name, (3, 32, 32), 10, "3x3")
    sizes: list[tuple[int, ...]] = []
    network.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    assert network(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert sizes == [(2, 64, 32, 32)]


def test_no_auxiliary_outputs() -> None:
    for name, size in (("googlenet", 32), ("inception_v3", 75)):
        z = on_meta(name, (3, size, size), 5)(torch.empty(2, 3, size, size, device="meta"))
        assert isinstance(z, torch.Tensor)
        assert z.shape == (2, 5)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 62), ("inception_v3", 74), ("vit_b_16", 64), ("vgg11", 16)])
def test_images_that_do_not_fit_are_refused(name: str, size: int) -> None:
    shape = (3, size, size)
    with pytest.raises(UserError, match=f"--network {name}: images of {size} x {size}"):
        require_size(on_meta(name, shape, 2), name, shape, 4)


def test_images_that_just_fit() -> None:
    for name, size in (("alexnet", 63), ("inception_v3", 75), ("vit_b_16", 224), ("vgg11", 32)):
        shape = (3, size, size)
        require_size(on_meta(name, shape, 2), name, shape, 4)


def test_a_single_image_has_no_variance() -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match="--batch-size: leaves a batch of a single image"):
        require_size(on_meta("resnet18", shape, 2), "resnet18", shape, 1)
    require_size(on_meta("resnet18", shape, 2, "3x3"), "resnet18", shape, 1)  # ends in 4 x 4 numbers an image
    require_size(on_meta("squeezenet1_1", shape, 2), "squeezenet1_1", shape, 1)


def test_the_trial_leaves_the_network_as_it_was() -> None:
    network = network_of("shufflenet_v2_x0_5", (3, 32, 32), 7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    require_size(network, "shufflenet_v2_x0_5", (3, 32, 32), 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_layers_that_work_in_place_or_at_random_or_have_no_second_derivative_are_checked() -> None:
    torch.manual_seed(0)
    x = distinct((2, 3, 4, 4), torch.device("cpu"))
    for layer in (torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.5), torch.nn.Hardsigmoid(), torch.nn.BatchNorm2d(3)):
        check(layer.double(), x)


def test_of_large_layers_a_smaller_one_is_checked() -> None:
    large, larger, small = torch.nn.Linear(8, 2**19 + 1), torch.nn.Linear(2**19 + 1, 9), torch.nn.Linear(9, 2)
    network = torch.nn.Sequential(large, torch.nn.ReLU(), larger, small)
    assert [layer for layer, _, _ in first_of_each_kind(network, torch.randn(2, 8))] == [small, network[1]]


def test_the_first_layer_of_a_kind_is_one_that_is_called() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.never, self.first, self.second = (torch.nn.Linear(3, 3) for _ in range(3))
            self.scale = Scale()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale(self.second(self.first(x)), 2)

    class Scale(torch.nn.Module):
        def forward(self, x: torch.Tensor, factor: int) -> torch.Tensor:
            return factor * x

    model = Model()
    calls = first_of_each_kind(model, torch.randn(2, 3))
    assert calls == [(model.first, (2, 3), []), (model.scale, (2, 3), [2])]


@pytest.mark.parametrize("backward", ["manualbp", "torch"])
def test_runs_and_goes_on(backward: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.tree(tmp_path / "tree", mode="L", size=(16, 16))
    options = ["--network", "resnet18", "--stem", "3x3", "--backward", backward]
    assert main([*TREE, *options, "--epochs", "1"]) == 0
    folder = Path("runs/folder-resnet18/version_0")
    products = {"best.ckpt", "config.yaml", "confusion.png", "curves.png", "filters.png", "last.ckpt", "metrics.csv"}
    assert products <= {path.name for path in folder.iterdir()}
    printed = capsys.readouterr().out
    assert "audit: Conv2d, BatchNorm2d, ReLU" in printed
    assert f"gradients by {'hand, ' if backward == 'manualbp' else 'PyTorch, '}" in printed  # and nothing left out
    last = str(folder / "last.ckpt")
    state = load(last)["state_dict"]
    assert state["network.conv1.weight"].shape == (64, 3, 3, 3)
    assert main(["--resume", last, "--epochs", "2", "--backward", "torch"]) == 0
    assert main(["--resume", last, "--network", "resnet34"]) == 2
    assert "--network: resnet34, but" in capsys.readouterr().err


def test_backwards_agree(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree", size=(16, 16))
    losses = []
    for backward in ("manualbp", "torch"):
        options = ["--network", "resnet18", "--stem", "3x3", "--batch-size", "3", "--precision", "64-true"]
        assert main([*TREE, *options, "--epochs", "2", "--backward", backward, "--output-dir", backward]) == 0
        (folder,) = Path(backward).glob("*/version_0")
        losses.append(scalars(folder, "train_loss_step"))
    assert len(losses[0]) == 4
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-6


def test_what_is_left_to_pytorch_is_named() -> None:
    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).cumprod(1).mean((2, 3))

    model = Head()
    manualbp.convert(model)  # pyright: ignore
    assert vision.left_to_pytorch(model, (3, 8, 8)) == ["Cumprod"]


def test_a_resumed_run_draws_the_same_dropout(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree", size=(32, 32))
    options = [*TREE, "--network", "squeezenet1_1", "--backward", "torch", "--epochs", "2"]
    assert main([*options, "--output-dir", "unbroken"]) == 0

    def stop(model: Classifier) -> None:
        if model.current_epoch == 1:
            raise UserError("stop")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_start", stop)
        assert main([*options, "--output-dir", "stopped"]) == 2
    name = "folder-squeezenet1_1/version_0/last.ckpt"
    torch.rand(5)
    assert main(["--resume", f"stopped/{name}", "--output-dir", "resumed"]) == 0
    unbroken, resumed = (load(f"{run}/{name}") for run in ("unbroken", "resumed"))
    torch.testing.assert_close(unbroken["state_dict"], resumed["state_dict"], rtol=0, atol=0)
