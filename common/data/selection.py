"""Select cases by name or by number."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError

SHOWN = 5  # largest number of names in a message


def select_cases(cases: Sequence[dict], names: str | Sequence[str] | None, limit: int | None, where: str) -> list[dict]:
    """Return the cases of some names, or the first ones, in their order.

    Args:
        cases: each with ``case``, its name.
        names: names of the cases to take, as a list or as text with commas; None takes all.
        limit: largest number of cases, counted after the choice by name; None takes all.
        where: what has these cases, for the message.

    Raises:
        InputError: a name is unknown.
    """
    if names is not None:
        asked = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
        known = [case["case"] for case in cases]
        if unknown := [name for name in dict.fromkeys(asked) if name not in known]:
            some = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise InputError(f"--cases {','.join(unknown)}: no such case in {where}, which has {len(known)}: {some}")
        cases = [case for case in cases if case["case"] in asked]
    return list(cases[:limit])
