"""The recipes, and the options that they put together."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml

from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.networks import lecture004
from manualbp.training.options import RECIPES, parse, recipes
from tests.training import files
from tests.training.runs import LAST, TRAIN, load


def test_recipes_are_those_of_the_documentation() -> None:
    assert recipes() == ["airbench94", "caltech101", "resnet18"]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_sets_its_options_and_others_change_them(name: str) -> None:
    written = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    _, options = parse(["--recipe", name])
    assert {key: options[key] for key in written} == written
    _, options = parse(["--recipe", name, "--epochs", "3", "--lr", "0.5"])
    assert (options.epochs, options.lr, options.network) == (3, 0.5, written["network"])


@pytest.mark.parametrize("name", recipes())
def test_a_printed_recipe_is_a_file_to_change(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--recipe", name, "--print_config"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(capsys.readouterr().out)
    _, options = parse(["--config", str(mine)])
    _, expected = parse(["--recipe", name])
    expected.config = options.config
    assert options == expected


def test_a_file_may_name_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: airbench94\nepochs: 3\n")
    _, options = parse(["--config", str(tmp_path / "mine.yaml")])
    assert (options.network, options.epochs, options.optimizer) == ("airbench94", 3, "muon")


@pytest.mark.parametrize("arguments", [["--recipe", "airbench93"], ["--recipe"]])
def test_an_unknown_recipe(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--recipe" in error


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_trains(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.tree(tmp_path / "tree", size=(32, 32))
    data = ["--data", "folder", "--data-dir", "tree", "--batch-size", "4", "--epochs", "1"]
    assert main(["--recipe", name, *data]) == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "gradients by hand, fused" in out
    assert "PyTorch's" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patience", "2", "--validation", "0"], ["--patience: 2", "--validation 0"]),
        (["--crop-padding", "1", "--augmentation", "flip"], ["--crop-padding: 1", "no crop"]),
        (["--augmentation", "none", "flip"], ["--augmentation", "none"]),
        (["--augmentation", "blur"], ["--augmentation", "blur"]),
        (["--augmentation", "mixup", "--network", "mlp"], ["--augmentation", "mixup", "mlp"]),
        (["--ema", "1"], ["--ema", "1"]),
        (["--clip", "0"], ["--clip", "0"]),
        (["--schedule", "step"], ["--schedule", "step"]),
        (["--image-size", "32"], ["--image-size: 32", "folder or caltech101", "digits"]),
        (["--channels", "3"], ["--channels: 3", "folder or caltech101", "digits"]),
        (["--crop-padding", "8"], ["--crop-padding: 8", "8 x 8"]),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not Path("runs").exists()


def test_another_schedule() -> None:  # each rate is tested by itself: test_optimizers
    assert main(["--epochs", "1", "--schedule", "one-cycle"]) == 0


def test_every_augmentation_together() -> None:
    kinds = ["flip", "crop", "warp", "randaugment", "cutout", "mixup"]
    assert main(["--epochs", "1", "--augmentation", *kinds]) == 0


def test_a_moving_average_is_kept_and_goes_on() -> None:
    assert main(["--epochs", "2", "--ema", "0.9", "--output-dir", "whole"]) == 0
    assert main(["--epochs", "2", "--ema", "0.9"]) == 0
    first = load(LAST)
    now, average = first["current_model_state"]["network.g1.weight"], first["state_dict"]["network.g1.weight"]
    assert not torch.equal(now, average)
    assert main(["--resume", str(LAST), "--epochs", "3"]) == 0
    assert main(["--resume", "whole/digits-lecture004/version_0/last.ckpt", "--epochs", "3", "--output-dir", "w"]) == 0
    a, b = (load(path)["state_dict"] for path in (
        LAST.parent.with_name("version_1") / "last.ckpt", "w/digits-lecture004/version_0/last.ckpt"
    ))  # fmt: skip
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_without_progress_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "50", "--patience", "2", "--lr", "1e-9"]) == 0
    done = len(load(LAST)["run"]["history"])
    assert 3 <= done < 20


def test_gradients_are_clipped() -> None:
    """By so little a norm nothing moves but what momentum and rounding do."""
    options = ["--epochs", "1", "--validation", "0", "--schedule", "constant"]
    assert main([*options, "--clip", "1e-6"]) == 0
    weights = load(LAST)["state_dict"]
    pl.seed_everything(0, verbose=False)
    import manualbp.nn

    for name, p in lecture004(manualbp.nn, (1, 8, 8), 10).named_parameters():
        assert 0 < (weights[f"network.{name}"] - p).norm() < 12 * 10 * 0.1 * 1e-6 + 1e-5


def test_the_numbers_are_those_of_a_run_without(tmp_path: Path) -> None:
    command = [sys.executable, TRAIN, "--epochs", "1", "--network", "mlp"]
    for more in ([], ["--deterministic", "--compile"]):
        subprocess.run([*command, *more], check=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    plain, other = (load(f"runs/digits-mlp/version_{n}/last.ckpt")["state_dict"] for n in range(2))
    assert other.keys() == plain.keys()
    torch.testing.assert_close(other, plain)


def test_without_a_compiler(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": "none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, TRAIN, "--epochs", "1", "--network", "mlp", "--compile"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("train.py: error: argument --compile: ")
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(("kind", "views"), [("none", 1), ("mirror", 2), ("mirror-shift", 6)])
def test_scores_are_the_mean_over_the_views(kind: str, views: int) -> None:
    """Of a network that is linear and weighs each pixel, the mean over the views is that of the mean image."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 6, 4))
    seen = []
    network.register_forward_hook(lambda *_: seen.append(1))
    model = Classifier.__new__(Classifier)
    pl.LightningModule.__init__(model)
    model.network, model.options = network, {"test_augmentation": kind}
    model.register_buffer("mean", torch.zeros(3, 1, 1))
    model.register_buffer("std", torch.ones(3, 1, 1))
    x = torch.randint(256, (5, 3, 6, 6), dtype=torch.uint8)
    z = model.scores(x)
    assert len(seen) == views

    def mirrored(x: torch.Tensor) -> torch.Tensor:
        return (x + x.flip(3)) / 2

    mean = x.float()
    if kind != "none":
        mean = mirrored(mean)
    if kind == "mirror-shift":
        wide = torch.cat([x[..., 1:2], x, x[..., -2:-1]], 3).float()
        wide = torch.cat([wide[..., 1:2, :], wide, wide[..., -2:-1, :]], 2)
        mean = mean / 2 + (mirrored(wide[..., :-2, :-2]) + mirrored(wide[..., 2:, 2:])) / 4
    torch.testing.assert_close(z, network(mean))
