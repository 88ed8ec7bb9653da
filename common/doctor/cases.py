"""Every case of a data set: its files, grids, labels and class, and whether a patient is on two lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from monai.transforms import Compose, MapTransform

from ..data.cases import files_of, find_cases, read_lists, resolve_case, with_distinct_names
from ..data.folds import SECTIONS
from ..data.foreground import has_foreground
from ..data.names import modality_of, stem
from ..data.volumes import coverage
from ..errors import InputError, failure_of_case
from ..files import sha256
from .findings import Findings
from .headers import Header, difference, read_header

SMALL_LABEL = 10  # voxels, below which a label in a case is worth a look
SCANS = "scans"  # the list of a folder without a data list

logger = logging.getLogger(__name__)

Lists = dict[str, list[dict]]


def list_cases(findings: Findings, dataset_dir: Path, modalities: Sequence[str], fold: int | None) -> Lists:
    """The cases of a data list by section, or those of a folder of scans, without the ones whose files are missing.

    Raises:
        InputError: no such folder, no scans, or a data list that is wrong as a whole.
    """
    if not (dataset_dir / "dataset.json").exists():
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
            findings.note(f"list {section}", f"no cases; {_needs(section)} needs them")
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
    """Read the headers of a case's files, in their order; none if one cannot be read.

    Args:
        findings: takes what is wrong.
        where: list and name of the case.
        case: with its paths.
        warn: make notes of the warnings; otherwise the reading of the voxels does so.
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
    """What reading and checking the voxels would say of channels and grids, from headers alone."""
    labelled = "label" in case
    images = headers[:-1] if labelled else headers
    first = images[0]
    found = [image.channels for image in images]
    names = ", ".join(modalities)
    if found not in ([len(modalities)], [1] * len(modalities)):
        findings.fail(where, f"{first.path}: channels {found} in {len(images)} files, expected one for each of {names}")
    for image in images[1:]:
        covered = coverage(image.shape, image.affine, first.shape, first.affine)
        if covered == 0:
            findings.fail(where, f"{image.path}: shares no space with {first.path}")
        elif apart := difference(image, first):
            what = f"another grid than {first.path.name}, covers {covered:.0%} of it: {apart}"
            findings.note(where, f"{image.path}: {what}")
    if labelled and (apart := difference(headers[-1], first)):
        what = f"another grid than its image's: {apart}; resample it onto the image"
        findings.fail(where, f"{headers[-1].path}: {what}")


def check_names(findings: Findings, where: str, case: Mapping, modalities: Sequence[str]) -> None:
    """Whether files that are called after modalities stand in their order.

    All of them in another order is a failure: nothing would stop, and all results would be wrong. One name alone may
    speak of something else, such as what an image was registered to.
    """
    images = case["image"]
    if isinstance(images, str) or len(images) != len(modalities):
        return
    named = [modality_of(stem(path), modalities)[0] for path in images]
    known = [name if name in modalities else None for name in named]
    if known == list(modalities) or not any(known):
        return
    what = f"files {', '.join(Path(path).name for path in images)} where {', '.join(modalities)} are expected"
    if sorted(map(str, known)) == sorted(modalities):
        findings.fail(where, f"{what}; put them in this order")
    elif any(name not in (None, expected) for name, expected in zip(known, modalities)):
        findings.note(where, f"{what}; look whether each is the right one")


def check_voxels(
    findings: Findings, where: str, case: Mapping, load: Sequence[Callable], resample: MapTransform | None = None
) -> None:
    """Read a case with the bundle's own transforms, which check it; their warnings become notes.

    Args:
        findings: takes what is wrong.
        where: the case.
        case: its entries.
        load: the steps that read and check it.
        resample: brings a label to the network's grid, and warns of what is lost there.
    """
    raised: Exception | None = None
    with _warnings() as warnings:
        try:
            data = Compose(list(load))(dict(case))
            if resample is not None and "label" in data:
                resample(dict.fromkeys(resample.keys, data["label"]))  # the image is on the same grid
        except Exception as error:
            raised = error
    if raised is not None:  # beyond the block, whose warnings are notes: the traceback of a bug is shown
        findings.fail(where, failure_of_case(raised, str(files_of(case)[0])))
    for warning in warnings:
        findings.note(where, warning)


def warnings_noted(findings: Findings, build: Callable[[], list[Callable]]) -> list[Callable]:
    """Build the steps that read a case; what they warn of, such as other names of the labels, becomes a note."""
    with _warnings() as warnings:
        steps = build()
    for warning in warnings:
        findings.note("data list", warning)
    return steps


def check_leaks(findings: Findings, lists: Lists, by_content: bool) -> None:
    """Whether a case or patient is on two lists, or a file twice anywhere.

    Args:
        findings: takes it.
        lists: cases by section.
        by_content: also compare the content of files of one size, to find copies.
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
    for paths in _alike(images) if by_content else [[path] for path in images]:
        uses = [use for path in paths for use in images[path]]
        if len(uses) > 1:
            same = "the same file" if len(paths) == 1 else "files of the same content"
            where = " and ".join(f"{section} {case}" for section, case in dict.fromkeys(uses))
            what = f"{same}, {', '.join(path.name for path in paths)}, in {where}"
            across = len({section for section, _ in uses}) > 1 or len(set(uses)) == 1
            (findings.fail if across else findings.note)(f"{uses[0][0]} {uses[0][1]}", f"{what}; list it once")


def check_labels(findings: Findings, lists: Lists, segments: bool) -> None:
    """Check that a label of each list has foreground; a label that cannot be read is a failure of its own.

    Args:
        findings: takes it.
        lists: cases by section.
        segments: whether the network learns to segment; empty labels of a network that only classifies are a note.
    """
    for section, cases in lists.items():
        labels = [files_of(case)[-1] for case in cases if "label" in case]
        if labels and not any(_may_have_foreground(label) for label in labels):
            what = f"the labels of all {len(labels)} cases are empty; check the labels and the data list"
            (findings.fail if segments and section != "test" else findings.note)(f"list {section}", what)


def warn_of_small_labels(data: Mapping) -> Mapping:
    """Warn of labels of a few voxels, as the last step of reading a case: a coarser grid loses them."""
    label = data.get("label")
    if label is not None:
        values, counts = np.unique(np.asarray(label)[np.asarray(label) > 0], return_counts=True)
        for value, count in zip(values, counts):
            if count < SMALL_LABEL:
                logger.warning(
                    "%s: label %g has %d voxels in all; a grid of larger voxels may lose it, and the case then "
                    "trains as one without it", label.meta.get("filename_or_obj", "label"), value, count,
                )  # fmt: skip
    return data


def _may_have_foreground(label: Path) -> bool:
    try:
        return has_foreground(label)
    except InputError:
        return True


def _alike(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Groups of files of one content; a folder of DICOM slices stands for itself."""
    groups: dict[object, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stat().st_size if path.is_file() else path, []).append(path)
    for group in groups.values():
        same: dict[object, list[Path]] = {}
        for path in group:
            compared = len(group) > 1 and os.access(path, os.R_OK) and path.is_file()
            same.setdefault(sha256(path) if compared else path, []).append(path)
        yield from same.values()


def _needs(section: str) -> str:
    return "evaluation" if section == "test" else "training"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What reading warns of, instead of on the screen; a package's own code logs under the package's name."""
    caught: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: caught.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield caught
    finally:
        root.handlers = before
