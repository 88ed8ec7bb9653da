"""Finding cases: data lists, folders of scans, single scans. A folder of DICOM files is a scan as a file is."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from ..errors import InputError, os_failure
from .dicom import is_series, series_below
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")  # the lists of a dataset.json
KINDS = ", ".join((*NIFTI_SUFFIXES, *ITK_SUFFIXES, "DICOM"))

# How file names and data lists call the MRI modalities; compared in lower case.
MODALITY_NAMES: Mapping[str, tuple[str, ...]] = {
    "T1": ("t1", "t1w", "t1n"),
    "T2": ("t2", "t2w"),
    "CET1": ("cet1", "t1c", "t1ce", "t1gd", "t1cw", "t1post", "ce"),
    "FLAIR": ("flair", "fla", "t2f"),
}


def load_cases(
    dataset_dir: str | Path, section: str, modalities: Sequence[str] = (), fold: int | None = None
) -> list[dict]:
    """The labelled cases of one list of ``dataset_dir/dataset.json``.

    Args:
        dataset_dir: data-set folder; paths in its data list are relative to it.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        modalities: the channels that a case must have, in order; compared with the list's ``modality`` if it has one.
        fold: cross-validation fold to split by instead of the lists as they stand; the data list must have been written
            with folds.

    Returns:
        dicts with ``case`` (a unique name), ``image`` (path, or one per modality), ``label`` (path), and whatever else
        the data list says of the case.

    Raises:
        InputError: the list, a file or a label is missing, or the modalities are others or in another order.
    """
    root, listing = Path(dataset_dir), read_lists(dataset_dir, modalities, fold)
    items = listing.get(section)
    if not items:
        have = ", ".join(k for k in SECTIONS if listing.get(k)) or "none"
        raise InputError(
            f"{root / 'dataset.json'}: no cases under '{section}' (lists with cases: {have}); "
            "`python -m common datalist` writes all three"
        )
    return _resolve(root, items, modalities, labelled=True)


def find_cases(
    dataset_dir: str | Path, modalities: Sequence[str] = (), fold: int | None = None, exclude: str | Path | None = None
) -> list[dict]:
    """The cases to infer: a data-set folder's ``test`` list, a folder of scans, or one scan.

    In a folder of scans each sub-folder is a case. Files beside each other are cases of their own, unless there are
    several ``modalities`` and their names differ only by the modality: ``P1_T1.nii.gz`` and ``P1_T2.nii.gz`` are one.
    A folder of DICOM files is one scan under the folder's name: ``dataset_dir`` itself, a sub-folder, or one in it.

    Args:
        dataset_dir: the folder or file.
        modalities: the channels that a case must have, in order.
        fold: as in :func:`load_cases`; only a data-set folder has folds.
        exclude: a folder whose files are no input, such as the output folder.

    Returns:
        dicts with ``case`` (a unique name) and ``image``, or ``case`` and ``error`` for one that has to be skipped.

    Raises:
        InputError: nothing there, or nothing that could be a scan.
    """
    path = Path(dataset_dir)
    if not path.exists():
        raise InputError(f"dataset_dir={dataset_dir}: no such file or folder")
    if fold is not None and not (path / "dataset.json").exists():
        raise InputError(f"--fold {fold}, but dataset_dir={dataset_dir} has no dataset.json; scans alone have no folds")
    if path.is_file():
        return [{"case": stem(path), "image": str(path)}]
    if (path / "dataset.json").exists():
        listing = read_lists(path, modalities, fold)
        if not listing.get("test"):
            raise InputError(
                f"{path / 'dataset.json'}: no cases under 'test'; give a folder of scans or one scan instead"
            )
        return _resolve(path, listing["test"], modalities, labelled=False)
    skipped = Path(exclude).resolve() if exclude is not None else None
    if skipped == path.resolve():
        raise InputError(f"output_dir={exclude} is the folder of the scans; choose another one")
    cases = [{"case": path.resolve().name, "image": str(path)}] if is_series(path) else []
    # a series with other scans beside its slices is no scan alone; which one is meant is asked as for any sub-folder
    scans = [p for p in _scans(path) if p.is_file() or not (p.resolve() == skipped or _scans(p))]
    cases += _cases_of_files(scans, modalities)
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if folder.resolve() != skipped and folder not in scans:
            try:
                cases += _case_of_folder(folder, modalities, beside_slices=is_series(path))
            except OSError as error:
                cases.append({"case": folder.name, "error": os_failure(error, str(folder))})
    if not cases:
        raise InputError(f"dataset_dir={dataset_dir}: no scans ({KINDS}), no sub-folders and no dataset.json")
    return _with_unique_names(cases)


def without_results(cases: list[dict], output_dir: str | Path, endings: Sequence[str] = ("_seg.nii.gz",)) -> list[dict]:
    """The cases that an interrupted inference has left without one of the results ``output_dir/CASE + ending``."""
    folder = Path(output_dir)
    left = [case for case in cases if not all((folder / f"{case['case']}{ending}").exists() for ending in endings)]
    logger.info("%d of %d cases have a result in %s already", len(cases) - len(left), len(cases), output_dir)
    return left


def rank_share(cases: list[dict], at_least: int = 0) -> list[dict]:
    """This process's part of the cases in a distributed run; all of them in an ordinary one.

    Raises:
        InputError: there are not ``at_least`` so many for every process.
    """
    if len(cases) < at_least * idist.get_world_size():
        raise InputError(f"{len(cases)} cases for {idist.get_world_size()} processes; start at most {len(cases)}")
    return cases[idist.get_rank() :: idist.get_world_size()]


def read_lists(dataset_dir: str | Path, modalities: Sequence[str] = (), fold: int | None = None) -> dict[str, Any]:
    """The content of ``dataset_dir/dataset.json``, its cases as they stand there; split by ``fold`` if there is one.

    Raises:
        InputError: no such file or no such lists, modalities that are others or in another order, or no such fold.
    """
    root = Path(dataset_dir)
    listing = _read_data_list(root)
    _check_modalities(root, listing, modalities)
    return listing if fold is None else split_by_fold(root, listing, fold)


def resolve_case(root: Path, item: object, modalities: Sequence[str], labelled: bool) -> dict:
    """A case of the data list in ``root``, with its name and whole paths, whether these are there or not.

    Args:
        root: data-set folder.
        item: as it stands in the list.
        modalities: for the name, see :func:`case_name`.
        labelled: it must have a label; unless so, a label stays as it stands.

    Raises:
        InputError: no image or label, or what stands there is no path.
    """
    path = root / "dataset.json"
    case = {"image": item} if isinstance(item, (str, list)) else item
    if not isinstance(case, dict):
        raise InputError(f"{path}: {item!r} is no case; expected an object with image and label")
    for key in ("image", "label") if labelled else ("image",):
        if key not in case:
            raise InputError(f"{path}: {item} has no {key}")
    images = case["image"] if isinstance(case["image"], list) else [case["image"]]
    if not images or not all(isinstance(image, str) and image for image in images):
        raise InputError(f"{path}: {item}: image is {case['image']!r}; expected a path, or one for each modality")
    paths = [str(root / image) for image in images]
    case = {"case": case_name(images, modalities), **case, "image": paths[0] if len(paths) == 1 else paths}
    if labelled:
        if not isinstance(case["label"], str) or not case["label"]:
            raise InputError(f"{path}: {item}: label is {case['label']!r}; expected a path")
        case["label"] = str(root / case["label"])
    return case


def files_of(case: Mapping) -> list[Path]:
    """The files of a case, its label last."""
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    return [Path(path) for path in [*images, *([case["label"]] if "label" in case else [])]]


def split_by_fold(root: Path, listing: Mapping, fold: int) -> dict[str, list[dict]]:
    """The cases of ``fold`` for testing; of the others, every fourth for validation (25 %), the rest for training.

    Cases of one place in the order are of one patient and stay together.

    Raises:
        InputError: a case without a fold or a place in the order, or no case in this fold.
    """
    items = [item for section in SECTIONS for item in listing.get(section) or []]
    for key in ("fold", "order"):
        if not all(isinstance(item, dict) and isinstance(item.get(key), int) for item in items):
            raise InputError(
                f"{root / 'dataset.json'}: --fold {fold}, but its cases have no {key}; write it with `--folds 5`"
            )
    items.sort(key=lambda item: item["order"])
    test = [item for item in items if item["fold"] == fold]
    rest = [item for item in items if item["fold"] != fold]
    places = sorted({item["order"] for item in rest})
    if not test or len(places) < 2:
        raise InputError(f"{root / 'dataset.json'}: no fold {fold}; it has {sorted({item['fold'] for item in items})}")
    held = set(places[::4])
    return {
        "training": [item for item in rest if item["order"] not in held],
        "validation": [item for item in rest if item["order"] in held],
        "test": test,
    }


def stem(path: str | Path) -> str:
    """File name without its image suffix."""
    name = Path(path).name
    for suffix in sorted(NIFTI_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def modality_of(name: str, modalities: Sequence[str] = ()) -> tuple[str | None, str]:
    """The modality that a file's or channel's name speaks of, and the name without it.

    Besides the names of ``MODALITY_NAMES``, nnU-Net's ``_0000``, ``_0001``, ... count into ``modalities``.
    """
    parts = re.split(r"([_\-. ]+)", name)
    for i in range(len(parts) - 1, -1, -2):
        word = parts[i].lower()
        rest = "".join(parts[: max(i - 1, 0)] + parts[i + 1 :]).strip("_-. ")
        if re.fullmatch(r"\d{4}", word) and i == len(parts) - 1 and int(word) < len(modalities):
            return modalities[int(word)], rest
        for modality, names in MODALITY_NAMES.items():
            if word in names:
                return modality, rest
    return None, name


def case_name(images: Sequence[str], modalities: Sequence[str] = ()) -> str:
    """What a case is called whose data list does not say it: its file, of several without the modality, or else their
    folder."""
    rest = modality_of(stem(images[0]), modalities)[1] if len(images) > 1 else stem(images[0])
    return rest or Path(images[0]).parent.name


def is_scan(path: Path) -> bool:
    """Whether this is an image file by its suffix, or a folder with DICOM files in it."""
    is_image = path.is_file() and path.name.lower().endswith(NIFTI_SUFFIXES + ITK_SUFFIXES)
    return not path.name.startswith(".") and (is_image or is_series(path))


def images_of_case(files: Sequence[Path], modalities: Sequence[str], where: str) -> str | list[str]:
    """The images among ``files`` in the order of ``modalities``; a single file is taken to hold them all.

    Raises:
        InputError: a modality is missing or there twice; several files, but no several modalities.
    """
    if len(files) == 1:
        return str(files[0])
    if len(modalities) < 2:
        found = ", ".join(f.name for f in files) or "none"
        raise InputError(f"{where}: {len(files)} scans ({found}), expected one, unless several modalities are named")
    chosen = []
    for modality in modalities:
        matches = [f for f in files if modality_of(stem(f), modalities)[0] == modality]
        if len(matches) != 1:
            found = ", ".join(f.name for f in (matches or files))
            what = f"{len(matches)} files for {modality}" if matches else f"no {modality}"
            raise InputError(
                f"{where}: {what} among {found}; name one file for each of {', '.join(modalities)}, "
                f"for example {modality} as ..._{modality}.nii.gz"
            )
        chosen.append(str(matches[0]))
    return chosen


def _scans(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_scan(p))


def _cases_of_files(files: Sequence[Path], modalities: Sequence[str]) -> list[dict]:
    cases = []
    groups: dict[str, list[Path]] = {}
    for file in files:
        modality, rest = modality_of(stem(file), modalities) if len(modalities) > 1 else (None, "")
        if modality is None:
            cases.append({"case": stem(file), "image": str(file)})
        else:
            groups.setdefault(rest or file.parent.name, []).append(file)
    return cases + [_case(name, group, modalities, str(group[0].parent)) for name, group in groups.items()]


def _case_of_folder(folder: Path, modalities: Sequence[str], beside_slices: bool) -> list[dict]:
    files = ([folder] if is_series(folder) else []) + _scans(folder)
    if files:
        return [_case(folder.name, files, modalities, str(folder))]
    if beside_slices and not any(folder.iterdir()):
        return []
    error = f"{folder}: no scans ({KINDS}) in it"
    if (series := series_below(folder)) is not None:
        error += f"; its series lie deeper, such as {series}: give the folder {series.parent}, or that of one series"
    elif locked := [path.name for path in sorted(folder.iterdir()) if not os.access(path, os.R_OK)]:
        error += f"; permission denied for {locked[0]}"
    return [{"case": folder.name, "error": error}]


def _case(name: str, files: Sequence[Path], modalities: Sequence[str], where: str) -> dict:
    try:
        return {"case": name, "image": images_of_case(files, modalities, where)}
    except InputError as error:
        return {"case": name, "error": str(error)}


def _with_unique_names(cases: list[dict]) -> list[dict]:
    """A name twice would write one case's result over another's."""
    count: dict[str, int] = {}
    for case in cases:
        count[case["case"]] = count.get(case["case"], 0) + 1
        if count[case["case"]] > 1:
            case["case"] = f"{case['case']}_{count[case['case']]}"
    return cases


def _read_data_list(root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    if not path.exists():
        raise InputError(
            f"{path}: no such file; give a data set's folder with --dataset_dir "
            "(`python -m common datalist` writes the list for known layouts)"
        )
    try:
        listing = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(listing, dict) or any(not isinstance(listing.get(k) or [], list) for k in SECTIONS):
        raise InputError(f"{path}: expected an object with the lists 'training', 'validation' and 'test'")
    return listing


def _check_modalities(root: Path, listing: Mapping, modalities: Sequence[str]) -> None:
    named = listing.get("modality", listing.get("channel_names"))
    if not modalities or not isinstance(named, dict):
        return
    if not all(str(key).isdecimal() for key in named):
        raise InputError(f"{root / 'dataset.json'}: modality has the keys {', '.join(named)}, expected numbers from 0")
    found = [named[key] for key in sorted(named, key=int)]
    if [modality_of(name)[0] or name for name in found] != list(modalities):
        raise InputError(
            f"{root / 'dataset.json'}: modalities {', '.join(found)}, expected {', '.join(modalities)} in this order"
        )


def _resolve(root: Path, items: Sequence, modalities: Sequence[str], labelled: bool) -> list[dict]:
    cases = [resolve_case(root, item, modalities, labelled) for item in items]
    missing = [path for case in cases for path in files_of(case) if not path.exists()] if labelled else []
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{root / 'dataset.json'} names files that are not there: {', '.join(map(str, missing[:3]))}{more}"
        )
    return _with_unique_names(cases)
