"""Write rows of cells as a table (text, Markdown or CSV), and read a CSV file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UsageError

Row = Sequence[str | int | float]


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV of cases by the names of its columns.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8 with commas, it has no cases, or a column, a case or a cell is missing or surplus.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if "case" not in header:
        raise ValueError(f"columns {', '.join(header) or 'none'}, expected 'case' and others, separated by commas")
    if not rows:
        raise ValueError("no case")
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise ValueError(f"two columns {twice[0]!r}, expected one")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells in the row of {row[0]!r}, expected {len(header)}, with decimal points")
    place = header.index("case")
    if twice := [case for case, times in Counter(row[place] for row in rows).items() if times > 1]:
        raise ValueError(f"case {twice[0]} occurs more than once")
    return [dict(zip(header, row)) for row in rows]


def format_table(rows: Sequence[Row], format: str = "text") -> str:
    """Return rows as a table without a line break at its end.

    Args:
        rows: the header and the lines below it. A float gets 4 decimals, in CSV 6.
        format: ``text``, ``markdown`` or ``csv``.

    Raises:
        UsageError: the format is unknown.
    """
    check_format(format)
    decimals = 6 if format == "csv" else 4
    cells = [[f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return _FORMATS[format](cells)


def check_format(format: str) -> None:
    """Check that :func:`format_table` knows a format.

    Raises:
        UsageError: the format is unknown.
    """
    if format not in _FORMATS:
        raise UsageError(f"--format {format}: expected one of {', '.join(_FORMATS)}")


def _text(rows: Sequence[Sequence[str]]) -> str:
    """Return columns of equal width, the first to the left, with a line under the header."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of GitHub's Markdown, the first column to the left, the others to the right."""
    header, *lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([header, "|---|" + "---:|" * (len(rows[0]) - 1), *lines])


def _csv(rows: Sequence[Sequence[str]]) -> str:
    """Return comma-separated values, quoted where a cell needs it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


_FORMATS: dict[str, Callable[[Sequence[Sequence[str]]], str]] = {"text": _text, "markdown": _markdown, "csv": _csv}
