"""Read the cases of a data list, ``dataset.json``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np

from ..errors import InputError
from ..files import read_json
from .folders import broken_link
from .folds import SECTIONS, VALIDATION_SHARE, check_share, split_by_fold
from .layouts import LAYOUTS
from .names import (
    case_name,
    listed_path,
    modality_of,
    named_channels,
    own_name,
    safe_name,
    stem,
    with_distinct_names,
    without_detours,
)
from .selection import select_cases

FOLDS = 5  # folds of a data set without a list of folds

logger = logging.getLogger(__name__)


def all_items(lists: Mapping[str, Any]) -> list[dict]:
    """Return the entries of all lists of a ``dataset.json`` that describe a case."""
    return [item for section in SECTIONS for item in lists.get(section) or [] if isinstance(item, dict)]


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
        dataset_dir: folder of ``dataset.json``; the paths in the list are relative to it.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        modalities: channels of a case in the network's order; compared with the list's ``modality`` if it has one.
        fold: cross-validation fold to split by; needs a list that was written with folds. None uses the written split.
        validation_share: fraction of the patients outside ``fold`` for validation, 0 to 1. With 0, the validation list
            is empty, also without ``fold``.
        allow_missing: whether to keep cases with a missing file. An evaluation reports each as a failed case and
            evaluates the others.
        names, limit: as for :func:`select_cases`.

    Returns:
        dicts with ``case`` (name in results), ``image`` (path, or one path per modality), ``label`` (path), and the
        other entries of the case in the data list.

    Raises:
        UsageError: the share is out of range.
        InputError: the list, a file or a label is missing, two cases have the same name, a name is unknown, or the
            modalities differ in name or order.
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
        raise InputError(f"{root / 'dataset.json'} names missing files: {', '.join(missing[:3])}{more}")
    return cases


def read_lists(
    dataset_dir: str | Path,
    modalities: Sequence[str] = (),
    fold: int | None = None,
    validation_share: float = VALIDATION_SHARE,
) -> dict[str, Any]:
    """Return the content of ``dataset_dir/dataset.json``, split by ``fold`` if one is given.

    Args:
        dataset_dir, modalities, fold, validation_share: see :func:`load_cases`.

    Raises:
        UsageError: the share is out of range.
        InputError: the file, its lists or the fold is missing, or the modalities differ in name or order.
    """
    check_share(validation_share)
    path = Path(dataset_dir) / "dataset.json"
    listing, is_dealt = read_list(dataset_dir, modalities)
    found = named_channels(path, listing)
    known = [modality_of(name)[0] or name for name in found]
    expected = [name.lower() for name in modalities]
    if modalities and found and expected not in ([name.lower() for name in names] for names in (found, known)):
        raise InputError(f"{path}: modalities {', '.join(found)}, expected {', '.join(modalities)} in this order")
    if is_dealt and fold is None and (validation_share > 0 or not listing.get("test")):
        fold = 0
    if is_dealt and fold is not None:
        listing = {**listing, "test": []}  # its images have no labels
    return listing if fold is None else split_by_fold(path, listing, fold, validation_share)


def read_list(dataset_dir: str | Path, modalities: Sequence[str] = ()) -> tuple[dict[str, Any], bool]:
    """Return the content of ``dataset_dir/dataset.json``, and whether this function dealt its cases to folds.

    A data set in the form of nnU-Net v2 (``imagesTr``, ``labelsTr``) or of the Decathlon (labelled cases under
    ``training`` alone) has no folds. Its cases are dealt to five of them, in an order drawn with seed 0.

    Args:
        dataset_dir, modalities: see :func:`load_cases`.

    Raises:
        InputError: the file or its lists are missing, or the layout is not that of nnU-Net.
    """
    root = Path(dataset_dir)
    path = root / "dataset.json"
    if not has_list(root):
        raise InputError(
            f"{path}: no such file; give a data set's folder with --dataset_dir "
            "(`python -m common datalist` writes the list for known layouts)"
        )
    listing = read_json(path) if path.exists() else {}
    if not isinstance(listing, dict) or any(not isinstance(listing.get(k) or [], list) for k in SECTIONS):
        raise InputError(f"{path}: expected an object with the lists 'training', 'validation' and 'test'")
    if _is_nnunet(root) and not any(listing.get(key) for key in SECTIONS):
        found = LAYOUTS["nnunet"](root, tuple(modalities) or named_channels(path, listing))
        cases = [{**case, **{key: _below(root, case[key]) for key in ("image", "label")}} for case in found]
    elif _is_decathlon(listing):
        cases = listing["training"]
    else:
        return listing, False
    places = np.random.default_rng(0).permutation(len(cases)).tolist()
    dealt = [{**case, "fold": place % FOLDS, "order": place} for case, place in zip(cases, places)]
    return {**listing, "training": dealt}, True


def has_list(dataset_dir: Path) -> bool:
    """Return whether a folder has a data list or the folders of nnU-Net, from which :func:`read_list` makes one."""
    return (dataset_dir / "dataset.json").exists() or _is_nnunet(dataset_dir)


def _is_nnunet(root: Path) -> bool:
    return (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()


def _below(root: Path, paths: str | list[str]) -> str | list[str]:
    """Return paths relative to a folder."""
    if isinstance(paths, str):
        return Path(paths).relative_to(root).as_posix()
    return [Path(path).relative_to(root).as_posix() for path in paths]


def _is_decathlon(listing: Mapping[str, Any]) -> bool:
    """Return whether a list has labelled cases under ``training`` alone, without folds; test images have no label."""
    training = listing.get("training") or []
    labelled = bool(training) and all(isinstance(c, dict) and "label" in c and "fold" not in c for c in training)
    return labelled and not listing.get("validation") and all(isinstance(c, str) for c in listing.get("test") or [])


def resolve_case(root: Path, item: object, modalities: Sequence[str], labelled: bool) -> dict:
    """Return a case of the data list in ``root`` with its name and complete paths; the files may be missing.

    Args:
        root: folder of ``dataset.json``.
        item: entry of the list.
        modalities: channel names; see :func:`case_name`.
        labelled: require a label. Otherwise a label stays unchanged.

    Raises:
        InputError: the image or label is missing, a path is not a string, the names of the files tell another order of
            the modalities, or the name cannot be a file name.
    """
    path = root / "dataset.json"
    case = {"image": item} if isinstance(item, (str, list)) else item
    if not isinstance(case, dict):
        raise InputError(f"{path}: case {item!r}: expected an object with image and label")
    for key in ("image", "label") if labelled else ("image",):
        if key not in case:
            raise InputError(f"{path}: {item} has no {key}")
    images = case["image"] if isinstance(case["image"], list) else [case["image"]]
    if not images or not all(isinstance(image, str) and image for image in images):
        raise InputError(f"{path}: {item}: image is {case['image']!r}; expected a path, or one for each modality")
    named = [modality_of(stem(image))[0] for image in images]  # numbers count the data set's own channels
    if named != list(modalities) and sorted(map(str, named)) == sorted(modalities):
        raise InputError(
            f"{path}: image {', '.join(images)}; expected the files of {', '.join(modalities)} in this order"
        )
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
    """Return the paths of a case's files, the label last."""
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    return [Path(path) for path in [*images, *([case["label"]] if "label" in case else [])]]


def shard_for_rank(cases: list[dict], at_least: int = 0) -> list[dict]:
    """Return the cases of this process in a distributed run, or all cases in a single process.

    Raises:
        InputError: a process would get fewer than ``at_least`` cases.
    """
    if 0 < len(cases) < at_least * idist.get_world_size():
        raise InputError(f"{len(cases)} cases for {idist.get_world_size()} processes; start at most {len(cases)}")
    return cases[idist.get_rank() :: idist.get_world_size()]
