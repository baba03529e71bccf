"""What a run wrote and said."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = Path(__file__).parents[2] / "train.py"
# Of the first run of a test, without options.
RUN = Path("runs/digits-lecture004/version_0")
LAST = RUN / "last.ckpt"
PRODUCTS = {
    "best.ckpt", "config.yaml", "confusion.png", "curves.png", "filters.png", "hparams.yaml", "last.ckpt",
    "metrics.csv", "mistakes.png",
}  # fmt: skip


def load(path: Path | str) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def same_weights(a: Path, b: Path) -> bool:
    first, second = load(a)["state_dict"], load(b)["state_dict"]
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> list[float]:
    """Without the epochs in which it was not measured."""
    return [float(row[name]) for row in rows(run) if row[name]]


def scalars(run: Path, name: str) -> list[float]:
    """What TensorBoard has under the name."""
    events = EventAccumulator(str(run), {"scalars": 0})
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def refused(capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line of an error, which has all the words."""
    error = capfd.readouterr().err
    assert error.startswith("train.py: error: ")
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    assert all(word in error for word in words), error
    return error
