"""Find cases in data lists, in folders of scans and in single scans; a folder of DICOM files counts as one scan."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from ..errors import InputError, os_failure
from ..files import read_json
from .dicom import is_series, series_below
from .folders import (
    broken_link,
    broken_links,
    channels_in_header,
    entries,
    images_of_case,
    is_scan,
    scans_in,
    warn_of_unused,
)
from .folds import SECTIONS, VALIDATION_SHARE, check_share, split_by_fold
from .names import case_name, clashes, listed_path, modality_of, own_name, safe_name, scan_name, stem, without_detours
from .selection import select_cases
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

logger = logging.getLogger(__name__)

FOUND = "found scans"  # entry of a case for the scans that it was chosen from
KINDS = ", ".join((*NIFTI_SUFFIXES, *ITK_SUFFIXES, "DICOM"))


def load_cases(
    dataset_dir: str | Path,
    section: str,
    modalities: Sequence[str] = (),
    fold: int | None = None,
    validation_share: float = VALIDATION_SHARE,
    allow_missing: bool = False,
    names: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> list[dict]:
    """Return the labelled cases of one list of ``dataset_dir/dataset.json``.

    Args:
        dataset_dir: data-set folder; paths in its data list are relative to it.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        modalities: the channels that a case must have, in order; compared with the list's ``modality`` if it has one.
        fold: cross-validation fold to split by instead of the lists as they stand; the data list must have been written
            with folds.
        validation_share: part of the patients outside ``fold`` for validation, 0 to 1. With 0 validation is empty, also
            of lists as they stand.
        allow_missing: keep cases with a file that does not exist. An evaluation reports each as a failed case and
            evaluates the others.
        names, limit: as for :func:`select_cases`.

    Returns:
        dicts with ``case`` (its name in results), ``image`` (path, or one per modality), ``label`` (path), and
        whatever else the data list says of the case.

    Raises:
        UsageError: the share is out of range.
        InputError: the list, a file or a label is missing, two cases have one name, a name is unknown, or the
            modalities are others or in another order.
    """
    root, listing = Path(dataset_dir), read_lists(dataset_dir, modalities, fold, validation_share)
    items = listing.get(section)
    if section == "validation" and validation_share == 0:
        if items:
            logger.warning(
                "%s: validation_share 0 leaves out its %d validation cases; put them under 'training' to train on them",
                root / "dataset.json", len(items),
            )  # fmt: skip
        return []
    if not items:
        have = ", ".join(k for k in SECTIONS if listing.get(k)) or "none"
        raise InputError(
            f"{root / 'dataset.json'}: no cases under '{section}' (lists with cases: {have}); "
            "`python -m common datalist` writes all three"
        )
    cases = with_distinct_names([resolve_case(root, item, modalities, labelled=True) for item in items], root)
    wrong = [case["error"] for case in cases if "error" in case]
    if wrong:
        raise InputError(wrong[0])
    cases = select_cases(cases, names, limit, f"'{section}' of {root / 'dataset.json'}")
    if allow_missing:
        return cases
    missing = [broken_link(path) or str(path) for case in cases for path in files_of(case) if not path.exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{root / 'dataset.json'} names files that are not there: {', '.join(missing[:3])}{more}")
    return cases


def find_cases(
    dataset_dir: str | Path,
    modalities: Sequence[str] = (),
    fold: int | None = None,
    exclude: str | Path | None = None,
    names: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> list[dict]:
    """Return the cases to infer: a data-set folder's ``test`` list, a folder of scans, or one scan.

    In a folder of scans each sub-folder is a case. Files beside each other are cases of their own, unless there are
    several ``modalities`` and their names differ only by the modality: ``P1_T1.nii.gz`` and ``P1_T2.nii.gz`` are one.
    A folder of DICOM files is one scan under the folder's name: ``dataset_dir`` itself, a sub-folder, or one in it.
    A case's name follows from its own path alone; cases that share a name are errors, all of them.

    Args:
        dataset_dir: the folder or file.
        modalities: the channels that a case must have, in order.
        fold: as in :func:`load_cases`; only a data-set folder has folds.
        exclude: a folder whose files are no input, such as the output folder.
        names, limit: as for :func:`select_cases`.

    Returns:
        dicts with ``case`` (its name, as results carry it) and ``image``, or ``case`` and ``error`` for one that has to
        be skipped.

    Raises:
        InputError: the path does not exist, or holds nothing that could be a scan; or a name is unknown.
    """
    found = _found_cases(Path(dataset_dir), modalities, fold, exclude)
    return select_cases(found, names, limit, f"dataset_dir={dataset_dir}")


def _found_cases(path: Path, modalities: Sequence[str], fold: int | None, exclude: str | Path | None) -> list[dict]:
    if not path.exists():
        raise InputError(broken_link(path) or f"dataset_dir={path}: no such file or folder")
    if fold is not None and not (path / "dataset.json").exists():
        raise InputError(f"--fold {fold}, but dataset_dir={path} has no dataset.json; scans alone have no folds")
    if path.is_file():
        return with_distinct_names([{"case": scan_name(path), "image": str(path)}], path.parent)
    if (path / "dataset.json").exists():
        listing = read_lists(path, modalities, fold, validation_share=0)
        if not listing.get("test"):
            raise InputError(
                f"{path / 'dataset.json'}: no cases under 'test'; give a folder of scans or one scan instead"
            )
        return with_distinct_names(
            [_listed(path, n, item, modalities) for n, item in enumerate(listing["test"], 1)], path
        )
    skipped = Path(exclude).resolve() if exclude is not None else None
    if skipped == path.resolve():
        raise InputError(f"output_dir={exclude} is the folder of the scans; choose another one")
    cases: list[dict[str, Any]] = [{"case": _folder_name(path), "image": str(path)}] if is_scan(path) else []
    # a series with other scans beside its slices is no scan alone; which one is meant is asked as for any sub-folder
    scans = [p for p in scans_in(path) if not p.is_dir() or not (p.resolve() == skipped or _holds_scans(p))]
    cases += _cases_of_files(scans, modalities)
    for folder in entries(path):
        if folder.is_dir() and folder.resolve() != skipped and folder not in scans:
            try:
                cases += _case_of_folder(folder, modalities, beside_slices=is_series(path))
            except OSError as error:
                cases.append({"case": folder.name, "error": os_failure(error, str(folder))})
    if not cases:
        raise InputError(f"dataset_dir={path}: no scans ({KINDS}), no sub-folders and no dataset.json")
    found_scans = [scan for case in cases for scan in case.pop(FOUND, ())]
    warn_of_unused(path, found_scans, [case["image"] for case in cases if "image" in case], modalities)
    return with_distinct_names(cases, path)


def shard_for_rank(cases: list[dict], at_least: int = 0) -> list[dict]:
    """Return this process's part of the cases in a distributed run, or all cases in a single process.

    Raises:
        InputError: a process would get fewer than ``at_least`` cases.
    """
    if 0 < len(cases) < at_least * idist.get_world_size():
        raise InputError(f"{len(cases)} cases for {idist.get_world_size()} processes; start at most {len(cases)}")
    return cases[idist.get_rank() :: idist.get_world_size()]


def read_lists(
    dataset_dir: str | Path,
    modalities: Sequence[str] = (),
    fold: int | None = None,
    validation_share: float = VALIDATION_SHARE,
) -> dict[str, Any]:
    """Return the content of ``dataset_dir/dataset.json``, split by ``fold`` if one is given.

    Args:
        dataset_dir, modalities, fold, validation_share: as for :func:`load_cases`.

    Raises:
        UsageError: the share is out of range.
        InputError: no such file or no such lists, modalities that are others or in another order, or no such fold.
    """
    check_share(validation_share)
    path = Path(dataset_dir) / "dataset.json"
    if not path.exists():
        raise InputError(
            f"{path}: no such file; give a data set's folder with --dataset_dir "
            "(`python -m common datalist` writes the list for known layouts)"
        )
    listing = read_json(path)
    if not isinstance(listing, dict) or any(not isinstance(listing.get(k) or [], list) for k in SECTIONS):
        raise InputError(f"{path}: expected an object with the lists 'training', 'validation' and 'test'")
    found = named_channels(path, listing)
    known = [modality_of(name)[0] or name for name in found]
    if modalities and found and [name.lower() for name in known] != [name.lower() for name in modalities]:
        raise InputError(f"{path}: modalities {', '.join(found)}, expected {', '.join(modalities)} in this order")
    return listing if fold is None else split_by_fold(path, listing, fold, validation_share)


def named_channels(path: Path, listing: Mapping[str, Any]) -> list[str]:
    """Return the channels that a data set's description names, in their order; none if it names none.

    Args:
        path: the description, for messages.
        listing: its content. ``modality`` or ``channel_names`` is a name, a list of names, or an object with numbers
            for names or names for numbers.

    Raises:
        InputError: another form.
    """
    key = "modality" if listing.get("modality") else "channel_names"
    named = listing.get(key) or []
    if isinstance(named, str):
        return [named]
    if isinstance(named, dict):
        if not any(str(key).isdecimal() for key in named) and all(type(number) is int for number in named.values()):
            named = {number: name for name, number in named.items()}
        if not all(str(number).isdecimal() for number in named):
            raise InputError(f"{path}: {key} has the keys {', '.join(named)}, expected numbers from 0")
        named = [named[number] for number in sorted(named, key=int)]
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InputError(f'{path}: {key} is {named!r}; expected names, such as {{"0": "CT"}}')
    return named


def resolve_case(root: Path, item: object, modalities: Sequence[str], labelled: bool) -> dict:
    """Return a case of the data list in ``root``, with its name and whole paths, whether these are there or not.

    Args:
        root: data-set folder.
        item: as it stands in the list.
        modalities: for the name, see :func:`case_name`.
        labelled: it must have a label; unless so, a label stays as it stands.

    Raises:
        InputError: no image or label, a path that is not a text, or a name that no result can carry.
    """
    path = root / "dataset.json"
    case = {"image": item} if isinstance(item, (str, list)) else item
    if not isinstance(case, dict):
        raise InputError(f"{path}: {item!r} is not a case; expected an object with image and label")
    for key in ("image", "label") if labelled else ("image",):
        if key not in case:
            raise InputError(f"{path}: {item} has no {key}")
    images = case["image"] if isinstance(case["image"], list) else [case["image"]]
    if not images or not all(isinstance(image, str) and image for image in images):
        raise InputError(f"{path}: {item}: image is {case['image']!r}; expected a path, or one for each modality")
    if "case" in case:
        name = case["case"]
    elif "order" in case:
        name = own_name(images, modalities)
    else:
        name = case_name(
            [os.path.relpath(image, root) if os.path.isabs(image) else image for image in images], modalities
        )
    try:
        name = safe_name(name)
    except InputError as error:
        raise InputError(f"{path}: {images[0]}: {error}") from error
    paths = [without_detours(root / listed_path(image)) for image in images]
    case = {**case, "case": name, "image": paths[0] if len(paths) == 1 else paths}
    if labelled:
        if not isinstance(case["label"], str) or not case["label"]:
            raise InputError(f"{path}: {item}: label is {case['label']!r}; expected a path")
        case["label"] = without_detours(root / listed_path(case["label"]))
    return case


def files_of(case: Mapping) -> list[Path]:
    """Return the files of a case, its label last."""
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    return [Path(path) for path in [*images, *([case["label"]] if "label" in case else [])]]


def with_distinct_names(cases: Sequence[dict], root: Path) -> list[dict]:
    """Return cases with names that results can carry; one without has an ``error``, as have all that share a name.

    Args:
        cases: each with ``case`` and ``image``, or with ``error``.
        root: the data set, to which the paths in messages are relative.
    """
    checked = []
    for case in cases:
        try:
            checked.append(case if "error" in case else {**case, "case": safe_name(case["case"])})
        except InputError as error:
            checked.append({"case": _where(case, root), "error": f"{_where(case, root)}: {error}"})
    errors = {}
    for group in clashes(case for case in checked if "error" not in case):
        names = ", ".join(dict.fromkeys(case["case"] for case in group))
        found = [_where(case, root) for case in group]
        listed = " and ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        once = len(set(found)) == 1
        fix = "list it once" if once else "rename the scans, or name each by 'case' in a data list"
        for one, where in zip(group, found):
            errors[id(one)] = {"case": where, "error": f"{listed}: cases of one name, {names}; {fix}"}
    return [errors.get(id(case), case) for case in checked]


def _listed(root: Path, number: int, item: object, modalities: Sequence[str]) -> dict:
    """Return a case of the list ``test``, or its error."""
    try:
        case = resolve_case(root, item, modalities, labelled=False)
    except InputError as error:
        return {"case": f"test item {number}", "error": str(error)}
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    broken = [line for image in images for line in broken_links(Path(image))]
    return {"case": case["case"], "error": broken[0]} if broken else case


def _where(case: Mapping, root: Path) -> str:
    """Return the path of a case's first image from the data set on."""
    image = case["image"] if isinstance(case["image"], str) else case["image"][0]
    return Path(os.path.relpath(image, root)).as_posix() if image != str(root) else str(root)


def _folder_name(folder: Path) -> str:
    """Return the name of a folder, also of ``.``; a link to it has its own."""
    return Path(os.path.abspath(folder)).name


def _holds_scans(folder: Path) -> bool:
    try:
        return bool(scans_in(folder))
    except InputError:  # not this user's to read; it gets its line as a case
        return True


def _cases_of_files(files: Sequence[Path], modalities: Sequence[str]) -> list[dict]:
    cases = []
    groups: dict[str, list[Path]] = {}
    for file in files:
        modality, rest = modality_of(stem(file), modalities) if len(modalities) > 1 else (None, "")
        if modality is not None and modality_of(stem(file))[0] is None and channels_in_header(file) > 1:
            modality = None  # its number is the case's own: a 4-D file has all channels
        if modality is None:
            name = scan_name(file) if len(modalities) < 2 else stem(file)
            cases.append(_case(name, [file], modalities, str(file.parent)))
        else:
            groups.setdefault(rest or _folder_name(file.parent), []).append(file)
    return cases + [_case(name, group, modalities, str(group[0].parent)) for name, group in groups.items()]


def _case_of_folder(folder: Path, modalities: Sequence[str], beside_slices: bool) -> list[dict]:
    try:
        files = ([folder] if is_scan(folder) else []) + scans_in(folder)
    except InputError as error:
        return [{"case": folder.name, "error": str(error)}]
    if files:
        return [_case(folder.name, files, modalities, str(folder))]
    if beside_slices and not any(folder.iterdir()):
        return []
    broken = broken_links(folder)
    reason = broken[0] if broken else f"{folder}: no scans ({KINDS}) in it"
    if (series := series_below(folder)) is not None:
        reason += f"; its series lie deeper, such as {series}: give the folder {series.parent}, or that of one series"
    elif locked := [path.name for path in entries(folder) if not os.access(path, os.R_OK)]:
        reason += f"; permission denied for {locked[0]}"
    return [{"case": folder.name, "error": reason}]


def _case(name: str, files: Sequence[Path], modalities: Sequence[str], where: str) -> dict:
    try:
        image = images_of_case(files, modalities, where)
    except InputError as error:
        return {"case": name, "error": str(error)}
    broken = [line for path in ([image] if isinstance(image, str) else image) for line in broken_links(Path(path))]
    return {"case": name, "error": broken[0]} if broken else {"case": name, "image": image, FOUND: files}
