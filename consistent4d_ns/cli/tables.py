"""Tables and sizes for people."""

from __future__ import annotations

from collections.abc import Sequence

from consistent4d_ns.errors import printable


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, with columns of equal width; control characters in cells, which files may hold, become escapes."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown_size(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.2g} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
