"""Tables as plain lines that fit a width: cells are folded at spaces, and no word is ever broken.

Where not even that fits, each row becomes a block: its first cell, and below it a line a column.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = "  "


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[str, ...]:
    """Lay a table out; only a block's word that is itself too long makes a line longer."""
    wanted, least = [], []
    for cells in zip(columns, *rows, strict=True):
        wanted.append(max((len(line) for cell in cells for line in cell.split("\n")), default=0))
        least.append(max((len(word) for cell in cells for word in cell.split()), default=1))
    room = width - len(GAP) * (len(columns) - 1)
    if sum(least) > room:
        return tuple(line for row in rows for line in _block(columns, row, width))
    while sum(wanted) > room:
        foldable = [n for n in range(len(wanted)) if wanted[n] > least[n]]
        wanted[max(foldable, key=wanted.__getitem__)] -= 1
    return tuple(line for row in (columns, *rows) for line in _row(row, wanted))


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    folded = [_fold(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(len(lines) for lines in folded)
    padded = [lines + [""] * (height - len(lines)) for lines in folded]
    return [
        GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]


def _block(columns: Sequence[str], cells: Sequence[str], width: int) -> list[str]:
    label = max(len(column) for column in columns[1:]) if columns[1:] else 0
    lines = [cells[0]]
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        start = f"{GAP}{column.ljust(label)}{GAP}"
        folded = _fold(cell, max(width - len(start), 1))
        lines += [f"{start}{folded[0]}", *(" " * len(start) + line for line in folded[1:])]
    return [line.rstrip() for line in lines]


def _fold(cell: str, width: int) -> list[str]:
    folded: list[str] = []
    for line in cell.split("\n"):
        folded += textwrap.wrap(
            line, max(width, 1), break_long_words=False, break_on_hyphens=False
        ) or [""]
    return folded
