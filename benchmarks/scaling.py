"""How time and bytes kept grow with the batch and with the pixels of an image."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.memory import kept_by
from benchmarks.networks import NETWORKS
from benchmarks.timing import in_turns
from benchmarks.variants import BY_HAND, Setting, Training

COMPARED = ("torch.nn, channels_last", BY_HAND, "manualbp, fused")
BATCHES = [4**k for k in range(6)]  # 1 to 1024
SLOWEST = 1000  # milliseconds of a step: the batch after one that took longer is left out
ROUNDS = 5


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x by least squares; r2 is the share of y's variance that it explains, 1 for a line.

    worst: the largest distance of a point from the line, over the largest y.
    """

    slope: float
    intercept: float
    r2: float
    worst: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Of two points at least, x and y not constant."""
    slope, intercept = statistics.linear_regression(x, y)
    worst = max(abs(b - intercept - slope * a) for a, b in zip(x, y, strict=True)) / max(map(abs, y))
    return Line(slope, intercept, min(1.0, statistics.correlation(x, y) ** 2), worst)


def scaling(s: Setting) -> list[dict[str, Any]]:
    """A row for each variant and axis ("images", "pixels"): the points and the lines of time (ms) and kept bytes."""
    by_batch = [replace(s, batch=batch) for batch in BATCHES]
    by_side = [replace(s, batch=min(s.batch, 32), side=side) for side in NETWORKS[s.network].sides]
    rows = []
    for axis, settings in (("images", by_batch), ("pixels", by_side)):
        points = _points(settings)
        if len(points) < 2:
            continue
        x = [at.batch if axis == "images" else at.side**2 for at, _ in points]
        for name in COMPARED:
            ms, kept = ([float(measured[name][i]) for _, measured in points] for i in range(2))
            row = {"axis": axis, "batch": None if axis == "images" else points[0][0].batch, "variant": name, "x": x}
            row |= {"ms": ms, "kept": kept, "ms_line": asdict(line(x, ms)), "kept_line": asdict(line(x, kept))}
            rows.append(row)
    for row in rows:
        base = next(r for r in rows if r["axis"] == row["axis"] and r["variant"] == COMPARED[0])
        for figure in ("ms", "kept"):
            row[f"{figure}_ratio"] = row[f"{figure}_line"]["slope"] / base[f"{figure}_line"]["slope"]
    return rows


def _points(settings: list[Setting]) -> list[tuple[Setting, dict[str, tuple[float, int]]]]:
    """(setting, variant: (milliseconds, bytes kept)) for each setting, as far as steps are not too slow."""
    points = []
    for s in settings:
        trainings = {name: Training(name, s) for name in COMPARED}
        kept = {name: kept_by(training) for name, training in trainings.items()}
        times = in_turns(trainings, ROUNDS, warm_up=2)
        points.append((s, {name: (statistics.median(times[name]), kept[name]) for name in COMPARED}))
        if max(max(taken) for taken in times.values()) > SLOWEST:
            break
    return points
