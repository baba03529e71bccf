"""Tables as text that fit a given width: names lose their middle, and what does not fit at the end stands below."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap

WIDTH = 100
END = 22  # columns that are left to the end of a line
BELOW = "    "
NAME = r"[\w.<>]+"  # of a class, or a path in a model
CUT = "..."


def table(lines: Sequence[Sequence[str]], numbers: int, width: int | None) -> list[str]:
    """The lines as columns: names, then `numbers` columns that are never cut, then words. `width`: None for any.

    Where the names have no room, the widest column gives way. A name that is wider than its column loses its middle, in
    the words, too, so that it names the same row there. Words that do not fit behind the rest stand below it.
    """
    columns = [*zip(*lines, strict=True)][:-1]
    widths = [max(map(len, column)) for column in columns]
    names = range(len(columns) - numbers)
    between = ["  " for _ in columns]
    if numbers:
        between[-1] = " "  # a number ends in a blank or a mark
    while width is not None and sum(widths) + 2 * len(widths) + END > width:
        widths[max(names, key=lambda i: widths[i])] -= 1
    short: dict[str, str] = {}
    for i in names:
        too_long = {name for cell in columns[i] for name in re.findall(NAME, cell) if len(name) > widths[i]}
        short |= shortened(too_long, widths[i])
    made = []
    for line in lines:
        *cells, words = (re.sub(NAME, lambda found: short.get(found[0], found[0]), cell) for cell in line)
        parts = [
            wrap(cell, widths[i], break_on_hyphens=False) if i in names else [cell] for i, cell in enumerate(cells)
        ]
        rows = [
            "".join(f"{part:{'<' if i in names else '>'}{widths[i]}}{between[i]}" for i, part in enumerate(row))
            for row in zip_longest(*parts, fillvalue="")
        ]
        if width is None or len(rows[0]) + len(words) <= width:
            rows[0] += words
            words = ""
        below = wrap(words, width or len(words) + 1, initial_indent=BELOW, subsequent_indent=BELOW)
        made += [row.rstrip() for row in (*rows, *below)]
    return made


def shortened(names: set[str], room: int) -> dict[str, str]:
    """Each name without its middle, cut where the names stay distinct, as near to the middle as that can be."""
    left = max(room - len(CUT), 0)
    heads = sorted(range(left + 1), key=lambda head: abs(head - left // 2))
    cuts = [{name: name[:head] + CUT + name[len(name) - left + head :] for name in names} for head in heads]
    return next((short for short in cuts if len(set(short.values())) == len(names)), cuts[0])
