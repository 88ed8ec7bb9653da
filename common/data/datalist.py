"""Write data lists (``dataset.json``) for known layouts, with cross-validation folds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..files import is_own_json, write_own_json
from ..label_names import names_in_list
from .case_table import add_classes
from .fold_assignment import KEPT_TOGETHER, assign_folds
from .folders import broken_link
from .folds import VALIDATION_SHARE, check_share, split_by_fold
from .layouts import LAYOUTS
from .listed_cases import files_of
from .names import modality_of, with_distinct_names
from .selection import fixed_test_set


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
        classes: table of the cases, see :func:`common.data.case_table.read_case_classes`; each case gets the ``class``,
            ``patient`` and ``site`` that the table has.
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
        add_classes(cases, Path(classes), root)
    fixed = [] if test is None else fixed_test_set(cases, test)
    cases = [case for case in cases if case not in fixed]
    assign_folds(cases, fixed, root, folds, fold, seed, by, splits, classes)
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


def _relative(path: str, root: Path, out: Path) -> str:
    """Return a path below ``root``, relative to the data list; links below ``root`` keep their names."""
    inside = root.resolve() / Path(path).relative_to(root)
    return Path(os.path.relpath(inside, out.parent.resolve())).as_posix()
