"""The results as pictures: a bar a variant, and lines for the growth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.memory import MIB

COLOURS = {
    "torch.nn, default": "#9aa5b1",
    "torch.nn, channels_last": "#52606d",
    "torch.compile": "#1f2933",
    "manualbp": "#e8833a",
    "manualbp, fused": "#b6401f",
    "manualbp, torch operations": "#f2c199",
    "manualbp, fused, torch operations": "#d98f7d",
    "textbook": "#c9b458",
}


def draw(parts: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """PNG files, one for each part there is, for growth and rules one for each network and dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, figure, scale, label in (
        ("steps", "ms", 1, "ms a training step (line: quartiles)"),
        ("memory", "kept", MIB, "MiB kept for the backward pass"),
        ("memory", "peak", MIB, "MiB at the peak of a step"),
        ("capacity", "batch", 1, "images, the largest batch that fits"),
    ):
        rows = [row for row in parts.get(part, []) if row[figure] is not None]
        if rows:
            _bars(rows, figure, scale, label, folder / f"{part if part != 'memory' else figure}.png")
    for part, picture in (("rules", _rules), ("scaling", _scaling)):
        for setting in _settings(parts.get(part, [])):
            picture(_of(parts[part], setting), " ".join(setting), folder / f"{part}-{'-'.join(setting)}.png")


def _settings(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["network"], row["dtype"]) for row in rows))


def _of(rows: Sequence[dict[str, Any]], setting: tuple[str, str]) -> list[dict[str, Any]]:
    return [row for row in rows if (row["network"], row["dtype"]) == setting]


def _bars(rows: Sequence[dict[str, Any]], name: str, scale: float, label: str, path: Path) -> None:
    """A field for each network and dtype, a bar for each variant, its number beside it."""
    networks, dtypes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "dtype"))
    figure = Figure(figsize=(1 + 5.5 * len(dtypes), 0.6 + 2.4 * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), len(dtypes), squeeze=False)
    for i, network in enumerate(networks):
        for j, dtype in enumerate(dtypes):
            here, axes = _of(rows, (network, dtype)), grid[i][j]
            names, values = [row["variant"] for row in here], [row[name] / scale for row in here]
            ends = values
            bars = axes.barh(names, values, color=[COLOURS[variant] for variant in names])
            if all("quartiles" in row for row in here):
                low, high = zip(*(row["quartiles"] for row in here), strict=True)
                axes.hlines(range(len(here)), low, high, color="black", linewidth=1)
                ends = [max(a, b) for a, b in zip(values, high, strict=True)]
            for bar, value, end in zip(bars, values, ends, strict=True):
                y = bar.get_y() + bar.get_height() / 2
                axes.text(end, y, f"  {value:.4g}", va="center", fontsize=9)
            axes.set_xlim(0, 1.2 * max(ends))
            batch = "" if name == "batch" else f", batch {here[0]['batch']}"
            axes.set_title(f"{network}, {dtype}{batch}", fontsize=10)
            axes.invert_yaxis()
            axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(label, fontsize=10)
    figure.savefig(path, dpi=150)


def _rules(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """For torch.nn and by hand alike, the operations that take longest."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    figure.suptitle(f"{title}: where a step's time goes", fontsize=11)
    fields = figure.subplots(1, len(variants), sharex=True, squeeze=False)[0]
    for axes, variant in zip(fields, variants, strict=True):
        first = [row for row in rows if row["variant"] == variant][:12]
        names = [f"{row['operation'].removeprefix('aten::')}, {row['part']}" for row in first]
        axes.barh(names, [row["ms"] for row in first], color=COLOURS[variant])
        axes.set(title=variant, xlabel="ms")
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _scaling(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Points that were measured and their lines, logarithmic."""
    kinds = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(11, 0.5 + 4 * len(kinds)), layout="constrained")
    figure.suptitle(f"{title}: points measured, lines by least squares", fontsize=11)
    grid = figure.subplots(len(kinds), 2, squeeze=False)
    for fields, axis in zip(grid, kinds, strict=True):
        for axes, name, scale, label in zip(fields, ("ms", "kept"), (1, MIB), ("ms", "MiB kept"), strict=True):
            for row in rows:
                if row["axis"] == axis:
                    _line(axes, row["x"], [value / scale for value in row[name]], row[f"{name}_line"], scale, row)
            axes.set(xscale="log", yscale="log", xlabel=_name(axis, rows), ylabel=label)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=9)
    figure.savefig(path, dpi=150)


def _line(axes: Axes, x: list[int], y: list[float], of: dict[str, float], scale: float, row: dict[str, Any]) -> None:
    colour = COLOURS[row["variant"]]
    axes.plot(x, y, "o", color=colour, markersize=4, label=row["variant"])
    fitted = [(of["intercept"] + of["slope"] * a) / scale for a in x]
    axes.plot(x, fitted, "-", color=colour, linewidth=1)


def _name(axis: str, rows: list[dict[str, Any]]) -> str:
    if axis == "images":
        return "images a step"
    return f"pixels of an image, batch {next(row['batch'] for row in rows if row['axis'] == axis)}"
