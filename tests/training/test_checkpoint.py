"""A checkpoint alone is the module that was trained: in a process of its own, without its data, and if it is older."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import manualbp
from manualbp.training import UserError
from manualbp.training.checkpoint import read_checkpoint
from manualbp.training.classifier import Classifier
from manualbp.training.cli import main
from manualbp.training.networks import NETWORKS
from tests.training import files
from tests.training.runs import LAST, load

NEWER = ("stem", "fuse", "weight_decay", "label_smoothing")  # options that checkpoints did not have from the first
ALONE = """
import sys, torch
from manualbp.training.classifier import Classifier
model = Classifier.load_from_checkpoint(sys.argv[1])
with torch.no_grad():
    torch.save(model(torch.load("images.pt")), "scores.pt")
"""
IMAGES = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["lecture004", "block", "mlp", "mobilenet_v2"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of one epoch of each network."""
    parent = tmp_path_factory.getbasetemp() / "of_networks"
    path = parent / f"digits-{request.param}" / "version_0" / "last.ckpt"
    if not path.exists():
        options = ["--epochs", "1", "--batch-size", "512", "--network", request.param]
        assert main([*options, "--output-dir", str(parent)]) == 0
    return path


def expected(path: Path) -> torch.Tensor:
    """What a network of torch.nn's layers makes of IMAGES with the weights of the checkpoint."""
    from manualbp.training import torch_layers, vision

    found = load(path)
    name, state = found["run"]["options"]["network"], found["state_dict"]
    own = NETWORKS[name](torch_layers, (1, 8, 8), 10) if name in NETWORKS else vision.network_of(name, (1, 8, 8), 10)
    own.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    with torch.no_grad():
        return own.eval()((IMAGES - state["mean"]) / state["std"])


def test_the_network_that_was_trained(checkpoint: Path) -> None:
    model = Classifier.load_from_checkpoint(checkpoint)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), expected(checkpoint), rtol=1e-4, atol=1e-5)


def test_alone_in_a_process_of_its_own(finished: Path, tmp_path: Path) -> None:
    torch.save(IMAGES, tmp_path / "images.pt")
    command = [sys.executable, "-c", ALONE, str(finished / "last.ckpt")]
    subprocess.run(command, cwd=tmp_path, check=True, env={"PYTHONPATH": str(Path(manualbp.__file__).parents[1])})
    scores = torch.load(tmp_path / "scores.pt")
    torch.testing.assert_close(scores, expected(finished / "last.ckpt"), rtol=1e-4, atol=1e-5)


def changed(path: Path, **options: Any) -> io.BytesIO:
    """The checkpoint with other options; of None without them."""
    found = load(path)
    found["run"]["options"] = {k: v for k, v in (found["run"]["options"] | options).items() if v is not None}
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    return file


def test_older_checkpoints_have_the_defaults_of_newer_options(finished: Path) -> None:
    last = finished / "last.ckpt"
    now, old = (Classifier.load_from_checkpoint(file) for file in (last, changed(last, **dict.fromkeys(NEWER))))
    assert old.options == now.options | {"stem": None, "fuse": False, "weight_decay": None, "label_smoothing": 0.0}
    assert torch.equal(old(IMAGES), now(IMAGES))
    assert old.history == now.history
    assert len(old.history) == 1


@pytest.mark.parametrize(("backward", "module"), [("manualbp", "manualbp.nn.conv"), ("torch", "torch.nn.modules.conv")])
def test_the_layers_of_its_run(finished: Path, backward: str, module: str) -> None:
    model = Classifier.load_from_checkpoint(changed(finished / "last.ckpt", backward=backward))
    assert type(model.network.get_submodule("g1")).__module__ == module


def test_device_dtype_and_random_numbers(finished: Path, tmp_path: Path) -> None:
    last = finished / "last.ckpt"
    state = torch.get_rng_state()
    model = Classifier.load_from_checkpoint(last, map_location="meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)
    assert main(["--epochs", "1", "--precision", "64-true"]) == 0
    double = Classifier.load_from_checkpoint(LAST)
    assert {p.dtype for p in double.parameters()} == {torch.float64} == {double.mean.dtype}
    assert double(IMAGES).dtype == torch.float64


def test_it_can_be_trained_on(finished: Path) -> None:
    model = Classifier.load_from_checkpoint(finished / "last.ckpt")
    loss = model.loss(model.train()(IMAGES), torch.tensor([1, 2, 3]))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_is_no_checkpoint(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other")
    found = read_checkpoint(finished / "last.ckpt")
    torch.save(found | {"state_dict": {}}, tmp_path / "empty")
    torch.save(found | {"run": {}}, tmp_path / "bare")
    for name in ("none", "text", "other", "empty", "bare"):
        with pytest.raises(UserError, match=f"^load_from_checkpoint: checkpoint_path: {tmp_path / name}: "):
            Classifier.load_from_checkpoint(tmp_path / name)


def test_a_folder_of_images_is_not_needed(tmp_path: Path) -> None:
    files.tree(tmp_path / "tree")
    assert main(["--data", "folder", "--data-dir", "tree", "--epochs", "1"]) == 0
    (tmp_path / "tree").rename(tmp_path / "gone")
    model = Classifier.load_from_checkpoint("runs/folder-lecture004/version_0/best.ckpt")
    assert (model.shape, model.classes) == ([3, 8, 8], ["a", "b"])
