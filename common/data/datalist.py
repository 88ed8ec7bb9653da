"""Write data lists (``dataset.json``) for known layouts, with cross-validation folds."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError
from ..files import is_own_json, read_json, write_own_json
from ..label_names import names_in_list
from .folders import broken_link
from .folds import TEST, VALIDATION_SHARE, check_share, classes_of, split_by_fold
from .layouts import LAYOUTS
from .listed_cases import files_of
from .names import first_names, modality_of, safe_name, with_distinct_names
from .selection import fixed_test_set

KEPT_TOGETHER = ("patient", "site")
COLUMNS = ("class", "patient", "site")  # of a table of cases, beside case


def write_datalist(
    layout: str,
    root: str | Path,
    out: str | Path,
    modalities: Sequence[str] = (),
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    classes: str | Path | None = None,
    validation_share: float = VALIDATION_SHARE,
    splits: str | Path | None = None,
    by: str = "patient",
    test: str | None = None,
) -> dict[str, list[dict]]:
    """Write a data list of the labelled cases in a folder: assign patients to folds and split by one fold.

    The list stores the fold of every case, so that a training can choose another split by ``--fold``. All cases of a
    patient are in one fold, if names or ``classes`` tell the patient. If cases have a class, each fold and each
    validation list gets its share of every class. Each case has its name as ``case``. If the layout defines the meaning
    of label values, each case stores it as ``label_code``. Links keep their own names.

    The layouts are:

    - ``"nnunet"``, also for the Medical Segmentation Decathlon: ``imagesTr`` (one file per case, or ``CASE_0000``,
      ``CASE_0001``, ... per channel) and ``labelsTr``;
    - ``"folders"``: a folder per case with its images and one label; the label's name has one of the words seg, label,
      mask, gt, gtv, roi;
    - ``"brats2015"`` (2013 to 2016), ``"brats2018"`` (2017 to 2019), ``"brats2020"`` (2020, 2021), ``"brats2023"``
      (from 2023): gliomas, a folder per case at any depth; ``"msd_task01"``: brain tumours of the Decathlon;
    - ``"lits"``: livers, ``volume-N`` and ``segmentation-N`` at any depth; ``"msd_task03"``: livers of the Decathlon;
    - ``"mosmed"``: MosMedData's ``studies/CT-?/study_N`` with a ``masks/study_N_mask``: 50 of CT-1, class COVID-19. A
      study of CT-0 with an empty mask that the user added is normal;
    - ``"covid_ct_seg"``: the ten scans ``coronacases_N`` of ``COVID-19-CT-Seg_20cases`` with their ``Infection_Mask``,
      class COVID-19; the other ten scans are not in HU.

    The two lung data sets have masks of lesions to train a segmentation. They have no other pneumonia, so they cannot
    train the diagnosis.

    Args:
        layout: name of the layout, see above.
        root: folder of the cases.
        out: data list to write; its folder is ``dataset_dir`` of the bundles.
        modalities: names of the channels in the network's order, if a case has several.
        folds: number of folds; default 5, or the number of ``splits``.
        fold: fold to test on.
        seed: seed of the random order in which patients are assigned to folds.
        classes: table of the cases, see :func:`read_case_classes`; each case gets the ``class``, ``patient`` and
            ``site`` that the table has.
        validation_share: fraction of the patients outside ``fold`` for validation, 0 <= share < 1.
        splits: nnU-Net's ``splits_final.json``; fold N tests on the cases under ``val`` in split N.
        by: what a fold keeps together, ``"patient"`` or ``"site"``. Sites come from ``classes``. The largest site is
            assigned first, each to the fold with the fewest cases. There are at most as many folds as sites.
        test: fixed test set, see :func:`fixed_test_set`; only the other cases are in folds, and ``fold`` is the
            validation list.

    Returns:
        the lists ``training``, ``validation`` and ``test``.

    Raises:
        UsageError: the share is out of range, ``folds`` differs from the number of splits, ``by`` is unknown, or both
            ``splits`` and sites are given.
        InputError: the layout is unknown; there are no labelled cases or fewer patients than folds; a case lacks an
            image, label or modality; a link is broken; two cases have the same name; label values have another meaning;
            a table or splits do not fit the cases; or ``out`` exists and is not an unchanged list of this function.
    """
    root, out = Path(root), Path(out)
    check_share(validation_share)
    if by not in KEPT_TOGETHER:
        raise UsageError(f"--by {by}: expected --by {' or --by '.join(KEPT_TOGETHER)}")
    if by == "site" and splits is not None:
        raise UsageError(
            f"--by site, --splits {splits}: the splits already assign the cases to folds; leave one of both out"
        )
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout}: expected one of {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise InputError(f"--root {root}: no such folder")
    if (out.exists() or out.is_symlink()) and not is_own_json(out):
        raise InputError(
            f"--out {out}: exists and is not an unchanged list of datalist, but the data set's own dataset.json, an "
            "edited list or another file; choose another --out, or remove the file"
        )
    modalities = tuple(modality_of(name)[0] or name for name in modalities)
    cases = _find(layout, root, modalities)
    if classes is not None:
        _add_classes(cases, Path(classes), root)
    fixed = [] if test is None else fixed_test_set(cases, test)
    cases = [case for case in cases if case not in fixed]
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
    for case in [*cases, *fixed]:
        for key in ("image", "label"):
            paths = case[key]
            one = isinstance(paths, str)
            case[key] = _relative(paths, root, out) if one else [_relative(path, root, out) for path in paths]
    lists = split_by_fold(out, {"training": [*cases, *fixed]}, fold, validation_share)
    channels = {"modality": {str(i): name for i, name in enumerate(modalities)}} if modalities else {}
    content: dict[str, Any] = {**channels, **lists}
    named = names_in_list(root)  # for the comparison with a training's labels; not needed with a label_code
    if named and not any("label_code" in case for case in [*cases, *fixed]):
        content["labels"] = {str(value): name for value, name in named.items()}
    write_own_json({"layout": layout, **content}, out)
    return lists


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


def _find(layout: str, root: Path, modalities: Sequence[str]) -> list[dict]:
    """Return the cases of a layout; check that their names are distinct and their files exist."""
    try:
        cases = with_distinct_names(LAYOUTS[layout](root, modalities), root)
    except OSError as error:
        raise InputError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    wrong = [case["error"] for case in cases if "error" in case]
    wrong += [line for case in cases if "error" not in case for path in files_of(case) if (line := broken_link(path))]
    if wrong:
        raise InputError(wrong[0] + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
    return cases


def _add_classes(cases: list[dict], path: Path, root: Path) -> None:
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


def _relative(path: str, root: Path, out: Path) -> str:
    """Return a path below ``root``, relative to the data list; links below ``root`` keep their names."""
    inside = root.resolve() / Path(path).relative_to(root)
    return Path(os.path.relpath(inside, out.parent.resolve())).as_posix()
