"""Recognise a table of scores that this project has written and that nobody changed since.

A table has no room for a mark. So ``made_by.json`` in its folder holds its SHA-256 and its origin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError
from ..files import MARK, check_replaceable, is_own_json, read_json, sha256, whole_file, write_own_json

RECORD = "made_by.json"
SHOWN = 16  # characters of a value in a message
SHOWN_FILES = 3  # in a message


@contextmanager
def own_table(path: str | Path, made_by: Mapping[str, str] | None = None) -> Iterator[TextIO]:
    """Open a table for writing; it becomes ``path`` once it is complete and is noted in the record of its folder.

    The text is UTF-8. A file name that this system could not decode is written with its own bytes.

    Args:
        path: path of the table.
        made_by: origin of the table, such as the SHA-256 of the weights, by names.

    Raises:
        InputError: as :func:`check_table`.
    """
    path = Path(path)
    check_table(path, made_by)
    with whole_file(path, _is_noted) as partial:
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        entry = {MARK: sha256(partial), "made_by": dict(made_by or {})}
    write_own_json({"tables": {**_noted(path.parent), path.name: entry}}, path.parent / RECORD)


def check_table(path: str | Path, made_by: Mapping[str, str] | None = None) -> None:
    """Check that a table may be written: there is none, or one of the same origin that nobody changed since.

    Args:
        path: path of the table.
        made_by: as for :func:`own_table`.

    Raises:
        InputError: there is another file, or the table of other weights or another network.
    """
    path = Path(path)
    check_replaceable(path.parent / RECORD, is_own_json)
    check_replaceable(path, _is_noted)
    if os.path.lexists(path):
        there, here = _noted(path.parent)[path.name]["made_by"], dict(made_by or {})
        for name in {**there, **here}:
            if there.get(name) != here.get(name):
                raise InputError(
                    f"{path}: made by another run ({name} {_shown(there.get(name))}, this run has "
                    f"{_shown(here.get(name))}); choose another folder for this run"
                )


def missing_results(folder: Path, *patterns: str) -> InputError:
    """Return an error about a folder without results, which says what it has and which folder below it has results.

    Args:
        folder: folder that a user gave.
        patterns: names of the files that were expected there, such as ``scores.csv``.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        return InputError(f"{folder}: {found}; give the folder of an evaluation or an inference")
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:SHOWN_FILES]) + (", ..." if len(names) > SHOWN_FILES else "")
    below = sorted(path.parent for pattern in patterns for path in folder.glob(f"*/{pattern}"))
    fix = f"give {below[0]}, which has it" if below else "give the --output_dir of an evaluation or an inference"
    return InputError(f"{folder}: no {' or '.join(patterns)}; found {shown or 'an empty folder'}; {fix}")


def noted_tables(folder: str | Path) -> list[Path]:
    """Return the paths of the tables that this project has written into a folder; a user may have removed some.

    Raises:
        InputError: the record of the tables was changed.
    """
    check_replaceable(Path(folder) / RECORD, is_own_json)
    return [Path(folder) / name for name in _noted(Path(folder))]


def _noted(folder: Path) -> dict[str, Any]:
    return read_json(folder / RECORD)["tables"] if (folder / RECORD).exists() else {}


def _is_noted(path: Path) -> bool:
    return _noted(path.parent).get(path.name, {}).get(MARK) == sha256(path)


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}..."
