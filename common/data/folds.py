"""Split the cases of a data list by one fold of a cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError

SECTIONS = ("training", "validation", "test")  # the lists of a dataset.json
TEST = "test"  # fold of the cases that every fold tests on
VALIDATION_SHARE = 0.25  # fraction of the patients outside the tested fold

Patient = list[dict[str, Any]]  # the cases of one patient


def split_by_fold(
    path: Path, listing: Mapping[str, Any], fold: int, validation_share: float = VALIDATION_SHARE
) -> dict[str, list[dict]]:
    """Split cases: those of ``fold`` for testing, a share of the others for validation, the rest for training.

    The folds form a circle. Validation takes the patients that follow the tested fold in it. So each fold has another
    validation list, and every patient is in one. The classes are evenly mixed along the circle, so each validation
    list has its share of every class.

    If some cases have the fold ``"test"``, they are the test list of every fold, and the cases of ``fold`` are its
    validation list. With a validation share of 0, these train too.

    Args:
        path: data list, for messages.
        listing: content of the list; each case has ``fold`` and ``order``, which the cases of a patient share.
        fold: fold to test on, or to validate on if the list has a fixed test set.
        validation_share: fraction of the other patients, 0 <= share < 1; with 0, the validation list is empty.
            With a fixed test set, any other value has no effect.

    Raises:
        UsageError: the share is out of range.
        InputError: a case has no fold or order, an image is listed twice, a patient is in several folds, the fold is
            empty, or too few patients are in the other folds.
    """
    check_share(validation_share)
    listed = [item for section in SECTIONS for item in listing.get(section) or []]
    fixed = [item for item in listed if isinstance(item, dict) and item.get("fold") == TEST]
    items = [item for item in listed if item not in fixed] if fixed else listed
    for key in ("fold", "order"):
        values = [item.get(key) if isinstance(item, dict) else None for item in items]
        if wrong := [value for value in values if type(value) is not int]:
            found = f"its cases have no {key}" if wrong[0] is None else f"a case has the {key} {wrong[0]!r}"
            raise InputError(
                f"{path}: --fold {fold}, but {found}; expected a whole number for each case, as `python -m common "
                "datalist LAYOUT --folds 5` writes it"
            )
    images = Counter(str(item["image"]) for item in listed if isinstance(item, dict) and "image" in item)
    if twice := [image for image, times in images.items() if times > 1]:
        raise InputError(
            f"{path}: {twice[0]} is listed {images[twice[0]]} times, so it may train and test; list it once"
        )
    patients: dict[int, Patient] = {}
    for item in sorted(items, key=lambda item: item["order"]):
        patients.setdefault(item["order"], []).append(item)
    folds: dict[int, list[Patient]] = {}
    for order, cases in patients.items():
        if len({case["fold"] for case in cases}) > 1:
            raise InputError(f"{path}: cases of order {order}, one patient, are in several folds; give them one fold")
        folds.setdefault(cases[0]["fold"], []).append(cases)
    if fold not in folds:
        raise InputError(f"{path}: unknown fold {fold}, expected one of {sorted(folds)}")
    if fixed:
        return _with_fixed_test(path, folds, fold, fixed, validation_share)
    circle = _circle({number: folds[number] for number in sorted(folds)})
    start = circle.index(fold)
    others = [patient for number in circle[start + 1 :] + circle[:start] for patient in _mixed(folds[number])]
    if len(others) < (2 if validation_share else 1):
        raise InputError(
            f"{path}: {len(others)} patients outside fold {fold}, expected at least 2, one each for training and "
            "validation; `--validation_share 0` trains without validation"
        )
    held = min(max(1, round(validation_share * len(others))), len(others) - 1) if validation_share else 0

    return {
        "training": _in_order(others[held:]),
        "validation": _in_order(others[:held]),
        "test": _in_order(folds[fold]),
    }


def _in_order(patients: Sequence[Patient]) -> list[dict]:
    return sorted((case for patient in patients for case in patient), key=lambda case: case["order"])


def _with_fixed_test(
    path: Path, folds: Mapping[int, list[Patient]], fold: int, fixed: list[dict], validation_share: float
) -> dict[str, list[dict]]:
    others = [patient for number, patients in folds.items() if number != fold for patient in patients]
    if validation_share == 0:
        return {"training": _in_order([*others, *folds[fold]]), "validation": [], "test": fixed}
    if not others:
        raise InputError(f"{path}: no patients for training beside fold {fold} and the test set; write more folds")
    return {"training": _in_order(others), "validation": _in_order(folds[fold]), "test": fixed}


def check_share(validation_share: float) -> None:
    """Check the fraction of patients for validation.

    Raises:
        UsageError: it is not a number with 0 <= share < 1.
    """
    is_number = isinstance(validation_share, (int, float)) and not isinstance(validation_share, bool)
    if not is_number or not 0 <= validation_share < 1:
        raise UsageError(f"validation_share={validation_share!r}: expected a number from 0 to below 1")


def classes_of(patient: Sequence[Mapping]) -> tuple[str, ...]:
    """Return the sorted classes of a patient's cases; empty if the cases have no class."""
    return tuple(sorted({str(case["class"]) for case in patient if "class" in case}))


def _circle(folds: Mapping[int, Sequence[Patient]]) -> list[int]:
    """Order folds so that consecutive folds have about the class shares of all folds."""
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
    """Order a fold's patients so that its first patients have about the class shares of the fold."""
    kinds: dict[tuple[str, ...], list[Patient]] = {}
    for patient in patients:
        kinds.setdefault(classes_of(patient), []).append(patient)
    places = [
        ((i + 0.5) / len(group), kind, patient) for kind, group in kinds.items() for i, patient in enumerate(group)
    ]
    return [patient for _, _, patient in sorted(places, key=lambda place: place[:2])]
