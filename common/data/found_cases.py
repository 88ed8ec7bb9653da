"""Find cases to infer in folders of scans and in single scans; a folder of DICOM files counts as one scan."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, os_failure
from .dicom import is_series, series_below
from .dicom_choice import cases_of_export
from .folders import (
    broken_link,
    broken_links,
    channels_in_header,
    entries,
    images_of_case,
    is_scan,
    others_in,
    scans_in,
    warn_of_unused,
)
from .listed_cases import has_list, read_lists, resolve_case
from .names import first_names, modality_of, scan_name, stem, with_distinct_names
from .selection import select_cases
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

FOUND = "found scans"  # entry of a case: the scans from which its image was chosen
WITH_SERIES = "with --series best, inference finds a series in each study (list: python -m common series DIR)"
KINDS = ", ".join((*NIFTI_SUFFIXES, *ITK_SUFFIXES, "DICOM"))

logger = logging.getLogger(__name__)


def find_cases(
    dataset_dir: str | Path,
    modalities: Sequence[str] = (),
    fold: int | None = None,
    exclude: str | Path | None = None,
    names: str | Sequence[str] | None = None,
    limit: int | None = None,
    series: str | int | None = None,
) -> list[dict]:
    """Return the cases to infer: a data-set folder's ``test`` list, a folder of scans, or one scan.

    In a folder of scans, each sub-folder is a case. Each file in the folder is a case, too. With several
    ``modalities``, files with names that differ only by the modality form one case: ``P1_T1.nii.gz`` and
    ``P1_T2.nii.gz``. A folder of DICOM files is one scan, named after the folder. The folder may be ``dataset_dir``, a
    sub-folder of it, or a folder in a sub-folder.

    The name of a case depends on its own path only. If several cases share a name, each of them gets an error.

    Args:
        dataset_dir: folder or file.
        modalities: channels of a case, in the network's order.
        fold: see :func:`load_cases`; only a folder with ``dataset.json`` has folds.
        exclude: folder to skip, such as the output folder.
        names, limit: as for :func:`select_cases`.
        series: choice of the series in a DICOM export, or None for another path; see :func:`cases_of_export`.

    Returns:
        dicts with ``case`` (name in results) and ``image``, or with ``case`` and ``error`` for a case to skip.

    Raises:
        InputError: the path does not exist or contains no possible scan, or a name is unknown.
    """
    if series is None:
        found = _found_cases(Path(dataset_dir), modalities, fold, exclude)
    else:
        if fold is not None:
            raise InputError(f"--fold {fold} and --series {series}: a DICOM export has no folds; leave one of them out")
        skipped = Path(exclude).resolve() if exclude is not None else None
        exported = cases_of_export(dataset_dir, str(series), modalities, skipped)
        found = with_distinct_names(exported, Path(dataset_dir))
    return select_cases(found, names, limit, f"dataset_dir={dataset_dir}")


def _found_cases(path: Path, modalities: Sequence[str], fold: int | None, exclude: str | Path | None) -> list[dict]:
    if not path.exists():
        raise InputError(broken_link(path) or f"dataset_dir={path}: no such file or folder")
    if fold is not None and not has_list(path):
        raise InputError(f"--fold {fold}, but dataset_dir={path} has no dataset.json; scans alone have no folds")
    if path.name.upper() == "DICOMDIR" and path.is_file():
        raise InputError(f"dataset_dir={path}: the index of a DICOM export; {WITH_SERIES}")
    if path.is_file():
        return with_distinct_names([{"case": scan_name(path), "image": str(path)}], path.parent)
    if has_list(path):
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
    # a folder with slices and other scans is ambiguous; _case_of_folder reports that
    scans = [p for p in scans_in(path) if not p.is_dir() or not (p.resolve() == skipped or _holds_scans(p))]
    cases += _cases_of_files(scans, modalities)
    for folder in entries(path):
        if folder.is_dir() and folder.resolve() != skipped and folder not in scans:
            try:
                cases += _case_of_folder(folder, modalities, beside_slices=is_series(path))
            except OSError as error:
                cases.append({"case": folder.name, "error": os_failure(error, str(folder))})
    others = others_in(path)
    if not cases:
        found = f"; found {first_names(others)}, so convert or unpack them" if others else ""
        raise InputError(f"dataset_dir={path}: no scans ({KINDS}), no sub-folders and no dataset.json{found}")
    if others:
        logger.warning(
            "%s: %d files are not read: %s; expected %s, so convert or unpack them",
            path, len(others), first_names(others), KINDS,
        )  # fmt: skip
    found_scans = [scan for case in cases for scan in case.pop(FOUND, ())]
    warn_of_unused(path, found_scans, [case["image"] for case in cases if "image" in case], modalities)
    return with_distinct_names(cases, path)


def _listed(root: Path, number: int, item: object, modalities: Sequence[str]) -> dict:
    """Return a case of the list ``test``, or a case with its error."""
    try:
        case = resolve_case(root, item, modalities, labelled=False)
    except InputError as error:
        return {"case": f"test item {number}", "error": str(error)}
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    broken = [line for image in images for line in broken_links(Path(image))]
    # inference ignores the label: without its entry, no transform takes the path for a label map
    return {"case": case["case"], **({"error": broken[0]} if broken else {"image": case["image"]})}


def _folder_name(folder: Path) -> str:
    """Return the name of a folder, also for ``.``; for a link, the name of the link."""
    return Path(os.path.abspath(folder)).name


def _holds_scans(folder: Path) -> bool:
    try:
        return bool(scans_in(folder))
    except InputError:  # permission denied; _case_of_folder reports it
        return True


def _cases_of_files(files: Sequence[Path], modalities: Sequence[str]) -> list[dict]:
    cases = []
    groups: dict[str, list[Path]] = {}
    for file in files:
        modality, rest = modality_of(stem(file), modalities) if len(modalities) > 1 else (None, "")
        if modality is not None and modality_of(stem(file))[0] is None and channels_in_header(file) > 1:
            modality = None  # a 4-D file has all channels, so the number belongs to the case
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
    reason = broken[0] if broken else f"{folder}: no scans ({KINDS}) in this folder"
    if (series := series_below(folder)) is not None:
        reason += f"; found a series deeper, {series}; give the folder {series.parent} or the folder of one series"
        reason += f"; {WITH_SERIES}"
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
