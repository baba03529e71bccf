"""The results as tables in a terminal. A row is what the parts return, with the setting that it belongs to."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.memory import MIB
from benchmarks.variants import BY_HAND, Setting

MOST_OPERATIONS = 12


def heading(console: Console, m: dict[str, Any]) -> None:
    console.print(f"torch {m['torch']}, {m['device']}: {m['name']}, {m['threads']} threads")
    if m["tf32"]:
        console.print("float32 products and convolutions of all variants may use TF32 (matmul and cuDNN alike)")
    for dtype, product in m["products"].items():
        ways = ", ".join(f"{way} {rate / 1e9:,.0f}" for way, rate in product["ways"].items())
        console.print(f"limit of this machine, {dtype}: {product['rate'] / 1e9:,.0f} GFLOP/s ({ways})")
    console.print(f"limit of this machine, copying: {m['copy'] / 1e9:,.1f} GB/s, read and written")


def title(s: Setting) -> str:
    dtype = "autocast to bfloat16" if s.dtype == "bf16" else s.dtype
    return f"{s.network}, batch {s.batch}, {s.side} x {s.side}, {dtype}"


def steps(rows: list[dict[str, Any]], s: Setting, flops: int, rounds: int) -> Table:
    rate = rows[0]["rate"]
    note = (
        f"medians of {rounds} steps in turns; {flops / 1e9:.1f} GFLOP a step, at the rate of a matrix "
        f"product in the same turns {1000 * flops / rate:.1f} ms"
    )
    columns = ("quartiles", "/ default", "/ best of PyTorch", "gradient differs", "of the rate")
    table = _table(f"{title(s)}: a training step", note, "ms", *columns)
    for row in rows:
        low, high = row["quartiles"]
        figures = f"{row['ms']:.1f}", f"{low:.1f}, {high:.1f}", word(row["ratio"]), word(row["ratio_to_best"])
        table.add_row(row["variant"], *figures, f"{row['gradient']:.0e}", f"{100 * row['share']:.0f} %")
    return table


def memory(rows: list[dict[str, Any]], s: Setting, m: dict[str, Any]) -> Table:
    note = "kept at 1.00 is written and read once in {:.1f} ms at the copy's rate".format(
        1000 * 2 * rows[0]["kept"] / m["copy"]
    )
    columns = ("/ default", "peak, MiB", "/ default")
    table = _table(f"{title(s)}: memory of a step", note, "kept, MiB", *columns)
    for row in rows:
        peak = ("", "") if row["peak"] is None else (f"{row['peak'] / MIB:.1f}", word(row["peak_ratio"], "more"))
        table.add_row(row["variant"], f"{row['kept'] / MIB:.1f}", word(row["kept_ratio"], "more"), *peak)
    return table


def capacity(rows: list[dict[str, Any]], s: Setting, room: int) -> Table:
    name = f"{s.network}, {s.side} x {s.side}, {s.dtype}: the largest batch that fits in {room / MIB:.0f} MiB"
    table = _table(name, "to 2 %", "images", "/ best of torch.nn")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}" + (" fewer" if row["ratio"] < 0.995 else "")
        table.add_row(row["variant"], str(row["batch"]), ratio)
    return table


def rules(rows: list[dict[str, Any]], s: Setting) -> list[Table]:
    clock = "the device's time" if s.device == "cuda" else "CPU time"
    tables = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of_variant = [row for row in rows if row["variant"] == variant]
        whole = sum(row["ms"] for row in of_variant)
        kind = "rules" if variant == BY_HAND else "operations"
        table = _table(f"{title(s)}: {kind} of {variant}", f"{clock}, with what each calls", "", "calls", "ms", "%")
        first = of_variant[:MOST_OPERATIONS]
        for row in first:
            figures = str(row["calls"]), f"{row['ms']:.2f}", f"{100 * row['ms'] / whole:.0f}"
            table.add_row(row["operation"].removeprefix("aten::"), row["part"], *figures)
        rest = whole - sum(row["ms"] for row in first)
        table.add_row("all others", "", "", f"{rest:.2f}", f"{100 * rest / whole:.0f}")
        tables.append(table)
    return tables


def scaling(rows: list[dict[str, Any]], s: Setting) -> list[Table]:
    tables = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        of_axis = [row for row in rows if row["axis"] == axis]
        x = ", ".join(str(a) for a in of_axis[0]["x"])
        per, factor = ("an image", 1) if axis == "images" else ("1000 pixels", 1000)
        note = f"lines by least squares through {axis} {x}" + (
            "" if axis == "images" else f", batch {of_axis[0]['batch']}"
        )
        columns = ("R^2", "/ torch.nn", f"KiB kept {per}", "R^2", "/ torch.nn")
        table = _table(f"{s.network}, {s.dtype}: growth with {axis}", note, f"ms {per}", *columns)
        for row in of_axis:
            time, kept = row["ms_line"], row["kept_line"]
            of_time = f"{factor * time['slope']:.3g}", f"{time['r2']:.4f}", word(row["ms_ratio"])
            of_kept = f"{factor * kept['slope'] / 1024:.4g}", f"{kept['r2']:.6f}", word(row["kept_ratio"], "more")
            table.add_row(row["variant"], *of_time, *of_kept)
        tables.append(table)
    return tables


def word(ratio: float, worse: str = "slower") -> str:
    """The ratio, and in a word that it is above 1."""
    shown = f"{ratio:.2f}"
    return f"{shown} {worse}" if float(shown) > 1 else shown


def _table(title: str, note: str, *columns: str) -> Table:
    table = Table(title=title, caption=note, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.min_width = max(len(title), len(note))
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def show(console: Console, tables: Iterable[Table]) -> None:
    for table in tables:
        console.print(table)
