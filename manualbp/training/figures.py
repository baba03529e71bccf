"""The pictures of a run: curves, confusion, mistakes and the kernels of the first layer."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from manualbp.training.mistakes import Mistake
from manualbp.training.whole import whole

READABLE = 20  # classes: up to here the numbers are written into the cells
TELLING = 5  # pixels a side: a smaller kernel has too few to show an edge or a bar
LONGEST_NAME = 16  # letters of a class name beside an image


def save(figure: Figure, path: Path) -> None:
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=150)


def curves(history: Sequence[dict[str, float]], chosen: int | None, title: str, path: Path) -> None:
    """Loss and accuracy of training, and of validation where there was one, over the epochs.

    chosen: the epoch, counted from 1, that validation chose; it is marked.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    epochs = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            if f"{part}_{name}" not in history[0]:
                continue
            values = [figures[f"{part}_{name}"] * (100 if name == "accuracy" else 1) for figures in history]
            axes.plot(epochs, values, marker="o" if len(values) < 40 else None, markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel=name if name == "loss" else "accuracy (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if chosen is not None:
            axes.axvline(chosen, color="grey", linestyle="--", linewidth=1, label=f"chosen: epoch {chosen}")
        axes.legend()
    save(figure, path)


def confusion(counts: Tensor, classes: Sequence[str], title: str, path: Path) -> None:
    """Counts (classes, classes), one row for each true class, coloured by their part of the row."""
    k = len(classes)
    side, size = (4 + 0.45 * k, 9) if k <= READABLE else (5 + 0.11 * k, 5.5)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).cpu().numpy()
    image = axes.imshow(shares * 100, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the images of the true class", shrink=0.8)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    as_written = {"fontsize": size, "parse_math": False}  # a $ in a name is a $
    axes.set_xticks(range(k), classes, rotation=90 if max(map(len, classes)) > 2 else 0, **as_written)
    axes.set_yticks(range(k), classes, **as_written)
    if k <= READABLE:
        for i, j in np.ndindex(k, k):
            if counts[i, j]:
                ink = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8, color=ink)
    save(figure, path)


def filters(weight: Tensor, shape: tuple[int, int, int], title: str, path: Path) -> None:
    """Learned kernels (maps, channels, height, width) as images (lecture 004, eq. 4.9).

    Of a fully connected layer they are its rows in the image's shape.
    """
    w = weight.detach().float().cpu()
    w = w.view(-1, *shape) if w.dim() == 2 else w
    if w.shape[1] != 3:  # grey, and the maps of a deeper layer one after the other
        w = w.flatten(0, 1)[:, None]
    w = w[:64].permute(0, 2, 3, 1)
    columns = min(8, len(w))
    rows = -(-len(w) // columns)
    width = max(columns * 0.9, 4.5)
    height, across = w.shape[1:3]
    if max(height, across) < TELLING:
        title += f"\nKernels of {height} x {across} show little. They are drawn enlarged."
    figure = Figure(figsize=(width, rows * 0.9 + 1.5), layout="constrained")
    figure.suptitle("\n".join(textwrap.fill(line, int(13 * width)) for line in title.splitlines()), fontsize=10)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, (axes, kernel) in enumerate(zip(grid, w, strict=False)):
        # Each in its own range, symmetric about zero: middle grey is no weight.
        picture = kernel / (2 * kernel.abs().max().clamp(min=1e-12)) + 0.5
        axes.imshow(picture.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(str(i + 1), fontsize=6, pad=2)
    bar = figure.colorbar(ScalarMappable(cmap="gray"), ax=grid, orientation="horizontal", aspect=30, fraction=0.08)
    bar.set_ticks([0, 0.5, 1], labels=["-m", "0", "m"], fontsize=8)
    of = " red, green and blue alike," if w.shape[-1] == 3 else ""
    bar.set_label(f"weight;{of} m is the largest absolute value of each kernel", fontsize=8)
    save(figure, path)


def mistakes(found: Sequence[Mistake], sure: str, classes: Sequence[str], title: str, path: Path) -> None:
    """The images of the test that were taken for another class, the surest first; or the sentence that none was.

    sure: what the figure of a mistake is, in a word.
    """
    columns = min(5, max(3, len(found)))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(1.9 * columns, 1.9 * rows + 1.5), layout="constrained")
    caption = f"predicted ({sure}) and true class" if found else "No test image was taken for another class."
    figure.suptitle(textwrap.fill(title, 23 * columns) + f"\n{caption}", fontsize=10)
    for i, mistake in enumerate(found):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(mistake.image.permute(1, 2, 0).numpy().squeeze(), cmap="gray", vmin=0, vmax=255)
        predicted, true = (shortened(classes[c]) for c in (mistake.predicted, mistake.true))
        how = f"{100 * mistake.sure:.1f} %" if sure == "probability" else f"{mistake.sure:.2f}"
        axes.set_title(f"{predicted} ({how})\ntrue: {true}", fontsize=8, parse_math=False)
        axes.set_axis_off()
    save(figure, path)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
