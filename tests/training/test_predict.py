"""manualbp predict and test: what they print is what the network says, and what they refuse is one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from manualbp.__main__ import main
from manualbp.training.classifier import Classifier
from manualbp.training.sources import Files
from tests.training import files
from tests.training.made import checkpoint

DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with checkpoints of several networks, images and what is none."""
    for network in ("lecture004", "mlp", "block"):
        checkpoint(tmp_path / f"{network}.ckpt", network, (1, 8, 8), DIGITS)
    checkpoint(tmp_path / "colour.ckpt", "lecture004", (3, 8, 6), ["cat", "dog", "a long name"], data="folder")
    checkpoint(tmp_path / "caltech.ckpt", "caltech", (1, 83, 83), ["ant", "bass"], data="caltech101")
    for name, seed in (("a.png", 1), ("b.png", 2)):
        files.image(tmp_path / name, seed, "L")
    files.image(tmp_path / "colour.png", 3, "RGB", (20, 30))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    return tmp_path


def expected(name: str, *images: str) -> tuple[Classifier, torch.Tensor]:
    """The module, and its scores of the images."""
    model = Classifier.load_from_checkpoint(name)
    channels, height, width = model.shape
    read = Files([*images], channels, (width, height), any_kind=model.options["data"] == "caltech101").read
    with torch.no_grad():
        return model, model(torch.stack([read(image) for image in images]))


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("lecture004", ["a.png"]),
        ("block", ["b.png", "a.png", "b.png"]),
        ("colour", ["colour.png"]),
        ("caltech", ["colour.png", "a.png"]),
    ],
)
def test_json_is_all_that_is_printed(
    name: str, images: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"{name}.ckpt", *images, "--json", "--top", "3"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    model, z = expected(f"{name}.ckpt", *images)
    assert [each["image"] for each in found] == images
    for each, row in zip(found, z.softmax(1), strict=True):
        values, order = row.sort(descending=True)
        k = min(3, len(row))
        assert [best["class"] for best in each["top"]] == [model.classes[i] for i in order[:k].tolist()]
        assert [best["probability"] for best in each["top"]] == pytest.approx(values[:k].tolist(), rel=1e-4)
        assert all(best.keys() == {"class", "probability"} for best in each["top"])


def test_the_squared_error_makes_no_probabilities(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "mlp.ckpt", "a.png", "--json", "--top", "99"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    _, z = expected("mlp.ckpt", "a.png")
    assert [best["score"] for best in found["top"]] == pytest.approx(z[0].sort(descending=True).values.tolist())
    assert len(found["top"]) == 10
    assert main(["predict", "mlp.ckpt", "a.png"]) == 0
    assert "%" not in capsys.readouterr().out


def test_text_is_an_aligned_block_an_image(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "colour.ckpt", "colour.png", "colour.png"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert len(blocks) == 2
    for text in blocks:
        name, *lines = text.rstrip().split("\n")
        assert name == "colour.png"
        assert len(lines) == 3
        assert len({len(line) for line in lines}) == 1
        shares = [float(re.fullmatch(r"  [\w ]+?  +(\d+\.\d\d) %", line)[1]) for line in lines]  # type: ignore[index]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.02)


def test_a_digit_is_read_as_the_run_read_it(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from manualbp.training.sources import digits

    images, _ = digits(Path()).test
    assert isinstance(images, torch.Tensor)
    Image.fromarray(images[0, 0].numpy().astype(np.uint8)).save("digit.png")
    assert main(["predict", str(finished / "last.ckpt"), "digit.png", "--json", "--top", "10"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    with torch.no_grad():
        z = Classifier.load_from_checkpoint(finished / "last.ckpt")(images[:1])
    best = {each["class"]: each["probability"] for each in found["top"]}
    assert [best[name] for name in DIGITS] == pytest.approx(z[0].softmax(0).tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "none.ckpt", "a.png"], ["argument CKPT: none.ckpt: cannot be read"]),
        (["predict", "text.png", "a.png"], ["argument CKPT: text.png: not a checkpoint"]),
        (["predict", "nan.ckpt", "a.png"], ["argument CKPT: nan.ckpt", "not finite"]),
        (["predict", "lecture004.ckpt"], ["required: IMAGE"]),
        (["predict", "lecture004.ckpt", "a.png", "--top", "0"], ["argument --top: '0'", "positive"]),
        (
            ["predict", "lecture004.ckpt", "a.png", "none.png", "text.png", "folder"],
            ["argument IMAGE: none.png: ", "; text.png: not a readable image", "; folder: is a folder"],
        ),
        (["test", "none.ckpt"], ["argument CKPT: none.ckpt: cannot be read"]),
        (["test", "lecture004.ckpt", "--data", "mnist"], ["argument --data: mnist", "digits, cifar10"]),
        (["test", "colour.ckpt", "--data", "digits"], ["argument --data: digits", "shape 1, 8, 8", "3, 8, 6"]),
        (
            ["test", "lecture004.ckpt", "--data", "folder", "--data-dir", "tree"],
            ["argument --data: folder in tree", "classes a, b", "0, 1, 2, 3, 4, ... (10)"],
        ),
        (["test", "colour.ckpt"], ["data: no such folder"]),
        (["export", "none.ckpt", "--to", "torch", "new"], ["argument CKPT: none.ckpt: cannot be read"]),
        (["export", "mlp.ckpt", "new"], ["required: --to"]),
        (["export", "mlp.ckpt", "--to", "tflite", "new"], ["argument --to", "tflite"]),
        (["export", "mlp.ckpt", "--to", "torch", "a.png"], ["argument FILE: a.png exists already"]),
        (["export", "mlp.ckpt", "--to", "torch", "no/new"], ["argument FILE: no is no folder"]),
        (["export", "mlp.ckpt", "--to", "torch", "left"], ["argument FILE: left.part", "exists already"]),
    ],
)
def test_refused_in_one_line(
    arguments: list[str], words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.tree(here / "tree", mode="L")
    found = torch.load("lecture004.ckpt")
    found["state_dict"]["network.W2.bias"].fill_(torch.nan)
    torch.save(found, "nan.ckpt")
    Path("left.part").write_text("left")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("manualbp: error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def figures(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"test accuracy (\d+\.\d\d) %, loss (\d+\.\d{4}), of (?:\d+) images after .* s\n", text)
    assert found, text
    return float(found[1]), float(found[2])


def test_test_says_what_the_run_said(capsys: pytest.CaptureFixture[str]) -> None:
    from manualbp.training.cli import main as train

    assert train(["--epochs", "2", "--network", "block"]) == 0
    said = re.search(r"^test accuracy (\d+\.\d\d) %", capsys.readouterr().out, re.MULTILINE)
    assert said
    best = "runs/digits-block/version_0/best.ckpt"
    assert main(["test", best]) == 0
    accuracy, loss = figures(capsys.readouterr().out)
    assert accuracy == float(said[1])
    assert main(["test", best, "--json"]) == 0
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (out["images"], round(100 * out["accuracy"], 2), round(out["loss"], 4)) == (359, accuracy, loss)
    assert list(out["classes"]) == DIGITS
    assert all(0 <= share <= 1 for share in out["classes"].values())


def test_test_on_other_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(here / "ab.ckpt", "lecture004", (3, 8, 8), ["a", "b"], data="folder", data_dir="gone")
    files.tree(here / "tree")
    for name in ("1.png", "2.png", "3.png"):  # a single training image of a class is enough
        (here / "tree" / "train" / "a" / name).unlink()
    assert main(["test", "ab.ckpt", "--data-dir", "tree"]) == 0
    assert figures(capsys.readouterr().out)[0] in (0, 25, 50, 75, 100)
    shutil.rmtree(here / "tree" / "test")
    assert main(["test", "ab.ckpt", "--data-dir", "tree"]) == 2
    assert "tree/test" in capsys.readouterr().err
