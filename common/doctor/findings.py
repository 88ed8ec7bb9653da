"""What an examination found, told apart by whether a run would fail."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One row of the table."""

    kind: str  # "failure" or "note"
    where: str
    what: str


class Findings:
    """Failures, with which a run would stop or give wrong results, and notes, which are good to know."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def fail(self, where: str, what: str) -> None:
        self.found.append(Finding("failure", where, what))

    def note(self, where: str, what: str) -> None:
        self.found.append(Finding("note", where, what))

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.found)

    def table(self) -> str:
        """A line for each, the failures first; of a message of several lines, the first."""
        width = max((len(finding.where) for finding in self.found), default=0)
        rows = sorted(self.found, key=lambda finding: finding.kind)
        return "\n".join(
            f"{kind:7}  {where:{width}}  {what.strip().partition(chr(10))[0]}" for kind, where, what in rows
        )
