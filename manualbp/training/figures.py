"""The pictures of a run: curves, confusion and the kernels of the first layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

READABLE = 20  # classes: up to here the numbers are written into the cells


def curves(history: Sequence[dict[str, float]], title: str, path: Path) -> None:
    """Loss and accuracy of training, and of validation where there was one, over the epochs."""
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
        axes.legend()
    figure.savefig(path, dpi=150)


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
    figure.savefig(path, dpi=150)


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
    figure = Figure(figsize=(columns * 0.9, rows * 0.9 + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, (axes, kernel) in enumerate(zip(grid, w, strict=False)):
        # Each in its own range, symmetric about zero: middle grey is no weight.
        picture = kernel / (2 * kernel.abs().max().clamp(min=1e-12)) + 0.5
        axes.imshow(picture.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(str(i + 1), fontsize=6, pad=2)
    figure.savefig(path, dpi=150)
