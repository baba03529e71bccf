"""python -m manualbp explain: the file that it writes, and what it refuses in one line."""

import json
import re
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manualbp.__main__ import main
from manualbp.explain.examples import EXAMPLES, OPTIONS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (40, 20), (255, 51, 0)).save(tmp_path / "image.png")
    return tmp_path


def data_of(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    block = re.search(r'<script type="application/json" id="manualbp-data">(.*?)</script>', text, re.DOTALL)
    assert block
    return json.loads(block[1])


def test_gallery(here: Path) -> None:
    command = [sys.executable, "-m", "manualbp", "explain"]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("explain.html is written\n", "")
    page = here / "explain.html"
    assert page.stat().st_size < 1_000_000
    assert [own["id"] for own in data_of(page)["pages"]] == [*EXAMPLES]
    text = page.read_text("utf-8")
    assert not re.search(r"^(import|export) |\{\{|(?:src|href)=[\"']?http", text, re.MULTILINE)


@pytest.mark.parametrize("kind", OPTIONS)
def test_each_kind_alone_with_its_questions(kind: str, here: Path) -> None:
    assert main(["explain", kind]) == 0
    data = data_of(here / "explain.html")
    own, *examples = data["pages"]
    assert (own["id"], own["kind"]) == ("own", kind)
    assert {page["id"] for page in examples} == {question["page"] for question in data["questions"]}


def test_settings(here: Path) -> None:
    options = "--image 5x4 --kernel 3x2 --stride 2x1 --padding 1 --dilation 1x2 --groups 2 --channels 2x4 --batch 2"
    assert main(["explain", "conv2d", *options.split(), "--out", "own.html"]) == 0
    page = data_of(here / "own.html")["pages"][0]
    assert page["settings"] == {"stride": [2, 1], "padding": [1, 1], "dilation": [1, 2], "groups": 2}
    shapes = {name: page["grids"][name]["shape"] for name in ("x", "w", "y")}
    assert shapes == {"x": [2, 2, 5, 4], "w": [4, 1, 3, 2], "y": [2, 4, 3, 4]}


def test_values(here: Path) -> None:
    def x(*options: str) -> Any:
        assert main(["explain", "conv2d", "--force", *options]) == 0
        return data_of(here / "explain.html")["pages"][0]

    assert x("--values", "symbols")["symbols"]
    drawn = [x("--values", "random", *seed)["x"] for seed in ([], ["--seed", "0"], ["--seed", "1"])]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(round(value, 1) == value for row in drawn[0][0][0] for value in row)
    assert x("--values", "image.png", "--channels", "3x1", "--image", "2x3")["x"][0] == [
        [[value] * 3] * 2 for value in (1, 0.2, 0)
    ]
    assert x("--values", "image.png", "--padding", "same")["x"] == [[[[0.42] * 3] * 3]]


def test_open(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["explain", "relu", "--open"]) == 0
    assert opened == [(here / "explain.html").as_uri()]


REFUSED = [
    ("conv2d --image 13x13", "argument --image: 13x13: it must be at most 12x12"),
    ("conv2d --kernel 2x13", "argument --kernel: 2x13: it must be at most 12x12"),
    ("conv2d --image 0x3", "argument --image: '0x3': it must be a number or two as 3x3, at least 1"),
    ("conv2d --image three", "argument --image: 'three'"),
    ("conv2d --stride 0", "argument --stride: '0'"),
    ("conv2d --image 2x2 --kernel 3x3", "argument --image, --kernel: conv2d: the kernel reaches over [3, 3] pixels"),
    ("conv2d --groups 2", "argument --groups: "),
    ("conv2d --padding same --stride 2", "argument --stride, --padding: padding='same' is not supported for strided"),
    ("conv2d --image 12 --kernel 6 --channels 16x16", "argument --image, --kernel, --channels: explain: conv2d"),
    ("conv2d --channels 17", "argument --channels: 17: it must be at most 16x16"),
    ("conv2d --batch 17", "argument --batch: '17': it must be a number from 1 to 16"),
    ("conv2d --batch 0", "argument --batch: '0': it must be a number from 1 to 16"),
    ("max_pool2d --padding 2", "argument --padding: max_pool2d: padding = [2, 2] is more than half of kernel_size"),
    ("max_pool2d --padding same", "argument --padding: same; max_pool2d takes numbers"),
    ("max_pool2d --channels 1x2", "argument --channels: 1x2; max_pool2d gives as many as it gets"),
    ("sigmoid --kernel 2", "argument --kernel: sigmoid has none; it takes --image, --channels, --batch"),
    ("batch_norm --image 1 --batch 1", "argument --image, --batch: batch_norm: input has shape"),
    ("network --image 3", "argument --image: network: two poolings leave nothing"),
    ("linear --values image.png", "argument --values: image.png; linear takes no image"),
    ("conv2d --values none.png", "argument --values: none.png cannot be read as a picture"),
    ("conv2d --values text.png", "argument --values: text.png cannot be read as a picture"),
    ("conv2d --values . ", "argument --values: . cannot be read as a picture"),
    ("conv2d --values image.png --channels 2", "argument --channels: 2 for a picture; it must be 1 (grey) or 3"),
    ("conv2d --seed 1", "argument --seed: it goes with --values random"),
    ("conv3d", "argument KIND: invalid choice: 'conv3d'"),
    ("--image 3x3", "argument --image: it goes with a KIND, as conv2d"),
    ("--out old.html", "argument --out: old.html exists already; --force writes over it"),
    ("relu --out none/page.html", "argument --out: none is no folder"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals_are_one_line(arguments: str, message: str, here: Path, refused: Callable[..., None]) -> None:
    refused(arguments, message, here)


def test_force(here: Path) -> None:
    assert main(["explain", "relu", "--out", "old.html", "--force"]) == 0
    assert data_of(here / "old.html")["pages"][0]["kind"] == "relu"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(kind in text for kind in OPTIONS)
    assert max(map(len, text.splitlines())) <= 100
