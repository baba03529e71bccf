"""manualbp export: what is written gives the checkpoint's scores in a process that has no manualbp."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from manualbp.__main__ import main
from manualbp.training import export
from manualbp.training.classifier import Classifier
from tests.training.made import checkpoint

Shape = tuple[int, int, int]
NETWORKS: dict[str, tuple[str, Shape, dict[str, Any]]] = {
    "lecture004": ("lecture004", (1, 8, 8), {}),
    "block": ("block", (3, 9, 10), {"activation": "tanh", "pooling": "avg-max"}),
    "mlp": ("mlp", (1, 8, 8), {}),
    "caltech": ("caltech", (1, 83, 83), {}),
    "torch": ("block", (1, 8, 8), {"backward": "torch", "precision": "64-true", "fuse": False}),
    "resnet18": ("resnet18", (3, 32, 32), {}),
    "grey": ("squeezenet1_1", (1, 33, 33), {}),
}
BATCHES = (1, 5)
ELSEWHERE = """
import sys
sys.modules["manualbp"] = None
import onnxruntime, torch, torchvision
from collections import OrderedDict
from torch import nn

def network(name):
    S, R, T, M, A = nn.Sigmoid(), nn.ReLU(), nn.Tanh(), nn.MaxPool2d, nn.AvgPool2d
    if name == "lecture004":
        keys = "g1 f1 pool1 g2 f2 pool2 flatten W1 f3 W2"
        layers = [nn.Conv2d(1, 32, 5, padding=2), S, M(2), nn.Conv2d(32, 64, 5, padding=2), S, M(2), nn.Flatten()]
        layers += [nn.Linear(256, 256), S, nn.Linear(256, 4)]
    elif name in ("block", "torch"):
        keys = "w1 phi1 pool1 w2 phi2 pool2 flatten W"
        f, pool, C = (R, M, 1) if name == "torch" else (T, A, 3)
        layers = [nn.Conv2d(C, 32, 3, padding=1), f, pool(2), nn.Conv2d(32, 64, 3, padding=1), f, M(2), nn.Flatten()]
        layers += [nn.Linear(256, 4)]
    elif name == "mlp":
        keys = "flatten W1 f1 W2 f2 W3 f3"
        layers = [nn.Flatten(), nn.Linear(64, 256), S, nn.Linear(256, 64), S, nn.Linear(64, 4), S]
    elif name == "caltech":
        keys = "conv1 f1 pool1 conv2 f2 pool2 flatten W"
        layers = [nn.Conv2d(1, 64, 9), S, A(10, stride=5), nn.Conv2d(64, 256, 9), S, A(6), nn.Flatten()]
        layers += [nn.Linear(256, 4)]
    else:
        return torchvision.models.get_model("squeezenet1_1" if name == "grey" else name, num_classes=4)
    return nn.Sequential(OrderedDict(zip(keys.split(), layers, strict=True)))

found = {}
for name, (images, mean, std) in torch.load("images.pt").items():
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(f"{name}.pt2").module()
    weights = network(name)
    weights.load_state_dict(torch.load(f"{name}.torch", weights_only=True))
    weights.eval()
    for x in images:
        prepared = (x - mean) / std
        prepared = prepared.expand(-1, 3, -1, -1) if name == "grey" else prepared
        with torch.no_grad():
            found[name, "onnx", len(x)] = torch.tensor(session.run(["scores"], {"images": x.numpy()})[0])
            found[name, "pt2", len(x)] = program(x)
            found[name, "torch", len(x)] = weights(prepared)
torch.save(found, "found.pt")
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By network, format and size of the batch: the scores in the other process, and those of the checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    images, own = {}, {}
    for name, (network, shape, options) in NETWORKS.items():
        path = checkpoint(folder / f"{name}.ckpt", network, shape, list("abcd"), **options)
        for to in ("onnx", "pt2", "torch"):
            assert main(["export", str(path), "--to", to, str(folder / f"{name}.{to}")]) == 0
        model = Classifier.load_from_checkpoint(path).float()
        generator = torch.Generator().manual_seed(0)
        batches = [torch.randint(256, (n, *shape), generator=generator).float() for n in BATCHES]
        images[name] = batches, model.mean, model.std
        with torch.no_grad():
            own |= {(name, len(x)): model(x) for x in batches}
    torch.save(images, folder / "images.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=folder, check=True)
    found = torch.load(folder / "found.pt")
    assert sorted(path.suffix for path in folder.iterdir()).count(".part") == 0
    return {key: (theirs, own[key[0], key[2]]) for key, theirs in found.items()}


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("to", ["onnx", "pt2", "torch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_scores_of_the_checkpoint(name: str, to: str, n: int, scores: dict[str, Any]) -> None:
    theirs, own = scores[name, to, n]
    assert theirs.shape == (n, 4)
    assert theirs.dtype == torch.float32
    torch.testing.assert_close(theirs, own, rtol=1e-4, atol=2e-5 * float(own.abs().max()))


def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path / "mlp.ckpt", "mlp", (1, 8, 8), ["a", "b"])
    monkeypatch.setattr(export, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    assert main(["export", "mlp.ckpt", "--to", "onnx", "mlp.onnx"]) == 2
    error = capsys.readouterr().err
    assert error == 'manualbp: error: argument --to: onnx needs onnx and onnxscript: pip install "manualbp[export]"\n'
    assert main(["export", "mlp.ckpt", "--to", "torch", "mlp.pt"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("mlp.pt is written: the state_dict of mlp; its input is (pixels - 1")
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_no_half_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(state: Any, file: Any) -> None:
        file.write(b"half")
        raise error

    checkpoint(tmp_path / "mlp.ckpt", "mlp", (1, 8, 8), ["a", "b"])
    monkeypatch.setattr(torch, "save", fails)
    arguments = ["export", "mlp.ckpt", "--to", "torch", "mlp.pt"]
    if isinstance(error, OSError):
        assert main(arguments) == 2
        assert "argument FILE: mlp.pt: cannot be written (No space left" in capsys.readouterr().err
    else:
        with pytest.raises(KeyboardInterrupt):
            main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.ckpt"]
