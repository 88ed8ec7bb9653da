"""Read the class, patient and site of each case from a table, and add them to the cases."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .names import first_names, safe_name

COLUMNS = ("class", "patient", "site")  # beside the column case


def read_case_classes(path: str | Path) -> dict[str, dict]:
    """Read a CSV file with the column ``case`` and at least one of ``class``, ``patient`` and ``site``.

    Args:
        path: CSV file in UTF-8, or in UTF-16 with a byte order mark. Each row is a case, by its name in results: the
            file without the suffix, or the folder. A class is a name or an index from 0.

    Returns:
        a dict for each case name, with ``class``, ``patient`` and ``site`` where the row has them.

    Raises:
        InputError: the file cannot be read or decoded, a column or case is missing, two columns have one name, a row
            has more cells than columns or no class in a table with classes, a case has two rows, or two values of a
            column differ in upper and lower case alone.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if wide else "utf-8-sig")  # spreadsheets write a byte order mark
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        lines = list(reader)
    except OSError as error:
        raise InputError(f"--classes {path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); save it as CSV in UTF-8") from error
    if "case" not in columns or not set(COLUMNS) & set(columns):
        raise InputError(
            f"{path}: found the columns {', '.join(columns) or 'none'}; expected case and one or more of "
            f"{', '.join(COLUMNS)}, separated by commas"
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise InputError(f"{path}: {columns.count(twice[0])} columns {twice[0]!r}, expected one; remove the others")
    known: dict[str, dict] = {}
    spelt: dict[tuple[str, str], str] = {}
    for number, line in enumerate(lines, start=1):
        if line.get(None):
            raise InputError(
                f"{path}: row {number} has {len(columns) + len(line[None])} cells, expected {len(columns)}; put a "
                'value with commas in quotation marks, "..."'
            )
        row = {key: (line[key] or "").strip() for key in columns}
        if not row["case"] or row.get("class") == "":
            raise InputError(f"{path}: row {number} has no {'class' if row['case'] else 'case'}")
        name = safe_name(row["case"])
        if name in known:
            raise InputError(f"{path}: {name} has two rows; leave one row for each case")
        known[name] = {key: row[key] for key in COLUMNS if row.get(key)}
        for key, value in known[name].items():
            if value != (first := spelt.setdefault((key, value.casefold()), value)):
                raise InputError(f"{path}: the column {key!r} has {first} and {value}, expected one spelling; use one")
        if (value := row.get("class", "")).isdecimal():
            known[name]["class"] = int(value)
    return known


def add_classes(cases: Sequence[dict], path: Path, root: Path) -> None:
    """Add to each case what its row in a table has, see :func:`read_case_classes`.

    Args:
        cases: cases with their names under ``case``.
        path: table with a row for each case and for no other.
        root: folder of the cases, for messages.

    Raises:
        InputError: the table cannot be used, or a case or a row has no counterpart.
    """
    known = read_case_classes(path)
    names = [case["case"] for case in cases]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"{path}: no row for {first_names(missing)}, labelled cases in {root}; add these rows")
    unknown = [name for name in known if name not in names]
    if unknown:
        raise InputError(
            f"{path}: rows for {first_names(unknown)}, which are not labelled cases in {root}; found "
            f"{first_names(names)}; correct the names or remove these rows"
        )
    for case, name in zip(cases, names):
        case.update(known[name])
