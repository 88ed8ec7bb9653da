"""The split of a data list's cases by one fold of a cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError

SECTIONS = ("training", "validation", "test")  # the lists of a dataset.json
VALIDATION_SHARE = 0.25  # of the patients that are not tested

Patient = list[dict[str, Any]]  # the cases of one


def split_by_fold(
    path: Path, listing: Mapping[str, Any], fold: int, validation_share: float = VALIDATION_SHARE
) -> dict[str, list[dict]]:
    """Return the cases of ``fold`` for testing, a share of the others for validation, the rest for training.

    The folds are put in a circle. Validation takes the patients that follow the tested fold, so it differs from fold to
    fold and comes round to everyone. The circle has the classes in even mixture, so validation has its share of each.

    Args:
        path: the data list, for messages.
        listing: its content; each case has a ``fold`` and an ``order``, which the cases of a patient share.
        fold: the fold to test on.
        validation_share: part of the other patients, from 0 up to but below 1; 0 leaves validation empty.

    Raises:
        UsageError: a share out of range.
        InputError: a case without a fold or an order, a patient in several folds, no case in this fold, or too few
            patients in the others.
    """
    check_share(validation_share)
    items = [item for section in SECTIONS for item in listing.get(section) or []]
    for key in ("fold", "order"):
        if not all(isinstance(item, dict) and type(item.get(key)) is int for item in items):
            raise InputError(f"{path}: --fold {fold}, but its cases have no {key}; write it with `--folds 5`")
    patients: dict[int, Patient] = {}
    for item in sorted(items, key=lambda item: item["order"]):
        patients.setdefault(item["order"], []).append(item)
    folds: dict[int, list[Patient]] = {}
    for order, cases in patients.items():
        if len({case["fold"] for case in cases}) > 1:
            raise InputError(f"{path}: cases of order {order}, one patient, are in several folds; give them one fold")
        folds.setdefault(cases[0]["fold"], []).append(cases)
    if fold not in folds:
        raise InputError(f"{path}: no fold {fold}; it has {sorted(folds)}")
    circle = _circle({number: folds[number] for number in sorted(folds)})
    start = circle.index(fold)
    others = [patient for number in circle[start + 1 :] + circle[:start] for patient in _mixed(folds[number])]
    if len(others) < (2 if validation_share else 1):
        raise InputError(
            f"{path}: {len(others)} patients outside fold {fold}, expected at least 2, one each for training and "
            "validation; `--validation_share 0` trains without validation"
        )
    held = min(max(1, round(validation_share * len(others))), len(others) - 1) if validation_share else 0

    def in_order(chosen: Sequence[Patient]) -> list[dict]:
        return sorted((case for patient in chosen for case in patient), key=lambda case: case["order"])

    return {
        "training": in_order(others[held:]),
        "validation": in_order(others[:held]),
        "test": in_order(folds[fold]),
    }


def check_share(validation_share: float) -> None:
    """Check the share of patients for validation.

    Raises:
        UsageError: it is not a number from 0 up to but below 1.
    """
    if isinstance(validation_share, bool) or not isinstance(validation_share, (int, float)):
        raise UsageError(f"validation_share={validation_share!r}: expected a number from 0 up to but below 1")
    if not 0 <= validation_share < 1:
        raise UsageError(f"validation_share={validation_share}: expected a number from 0 up to but below 1")


def classes_of(patient: Sequence[Mapping]) -> tuple[str, ...]:
    """Return the classes of a patient's cases; without classes, patients are all alike."""
    return tuple(sorted({str(case["class"]) for case in patient if "class" in case}))


def _circle(folds: Mapping[int, Sequence[Patient]]) -> list[int]:
    """Order folds so that the classes of any run of them are close to those of all."""
    counts = {fold: Counter(map(classes_of, patients)) for fold, patients in folds.items()}
    total = sum(counts.values(), Counter())
    circle: list[int] = []
    taken: Counter = Counter()

    def unevenness(fold: int) -> float:
        after = taken + counts[fold]
        share = after.total() / total.total()
        return sum((after[kind] - share * total[kind]) ** 2 for kind in total)

    while len(circle) < len(folds):
        fold = min((fold for fold in folds if fold not in circle), key=unevenness)
        circle.append(fold)
        taken += counts[fold]
    return circle


def _mixed(patients: Sequence[Patient]) -> list[Patient]:
    """Order a fold's patients so that its first ones have the classes in the mixture of all."""
    kinds: dict[tuple[str, ...], list[Patient]] = {}
    for patient in patients:
        kinds.setdefault(classes_of(patient), []).append(patient)
    places = [
        ((i + 0.5) / len(group), kind, patient) for kind, group in kinds.items() for i, patient in enumerate(group)
    ]
    return [patient for _, _, patient in sorted(places, key=lambda place: place[:2])]
