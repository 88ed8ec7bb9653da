"""Select cases by name or by number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

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


def fixed_test_set(cases: Sequence[dict], test: str, option: str = "--test") -> list[dict]:
    """Return the cases of a fixed test set, in their order.

    Args:
        cases: each with ``case``, its name, and possibly ``patient``.
        test: names of cases with commas, or a text file with a name in each line. ``27-46`` takes the cases with names
            that end with these numbers.
        option: option with ``test``, for messages.

    Raises:
        InputError: the file cannot be read, a name or a number of a range has no case, or a patient has cases both
            inside and outside.
    """
    known = {case["case"]: case for case in cases}
    if Path(test).suffix == ".txt":
        try:
            asked = [line.strip() for line in Path(test).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{option} {test}: cannot be read ({error}); give a text file in UTF-8") from error
    else:
        asked = [name.strip() for name in test.split(",") if name.strip()]
    if not asked:
        raise InputError(f"{option} {test}: names no case; name the cases of the test set, or leave it out")
    chosen: set[str] = set()
    for name in asked:
        bounds = re.fullmatch(r"(\d+)-(\d+)", name)
        if bounds is None or name in known:
            found, wanted = [name] if name in known else [], 1
        elif int(bounds[2]) < int(bounds[1]):
            raise InputError(f"{option} {name}: expected the lower number first, {bounds[2]}-{bounds[1]}")
        else:
            numbers = range(int(bounds[1]), int(bounds[2]) + 1)
            found = [n for n in known if (end := re.search(r"\d+$", n)) and int(end[0]) in numbers]
            wanted = len(numbers)
        if len(found) != wanted:
            some = ", ".join(list(known)[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise InputError(
                f"{option} {name}: found {len(found)} cases, expected {wanted}; the {len(known)} cases are {some}"
            )
        chosen.update(found)
    inside = {case["patient"]: case["case"] for case in cases if case["case"] in chosen and "patient" in case}
    for case in cases:
        if case["case"] not in chosen and case.get("patient") in inside:
            raise InputError(
                f"{option}: {inside[case['patient']]}, but not {case['case']} of the same patient {case['patient']}; "
                "name all cases of the patient"
            )
    return [case for case in cases if case["case"] in chosen]
