"""Check every case of a data set: files, grids, labels and class; check that no patient is on two lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from monai.transforms import Compose, MapTransform

from ..data.folds import SECTIONS
from ..data.foreground import has_foreground
from ..data.found_cases import find_cases
from ..data.itk_data import scan_files
from ..data.listed_cases import files_of, has_list, read_lists, resolve_case
from ..data.names import modality_of, stem, with_distinct_names
from ..data.volume_reader import coverage
from ..errors import InputError, failure_of_case
from ..files import sha256
from ..logs import silence_notices
from .findings import Findings
from .headers import Header, header_difference, read_header

SMALL_LABEL = 10  # voxels; a smaller label may be lost by resampling
SCANS = "scans"  # name of the list if the folder has no data list

logger = logging.getLogger(__name__)

Lists = dict[str, list[dict]]


def list_cases(findings: Findings, dataset_dir: Path, modalities: Sequence[str], fold: int | None) -> Lists:
    """Return the cases of a data list by section, or those of a folder of scans; leave out cases with missing files.

    Raises:
        InputError: the folder does not exist or holds no scans, or the data list cannot be used.
    """
    if not has_list(dataset_dir):
        cases = find_cases(dataset_dir, modalities, fold)
        for case in cases:
            if "error" in case:
                findings.fail(f"{SCANS} {case['case']}", case["error"])
        return {SCANS: [case for case in cases if "error" not in case]}
    listing = read_lists(dataset_dir, modalities, fold)
    if not any(listing.get(section) for section in SECTIONS):
        raise InputError(f"{dataset_dir / 'dataset.json'}: no cases under any of {', '.join(SECTIONS)}")
    lists: Lists = {}
    for section in SECTIONS:
        if not listing.get(section):
            findings.note(f"list {section}", f"no cases; {_user_of(section)} needs them")
            continue
        lists[section] = []
        for number, item in enumerate(listing[section], 1):
            try:
                case = resolve_case(dataset_dir, item, modalities, labelled=True)
            except InputError as error:
                name = item.get("case") if isinstance(item, dict) else None
                findings.fail(f"{section} {name or f'item {number}'}", str(error))
                continue
            missing = [path for path in files_of(case) if not path.exists()]
            for path in missing:
                findings.fail(f"{section} {case['case']}", f"{path}: no such file")
            if not missing:
                lists[section].append(case)
        named = with_distinct_names(lists[section], dataset_dir)
        for case in named:
            if "error" in case:
                findings.fail(f"{section} {case['case']}", case["error"])
        lists[section] = [case for case in named if "error" not in case]
    return lists


def read_headers(findings: Findings, where: str, case: Mapping, warn: bool = False) -> list[Header]:
    """Return the headers of a case's files in their order, or an empty list if a file cannot be read.

    Args:
        findings: collects failures and notes.
        where: list and name of the case.
        case: entries of the case, with paths of its files.
        warn: turn warnings into notes; otherwise reading the voxels does so.
    """
    headers: list[Header] = []
    for path in files_of(case):
        raised: Exception | None = None
        with _warnings() as warnings:
            try:
                headers.append(read_header(path))
            except Exception as error:
                raised = error
        for warning in warnings if warn else []:
            findings.note(where, warning)
        if raised is not None:
            findings.fail(where, failure_of_case(raised, str(path)))
            return []
    return headers


def check_headers(
    findings: Findings, where: str, case: Mapping, headers: Sequence[Header], modalities: Sequence[str]
) -> None:
    """Check channels and grids from headers alone, as reading the voxels would."""
    labelled = "label" in case
    images = headers[:-1] if labelled else headers
    first = images[0]
    found = [image.channels for image in images]
    names = ", ".join(modalities)
    if found not in ([len(modalities)], [1] * len(modalities)):
        findings.fail(where, f"{first.path}: channels {found} in {len(images)} files; expected one for each of {names}")
    for image in images[1:]:
        covered = coverage(image.shape, image.affine, first.shape, first.affine)
        if covered == 0:
            findings.fail(where, f"{image.path}: does not overlap {first.path}; check the affine")
        elif apart := header_difference(image, first):
            what = f"its grid differs from that of {first.path.name} and covers {covered:.0%} of it: {apart}"
            findings.note(where, f"{image.path}: {what}")
    if labelled and (apart := header_difference(headers[-1], first)):
        what = f"its grid differs from that of its image: {apart}; resample it onto the image"
        findings.fail(where, f"{headers[-1].path}: {what}")


def check_names(findings: Findings, where: str, case: Mapping, modalities: Sequence[str]) -> None:
    """Note files with the name of another modality than that of their place in the list.

    The name may mean something else, such as the image that this one was registered to. A run refuses another order of
    all modalities.
    """
    images = case["image"]
    if isinstance(images, str) or len(images) != len(modalities):
        return
    named = [modality_of(stem(path))[0] for path in images]
    if any(name in modalities and name != expected for name, expected in zip(named, modalities)):
        what = f"files {', '.join(Path(path).name for path in images)} where {', '.join(modalities)} are expected"
        findings.note(where, f"{what}; check that each is the right one")


def check_voxels(
    findings: Findings, where: str, case: Mapping, load: Sequence[Callable], resample: MapTransform | None = None
) -> None:
    """Read a case with the bundle's own transforms, which check it; turn their warnings into notes.

    Args:
        findings: collects failures and notes.
        where: list and name of the case.
        case: entries of the case.
        load: transforms that read and check a case.
        resample: transform that resamples a label to the network's grid, and warns of labels that are lost there.
    """
    raised: Exception | None = None
    with _warnings() as warnings:
        try:
            data = Compose(list(load))(dict(case))
            if resample is not None and "label" in data:
                resample(dict.fromkeys(resample.keys, data["label"]))  # the image is on the same grid
        except Exception as error:
            raised = error
    if raised is not None:  # after the block, so that the traceback of a bug is shown
        findings.fail(where, failure_of_case(raised, str(files_of(case)[0])))
    for warning in warnings:
        findings.note(where, warning)


def warnings_noted(findings: Findings, build: Callable[[], list[Callable]]) -> list[Callable]:
    """Build the transforms that read a case; turn their warnings, such as other names of labels, into notes."""
    with _warnings() as warnings:
        steps = build()
    for warning in warnings:
        findings.note("data list", warning)
    return steps


def check_leaks(findings: Findings, lists: Lists, by_content: bool) -> None:
    """Check that no patient is on two lists, and that no file is listed twice.

    Args:
        findings: collects failures and notes.
        lists: cases by section.
        by_content: whether to find copies too, by the content of files of the same size.
    """
    patients: dict[str, dict[str, str]] = {}
    images: dict[Path, list[tuple[str, str]]] = {}
    for section, cases in lists.items():
        for case in cases:
            if "patient" in case:
                patients.setdefault(str(case["patient"]), {}).setdefault(section, case["case"])
            for path in files_of(case)[: -1 if "label" in case else None]:
                images.setdefault(path.resolve(), []).append((section, case["case"]))
    for patient, found in patients.items():
        if len(found) > 1:
            where = ", ".join(f"{case} ({section})" for section, case in found.items())
            findings.fail(f"patient {patient}", f"on several lists: {where}; keep the cases of a patient together")
    for paths in _equal_files(images) if by_content else [[path] for path in images]:
        uses = [use for path in paths for use in images[path]]
        if len(uses) > 1:
            same = "the same file" if len(paths) == 1 else "files with the same content"
            where = " and ".join(f"{section} {case}" for section, case in dict.fromkeys(uses))
            what = f"{same}, {', '.join(path.name for path in paths)}, in {where}"
            across = len({section for section, _ in uses}) > 1 or len(set(uses)) == 1
            (findings.fail if across else findings.note)(f"{uses[0][0]} {uses[0][1]}", f"{what}; list it once")


def check_empty_labels(findings: Findings, lists: Lists, segments: bool) -> None:
    """Check that at least one label of each list has foreground.

    Args:
        findings: collects failures and notes.
        lists: cases by section.
        segments: True if the network learns to segment. Empty labels of a network that only classifies are a note.
    """
    for section, cases in lists.items():
        labels = [files_of(case)[-1] for case in cases if "label" in case]
        if labels and not any(_may_have_foreground(label) for label in labels):
            what = f"the labels of all {len(labels)} cases are empty; check the labels and the data list"
            (findings.fail if segments and section != "test" else findings.note)(f"list {section}", what)


def warn_of_small_labels(data: Mapping) -> Mapping:
    """Log a warning for each label of a few voxels, which a coarser grid may lose."""
    label = data.get("label")
    if label is not None:
        values, counts = np.unique(np.asarray(label)[np.asarray(label) > 0], return_counts=True)
        for value, count in zip(values, counts):
            if count < SMALL_LABEL:
                logger.warning(
                    "%s: label %g has only %d voxels; resampling to larger voxels may lose it, and the case then "
                    "counts as one without this label", label.meta.get("filename_or_obj", "label"), value, count,
                )  # fmt: skip
    return data


def _may_have_foreground(label: Path) -> bool:
    try:
        return has_foreground(label)
    except InputError:
        return True


def _equal_files(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield groups of files with equal content; a folder of DICOM slices is a group of its own."""
    groups: dict[object, list[Path]] = {}
    for path in paths:
        sizes = [file.stat().st_size for file in scan_files(path) if file.is_file()]
        groups.setdefault(tuple(sizes) if path.is_file() else path, []).append(path)
    for group in groups.values():
        same: dict[object, list[Path]] = {}
        for path in group:
            compared = len(group) > 1 and os.access(path, os.R_OK) and path.is_file()
            digests = [sha256(file) for file in scan_files(path) if file.is_file()] if compared else []
            same.setdefault(tuple(digests) if compared else path, []).append(path)
        yield from same.values()


def _user_of(section: str) -> str:
    return "evaluation" if section == "test" else "training"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings that are logged in the block; the code of a package logs under the package's name."""
    silence_notices()
    caught: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: caught.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield caught
    finally:
        root.handlers = before
