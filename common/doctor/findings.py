"""Collect what an examination finds: failures and notes."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """Hold one row of the table.

    Args:
        kind: ``"failure"`` or ``"note"``.
        where: case, package or part that it is about.
        what: message.
    """

    kind: str
    where: str
    what: str


class Findings:
    """Collect failures, which stop a run or make its results wrong, and notes, which are worth a look."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def fail(self, where: str, what: str) -> None:
        """Add a failure."""
        self.found.append(Finding("failure", where, what))

    def note(self, where: str, what: str) -> None:
        """Add a note."""
        self.found.append(Finding("note", where, what))

    def count(self, kind: str) -> int:
        """Return the number of findings of one kind."""
        return sum(finding.kind == kind for finding in self.found)

    def table(self) -> str:
        """Return one line for each finding, failures first; a message is cut after its first line."""
        width = max((len(finding.where) for finding in self.found), default=0)
        rows = sorted(self.found, key=lambda finding: finding.kind)
        return "\n".join(
            f"{kind:7}  {where:{width}}  {what.strip().partition(chr(10))[0]}" for kind, where, what in rows
        )
