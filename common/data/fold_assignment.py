"""Assign patients or sites to the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, UsageError
from ..files import read_json
from .folds import TEST, classes_of
from .names import first_names, safe_name

KEPT_TOGETHER = ("patient", "site")


def assign_folds(
    cases: Sequence[dict],
    fixed: Sequence[dict],
    root: Path,
    folds: int | None,
    fold: int,
    seed: int,
    by: str,
    splits: str | Path | None,
    classes: str | Path | None,
) -> None:
    """Give each case its ``fold``, and the position of its patient in a random order as ``order``.

    Args:
        cases: cases of the folds.
        fixed: cases of a fixed test set, which get the fold ``"test"``.
        root: folder of the cases, for messages.
        folds, fold, seed, by, splits, classes: as for :func:`common.data.datalist.write_datalist`.

    Raises:
        UsageError: ``folds`` differs from the number of splits.
        InputError: there are fewer patients or sites than folds, the fold is out of range, a case has no site, a
            patient is in several sites or splits, or the splits do not fit the cases.
    """
    patients: dict[object, list[dict]] = {}
    for index, case in enumerate(cases):
        patients.setdefault(case.get("patient", index), []).append(case)
    groups = _sites(list(patients.values()), classes) if by == "site" else list(patients.values())
    fold_of = {} if splits is None else _read_splits(Path(splits), cases)
    dealt = len(set(fold_of.values())) or (min(5, len(groups)) if by == "site" else 5)
    if fold_of and folds not in (None, dealt):
        raise UsageError(f"--folds {folds}, but {splits} has {dealt} splits; omit --folds")
    for scans in patients.values():
        if len({fold_of.get(case["case"]) for case in scans}) > 1:
            names = first_names([case["case"] for case in scans])
            raise InputError(
                f"--splits {splits}: {names}, of the patient {scans[0]['patient']}, are under val of several splits, "
                "expected one; correct the splits, or the patients"
            )
    folds = dealt if folds is None else folds
    if by == "site" and len(groups) == 1:
        raise UsageError(
            f"--by site: {classes or root} has one site, {cases[0]['site']}, expected at least 2; leave --by out for "
            "folds of patients"
        )
    if len(groups) < 2:
        where = " outside --test" if fixed else ""
        raise InputError(f"{root}: {len(groups)} {by}{where}, expected at least 2, one for each fold; add cases")
    if not (2 <= folds <= len(groups) and 0 <= fold < folds):
        raise InputError(
            f"--folds {folds}, --fold {fold}: expected 2 to {len(groups)} folds, the number of {by}s "
            f"({len(cases)} labelled cases in {root}), and a fold from 0 to folds - 1"
        )
    random = np.random.default_rng(seed)
    if by == "site":
        fold_of = _assign_sites([groups[index] for index in random.permutation(len(groups))], folds)
    people = list(patients.values())
    shuffled = [people[index] for index in random.permutation(len(people))]
    for position, group in enumerate(sorted(shuffled, key=classes_of)):  # sorted is stable: random order within a class
        for case in group:
            case.update(fold=fold_of.get(case["case"], position % folds), order=position)
    for position, case in enumerate(fixed, start=len(shuffled)):
        case.update(fold=TEST, order=position)


def _sites(patients: Sequence[Sequence[dict]], table: str | Path | None) -> list[list[dict]]:
    """Return the cases of each site, in the order of the site's names.

    Raises:
        InputError: a case has no site, or a patient was at several.
    """
    sites: dict[str, list[dict]] = {}
    for cases in patients:
        if missing := [case["case"] for case in cases if "site" not in case]:
            where = "--by site" if table is None else f"{table}"
            raise InputError(f"{where}: no site for {first_names(missing)}; give --classes a CSV with case and site")
        if len(found := sorted({case["site"] for case in cases})) > 1:
            raise InputError(
                f"{table}: patient {cases[0]['patient']} has scans from the sites {', '.join(found)}, which would be "
                "in several folds; give one site to all scans of a patient"
            )
        sites.setdefault(cases[0]["site"], []).extend(cases)
    return [sites[name] for name in sorted(sites)]


def _assign_sites(sites: Sequence[Sequence[Mapping]], folds: int) -> dict[str, int]:
    """Return the fold of each case: the largest site first, each into the fold with the fewest cases."""
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for cases in sorted(sites, key=len, reverse=True):  # stable: sites of equal size stay in random order
        fold = sizes.index(min(sizes))
        sizes[fold] += len(cases)
        fold_of |= {case["case"]: fold for case in cases}
    return fold_of


def _read_splits(path: Path, cases: Sequence[Mapping]) -> dict[str, int]:
    """Return the fold of each case: the index of the split that lists the case under ``val``.

    Raises:
        InputError: the file has another form or other cases, or a case is not in exactly one ``val``.
    """
    content = read_json(path)
    if not isinstance(content, list) or not all(
        isinstance(split, dict) and isinstance(split.get("val"), list) and split["val"] for split in content
    ):
        raise InputError(f"--splits {path}: expected nnU-Net's splits_final.json, a list of objects with train and val")
    fold_of: dict[str, int] = {}
    for number, split in enumerate(content):
        for name in map(safe_name, split["val"]):
            if name in fold_of:
                raise InputError(
                    f"--splits {path}: {name} is under val of splits {fold_of[name]} and {number}, expected one split"
                )
            fold_of[name] = number
    names = {case["case"] for case in cases}
    if unknown := sorted(set(fold_of) - names):
        raise InputError(
            f"--splits {path}: no labelled case for {first_names(unknown)}; cases are {first_names(sorted(names))}"
        )
    if untested := sorted(names - set(fold_of)):
        raise InputError(
            f"--splits {path}: {first_names(untested)} under val of no split, expected one split for each case"
        )
    return fold_of
