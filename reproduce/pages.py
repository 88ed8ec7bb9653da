"""Write the published results into docs/reference/reproduce.md and into the tables of the model cards."""

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

The page has every results table of the papers, with the published values and our own. The second column has the
overlay and the options of a row that can be repeated, or the reason why it cannot. Below the table follow, for each
row that can be repeated, the parameters of the network, what differs from the paper, and the commands: list the
cases, train, evaluate. Run them in the root of the repository. The data sets are not shipped; a path such as `LiTS`
is your folder of the data.
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
    """Return the text of a model card with its short tables, which stand between two comments.

    A short table has the rows that can be repeated, of a table of the paper that is marked for the card. It has the
    column ``ours`` where one of these rows was run.

    Raises:
        ValueError: the comments are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{results.bundle}/docs/README.md: expected the comments {BEGIN} and {END}")
    parts = []
    for table in results.tables:
        if table.on_card is None:
            continue
        repeated = [row for row in table.rows if row.commands]
        short = _summary(table, repeated, table.on_card, any(row.ours for row in repeated))
        parts += [_prose(f"{table.name}: {table.about}"), short]
    return "\n".join([f"{before}{BEGIN}\n", *parts, f"{END}{after}"])


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
    yield _summary(table, table.rows)
    if table.note:
        yield _prose(table.note)
    written: dict[tuple[str, ...], str] = {}
    for row in (row for row in table.rows if row.commands):
        yield f"#### {table.name}, {row.name}\n"
        yield f"Parameters: {row.parameters:,}.\n"
        yield from _differs("Differs", row.differs)
        commands = tuple(row.commands.values())
        if commands in written:
            yield f"The commands are those of {written[commands]}.\n"
        else:
            yield _fenced(commands)
            written[commands] = row.name


def _fenced(commands: Sequence[str]) -> str:
    return "```\n" + "\n".join(map(wrapped, commands)) + "\n```\n"


def _prose(text: str, indent: str = "") -> str:
    return fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) + "\n"


def _differs(title: str, differs: Sequence[str]) -> list[str]:
    return [f"{title}:\n\n" + "".join(_prose(f"- {text}", "  ") for text in differs)] if differs else []


def _summary(table: Table, rows: Sequence[Row], columns: Sequence[str] | None = None, with_ours: bool = True) -> str:
    shown = table.columns if columns is None else columns
    head = ["row", "overlay, options", *shown, *(["ours"] if with_ours else [])]
    lines = []
    for row in rows:
        published = dict(zip(table.columns, row.published))
        values = ["" if published[name] == "-" else published[name] for name in shown]
        ours = (row.ours or "not run") if row.commands else ""
        lines.append([row.name, row.how or row.why_not or "", *values, *([ours] if with_ours else [])])
    return _markdown(head, lines)


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
