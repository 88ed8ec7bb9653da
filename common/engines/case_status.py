"""Write a line about each case to a file while a batch runs, and remember the cases in progress."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import failures_of_writing, make_folder, read_json, whole_file
from ..reporting.tables import RECORD
from .case_origin import TABLE

COLUMNS = ("case", "state", "reason", "seconds", "peak_mb")
IN_PROGRESS = "in_progress_{}.json"  # for each process


def check_status_name(path: str | Path, results: Sequence[Path]) -> None:
    """Check that a status file and the results of a run have different names, since one would replace the other.

    Args:
        path: status file.
        results: files of the cases in the folder of the results, which also gets tables.

    Raises:
        InputError: a result has the name.
    """
    tables = [folder / name for folder in {result.parent for result in results} for name in (TABLE, RECORD)]
    if Path(path).resolve() in {result.resolve() for result in (*results, *tables)}:
        raise InputError(f"--status {path}: the name of a result of this run; choose another name")


class StatusFile:
    """Append a line about each case to a CSV file as soon as the case is done or has failed.

    Args:
        path: file to write, with the columns ``case,state,reason,seconds,peak_mb``.
        resume: continue the file of an earlier run. Otherwise such a file is replaced.

    Raises:
        InputError: if there is another file, or the file cannot be written.
    """

    def __init__(self, path: str | Path, resume: bool) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        heading = ",".join(COLUMNS)
        with failures_of_writing(self.path):
            if self.path.exists() and self.path.stat().st_size:
                with self.path.open(encoding="utf-8", errors="replace") as file:
                    if file.readline().strip() != heading:
                        raise InputError(
                            f"--status {path}: another file, not with the columns {heading}; choose another name"
                        )
                if resume:
                    return
            self.path.write_text(heading + "\n", encoding="utf-8")

    def add(self, *cells: Any) -> None:
        """Append a line."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(" ".join(str(cell).splitlines()) for cell in cells)
        with failures_of_writing(self.path), self.path.open("ab") as file:
            file.write(line.getvalue().encode("utf-8", "backslashreplace"))  # one call, since processes share the file
            file.flush()
            os.fsync(file.fileno())


class InProgress:
    """Keep the names of the cases in progress in a file, which outlives a process that is killed.

    Args:
        folder: folder of the results.
        rank: number of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / IN_PROGRESS.format(rank)
        self._names: list[str] = []
        self._lock = threading.Lock()

    def begin(self, name: str) -> None:
        """Note that the work on a case begins."""
        with self._lock:
            self._names.append(name)
            self._write()

    def end(self, name: str) -> None:
        """Note that the work on a case has ended."""
        with self._lock:
            if name in self._names:
                self._names.remove(name)
                self._write()

    def close(self) -> None:
        """Remove the file."""
        with self._lock, suppress(FileNotFoundError):
            self._names = []
            self.path.unlink()

    def _write(self) -> None:
        with whole_file(self.path) as partial:
            partial.write_text(json.dumps(self._names, ensure_ascii=True), encoding="utf-8")


def killed_with(folder: Path) -> list[list[str]]:
    """Return the cases in progress of each process of an earlier run that was killed, and remove its files."""
    found = []
    for path in sorted(folder.glob(IN_PROGRESS.format("*"))):
        names = read_json(path)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found.append(names)
            path.unlink()
    return found
