"""What the pictures say beside their lines and pixels."""

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from manualbp.training import figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: (kept.append(figure), save(figure, path)))
    return kept


@pytest.mark.parametrize("chosen", [2, None])
def test_the_chosen_epoch_is_marked(chosen: int | None, drawn: list[Figure], tmp_path: Path) -> None:
    history = [{"train_loss": 2.0, "train_accuracy": 0.1}] * 3
    figures.curves(history, chosen, "a title", tmp_path / "curves.png")
    for axes in drawn[0].axes:
        labels = [str(line.get_label()) for line in axes.lines]
        assert labels == ["training", "chosen: epoch 2"][: 2 if chosen else 1]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 1, 3, 3), "Kernels of 3 x 3 show little"),
        ((2, 3, 3, 3), "Kernels of 3 x 3 show little"),
        ((64, 1, 4, 1), "Kernels of 4 x 1 show little"),
        ((6, 1, 5, 5), ""),
        ((1, 3, 9, 9), ""),
        ((16, 64), ""),  # rows of a fully connected layer
    ],
)
def test_kernels_have_a_scale(shape: tuple[int, ...], words: str, drawn: list[Figure], tmp_path: Path) -> None:
    figures.filters(torch.randn(shape), (1, 8, 8), "a title", tmp_path / "filters.png")
    title = drawn[0].get_suptitle()
    assert title.startswith("a title")
    assert words in title
    assert ("show little" in title) is bool(words)
    bar = drawn[0].axes[-1]
    assert "the largest absolute value of each kernel" in bar.get_xlabel()
    assert [label.get_text() for label in bar.get_xticklabels()] == ["-m", "0", "m"]
