"""Render the published results as docs/reference/reproduce.md and as the tables of the model cards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import fill

from .results import Results, Row, Table

BEGIN = "<!-- tables: make reproduce writes them from docs/results.yaml -->"
END = "<!-- end of tables -->"
WIDTH = 110  # characters of a line of a command
INTRODUCTION = """\
# Repeat the published results

`make reproduce` writes this page from `docs/results.yaml` of every bundle. Do not edit it by hand.

The page has every row of every results table of the papers. A row that can be repeated has its published values, the
parameters of the network, what differs from the paper, our own value, and its commands: list the cases, train,
evaluate. Run them in the root of the repository. The data sets are not shipped; a path such as `LiTS` is your folder
of the data. The other rows are in a table with the reason.
"""


def page(results: Sequence[Results]) -> str:
    """Return the text of docs/reference/reproduce.md."""
    parts = [INTRODUCTION]
    for of_bundle in results:
        parts.append(f"## {of_bundle.bundle.name}\n\n{_prose(of_bundle.paper)}")
        parts += _differs("In all rows", of_bundle.differs)
        parts += _one_fold(of_bundle)
        parts += [part for table in of_bundle.tables for part in _section(table)]
    return "\n".join(parts)


def card(text: str, results: Results) -> str:
    """Return the text of a model card with its tables, which stand between two comments.

    Raises:
        ValueError: the comments are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{results.bundle}/docs/README.md: expected the comments {BEGIN} and {END}")
    tables = "\n".join(_table_of_card(table) for table in results.tables)
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _one_fold(results: Results) -> list[str]:
    """Return the commands of one fold of the first row, where all rows are cross-validations."""
    rows = [(table, row) for table in results.tables for row in table.rows if "crossval" in row.commands]
    if not rows or any("evaluate" in row.commands for table in results.tables for row in table.rows):
        return []
    table, row = rows[0]
    text = (
        f"`crossval` trains and evaluates every fold, and prints the mean over the folds. In {table.name}, {row.name}, "
        "it runs these two commands for fold 0:"
    )
    return [f"{_prose(text)}\n{_fenced(row.one_fold)}"]


def _section(table: Table) -> Iterator[str]:
    yield f"### {table.name}: {table.about}\n"
    yield from _differs("In these rows", table.differs)
    if table.note:
        yield _prose(table.note)
    written: dict[tuple[str, ...], str] = {}
    for row in (row for row in table.rows if row.commands):
        yield f"#### {table.name}, {row.name}\n"
        yield _prose(_facts(table, row))
        yield from _differs("Differs", row.differs)
        commands = tuple(row.commands.values())
        if commands in written:
            yield f"The commands are those of {written[commands]}.\n"
        else:
            yield _fenced(commands)
            written[commands] = row.name
    missing = [row for row in table.rows if not row.commands]
    if missing:
        lines = [(row.name, *_shown(row.published), row.why_not or "") for row in missing]
        yield _markdown(("not repeated", *table.columns, "reason"), lines)


def _fenced(commands: Sequence[str]) -> str:
    return "```\n" + "\n".join(map(wrapped, commands)) + "\n```\n"


def _prose(text: str, indent: str = "") -> str:
    return fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) + "\n"


def _facts(table: Table, row: Row) -> str:
    values = ", ".join(f"{column} {value}" for column, value in zip(table.columns, row.published) if value != "-")
    return f"Published: {values or 'none'}. Parameters: {row.parameters:,}. Ours: {row.ours or 'not run'}."


def _differs(title: str, differs: Sequence[str]) -> list[str]:
    return [f"{title}:\n\n" + "".join(_prose(f"- {text}", "  ") for text in differs)] if differs else []


def _table_of_card(table: Table) -> str:
    repeated = any(row.commands for row in table.rows)
    head = ["row", *table.columns]
    lines = [[row.name, *_shown(row.published)] for row in table.rows]
    if repeated:
        head = ["row", "overlay, options", *table.columns, "ours"]
        ours = [(row.ours or "not run") if row.commands else "" for row in table.rows]
        lines = [[name, row.how, *values, own] for row, (name, *values), own in zip(table.rows, lines, ours)]
    notes = [table.note] if table.note else []
    if reasons := sorted({row.why_not for row in table.rows if row.why_not}):
        notes.append(f"Rows without an overlay: {'; '.join(reasons)}.")
    return f"{_prose(f'{table.name}: {table.about}')}\n{_markdown(head, lines)}" + "".join(
        f"\n{_prose(n)}" for n in notes
    )


def _shown(values: Sequence[str]) -> list[str]:
    return ["" if value == "-" else value for value in values]


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join([_line(head), "|" + "---|" * len(head), *map(_line, lines)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def wrapped(command: str) -> str:
    """Return a command in lines that end in a backslash, broken before options."""
    lines, line = [], ""
    for word in re.split(r" (?=--)", command):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return " \\\n".join([*lines, line])
