"""The receipt of `manualbp.memory`: its rows, its sums, and how it prints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any

from manualbp.reasons import MODEL, Kept, X
from manualbp.text import WIDTH, table

WAYS = {"pytorch": "PyTorch", "by_hand": "by hand", "fused": "fused"}  # the columns, and their titles


@dataclass(frozen=True)
class Row:
    """A layer: `path` in the model ("" for the model itself), its class, what it keeps each way, and why fused."""

    path: str
    kind: str
    kept: Mapping[str, tuple[Kept, ...]]
    why: str

    def bytes(self, way: str) -> int:
        return sum(kept.bytes for kept in self.kept[way] if kept.counted_at is None)


@dataclass(frozen=True)
class Receipt:
    """What is kept for the backward pass, a row a layer, each way; prints as a table, in bytes, 100 columns wide.

    The ways: "pytorch", "by_hand" and "fused".

    model_bytes and input_bytes: parameters and buffers, and the input x. They are there anyway, and in no sum.
    """

    rows: tuple[Row, ...]
    model_bytes: int
    input_bytes: int

    @property
    def totals(self) -> dict[str, int]:
        return {way: sum(row.bytes(way) for row in self.rows) for way in WAYS}

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals as json.dump takes them."""
        rows = [{**asdict(row), "bytes": {way: row.bytes(way) for way in WAYS}} for row in self.rows]
        return {**asdict(self), "rows": rows, "totals": self.totals}

    def wide(self) -> str:
        """The table with a line a row, however long."""
        return self._text(None)

    def __str__(self) -> str:
        return self._text(WIDTH)

    def _text(self, width: int | None) -> str:
        def number(row: Row, way: str) -> str:
            again = any(kept.counted_at not in (None, MODEL, X) for kept in row.kept[way])
            return f"{row.bytes(way):,}" + ("*" if again else " ")

        lines = [("layer", "kind", *(f"{title} " for title in WAYS.values()), "kept, fused")]
        for row in self.rows:
            lines.append((name_of(row.path), row.kind, *(number(row, way) for way in WAYS), row.why))
        totals = self.totals
        others = [way for way in WAYS if way != "pytorch" and totals["pytorch"]]
        parts = [f"{WAYS[way]} / PyTorch = {totals[way] / totals['pytorch']:.3f}" for way in others]
        lines.append(("total", "", *(f"{total:,} " for total in totals.values()), ", ".join(parts)))
        below = (
            "Bytes. * keeps also what an earlier layer counts. In no sum, as they are there anyway: parameters and "
            f"buffers ({self.model_bytes:,}), the input x ({self.input_bytes:,})."
        )
        return "\n".join([*table(lines, len(WAYS), width), "", *(wrap(below, width) if width else [below])])


def name_of(path: str) -> str:
    return path or "(the model)"
