"""Examine a data set before a bundle uses it: its cases, and the memory that they will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import DeleteItemsd, EnsureChannelFirstd, LoadImaged, MapTransform
from tqdm import tqdm

from ..data import CheckSpacingd
from ..errors import InputError
from ..memory import device_memory, size
from ..transforms import CheckHounsfieldd, CheckLabeld, CheckMRId, ClassIndexd, ResampleAxesd
from .anatomy import CheckAnatomyd
from .bundle import read_config, why
from .cases import (
    SCANS,
    Lists,
    check_empty_labels,
    check_headers,
    check_leaks,
    check_names,
    check_voxels,
    list_cases,
    read_headers,
    warn_of_small_labels,
    warnings_noted,
)
from .findings import Finding, Findings
from .headers import Header
from .memory import cache_bytes, inference_memory, network_memory
from .preprocessing import Prepared, Preprocessing, is_copy_of, transform_classes

READING = (LoadImaged, EnsureChannelFirstd, DeleteItemsd, CheckHounsfieldd, CheckLabeld, CheckMRId, CheckSpacingd)

Headers = dict[str, dict[str, Header]]  # section to case to its first file's header; cases without a failure


def examine_data(
    findings: Findings,
    folder: Path,
    dataset_dir: Path,
    fold: int | None = None,
    overlay: str | Path | None = None,
    headers_only: bool = False,
) -> list[str]:
    """Check every case of a data set for a bundle, and estimate the memory that it will take.

    A labelled case is read with ``load`` of ``train.json``. A scan without a label is read with the first steps of
    ``inference.json``. So messages are those of a run. Later steps, such as finding a body part, are not tried.

    Args:
        findings: collects failures and notes.
        folder: folder of the bundle.
        dataset_dir: folder with a ``dataset.json``, or with scans as inference takes them.
        fold: cross-validation fold, as for a training.
        overlay: config file on top of the bundle's configs, as in a run.
        headers_only: whether to read headers alone. Then values of labels, Hounsfield units, anatomy and damage behind
            a header stay unknown.

    Returns:
        lines to show.

    Raises:
        InputError: there are no cases, or the data list cannot be used.
    """
    train, infer = (read_config(folder, name, overlay, dataset_dir) for name in ("train", "inference"))
    modalities = infer.get_parsed_content("modalities")
    lists = list_cases(findings, dataset_dir, modalities, fold)
    load = _reading(infer) if SCANS in lists else warnings_noted(findings, lambda: train.get_parsed_content("load"))
    load = _with_own_checks([step for step in load if step is not None], train)
    resample = _resampling(train) if SCANS not in lists else None
    headers: Headers = {section: {} for section in lists}
    everything = [(section, case) for section, cases in lists.items() for case in cases]
    for section, case in tqdm(
        everything, desc="headers" if headers_only else "reading", dynamic_ncols=True, delay=2, disable=None
    ):
        where = f"{section} {case['case']}"
        failures = findings.count("failure")
        check_names(findings, where, case, modalities)
        found = read_headers(findings, where, case, warn=headers_only)
        if found and headers_only:
            check_headers(findings, where, case, found, modalities)
            check_voxels(
                findings, where, case, [step for step in load if is_copy_of(type(step), ClassIndexd)]
            )  # needs no voxels
        elif found:
            check_voxels(findings, where, case, load, resample)
        if findings.count("failure") == failures:
            headers[section][where] = found[0]
    check_leaks(findings, lists, by_content=not headers_only)
    if not headers_only:
        check_empty_labels(findings, lists, segments=train.get("task") != "class")
    lines = _summary(lists, headers)
    for what, estimate, config in (("caching", _caching, train), ("inference", _inference, infer)):
        try:
            lines += estimate(findings, config, headers)
        except Exception as error:  # for instance a network with layers that depend on values
            lines.append(f"{what}: not estimated, shapes alone do not suffice ({why(error)})")
    return lines


def _reading(infer: ConfigParser) -> list[Callable]:
    """Return the first steps of inference, which read and check a scan."""
    steps = []
    for step_id, kind in transform_classes(infer, "preprocessing"):
        if not is_copy_of(kind, *READING):
            break
        steps.append(infer.get_parsed_content(step_id))
    return steps


def _resampling(train: ConfigParser) -> MapTransform | None:
    """Return the step of a training that resamples a case to the network's grid."""
    steps = transform_classes(train, "train::preprocessing")
    return next((train.get_parsed_content(step_id) for step_id, kind in steps if is_copy_of(kind, ResampleAxesd)), None)


def _with_own_checks(load: list[Callable], train: ConfigParser) -> list[Callable]:
    """Return the steps and two checks that a run does not make: of small labels, and of the anatomy in a CT."""
    if not any(is_copy_of(type(step), CheckHounsfieldd) for step in load):
        return [*load, warn_of_small_labels]
    names = [name for key in ("labels", "regions") if isinstance(train.get(key), dict) for name in train.get(key)]
    return [*load, warn_of_small_labels, CheckAnatomyd(liver="liver" in names and set(names) <= {"liver", "tumour"})]


def _summary(lists: Lists, headers: Headers) -> list[str]:
    lines = ["cases: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items())]
    for section, cases in lists.items():
        count = Counter(str(case["class"]) for case in cases if "class" in case)
        if count:
            lines.append(f"classes, {section}: " + ", ".join(f"{n} {name}" for name, n in sorted(count.items())))
    first = [header for group in headers.values() for header in group.values()]
    if first:
        shapes = np.array([header.shape for header in first])
        spacings = np.array([np.linalg.norm(header.affine[:3, :3], axis=0) for header in first])
        lines.append(f"voxels: {_range(shapes, '.0f')}; spacing in mm: {_range(spacings, '.3g')}")
    return lines


def _range(values: np.ndarray, form: str) -> str:
    pairs = [[format(v, form) for v in (low, high)] for low, high in zip(values.min(0), values.max(0))]
    return " x ".join(low if low == high else f"{low} to {high}" for low, high in pairs)


def _caching(findings: Findings, train: ConfigParser, headers: Headers) -> list[str]:
    channels = len(train.get_parsed_content("modalities"))
    total, crops, unknown, counted = 0, set(), set(), 0
    for section, key in {"training": "train::preprocessing", "validation": "validate::preprocessing"}.items():
        preprocessing = Preprocessing(train, key)
        prepared = _prepared(findings, preprocessing, headers.get(section, {}), channels)
        total += sum(cache_bytes(case, preprocessing.bytes_per_voxel) for _, _, case in prepared)
        counted += len(prepared)
        crops |= {crop for _, _, case in prepared for crop in case.crops}
        unknown |= set(preprocessing.unknown)
    if not counted:
        return []
    rate = float(train.get_parsed_content("cache_rate"))
    device = torch.device(train.get_parsed_content("cache_device"))
    line = f"caching {counted} cases for a training: {_about(crops)}{size(total * rate)} on {device.type}"
    _compare(
        findings,
        "caching",
        int(total * rate),
        device.type,
        bool(crops),
        "use --cache_device cpu or a lower --cache_rate",
    )
    return [line + _reservations(crops, unknown)]


def _prepared(
    findings: Findings, preprocessing: Preprocessing, headers: dict[str, Header], channels: int
) -> list[tuple[str, Header, Prepared]]:
    """Return the size of each case after preprocessing; a case that does not fit the memory becomes a failure."""
    prepared = []
    for where, header in headers.items():
        try:
            prepared.append((where, header, preprocessing(header, channels)))
        except InputError as error:
            if (found := Finding("failure", where, str(error))) not in findings.found:
                findings.found.append(found)
    return prepared


def _inference(findings: Findings, infer: ConfigParser, headers: Headers) -> list[str]:
    channels = len(infer.get_parsed_content("modalities"))
    preprocessing = Preprocessing(infer, "preprocessing")
    cases = [case for group in headers.values() for case in _prepared(findings, preprocessing, group, channels)]
    if not cases:
        return []
    device = torch.device(infer.get_parsed_content("device")).type
    inferer: Any = infer.get_parsed_content("inferer")
    network = infer.get_parsed_content("network_def")
    batch = (inferer.sw_batch_size, cases[0][2].channels, *inferer.roi_size)
    out_channels, layers = network_memory(network, batch)
    copies = any(getattr(inferer, name, None) for name in ("keep", "empty", "num_classes"))
    most = {
        where: inference_memory(header, channels, case, out_channels, layers, copies) for where, header, case in cases
    }
    where, largest = max(most.items(), key=lambda item: item[1].of_main_memory(len(cases), "cpu"))
    crops = {crop for _, _, case in cases for crop in case.crops}
    needs = {"cpu": largest.of_main_memory(len(cases), device)}
    if device != "cpu":
        needs[device] = largest.of_gpu(len(cases))
    for on, need in needs.items():
        _compare(findings, f"inference, {where}", need, on, bool(crops), "use a machine with more, or smaller scans")
    reservations = _reservations(crops, preprocessing.unknown)
    parts = f"reading {size(largest.reading)}, windows {size(largest.computing)}, layers {size(largest.layers)}, "
    shown = " and ".join(f"{_about(crops)}{size(need)} on {on}" for on, need in needs.items())
    return [
        f"inference of the largest case: {shown} ({parts}inverse resampling {size(largest.finishing)}){reservations}"
    ]


def _about(crops: set[str]) -> str:
    return "at most about " if crops else "about "


def _reservations(crops: Collection[str], unknown: Collection[str]) -> str:
    less = f"; less after {', '.join(sorted(crops))}" if crops else ""
    return less + (f"; estimate incomplete: {', '.join(sorted(unknown))}" if unknown else "")


def _compare(findings: Findings, what: str, need: int, device: str, at_most: bool, fix: str) -> None:
    """Note a need above the free memory; above all memory it is a failure, unless the need is an upper bound."""
    memory = device_memory(torch.device(device))
    if memory is None or need <= memory.free:
        return
    name = "main memory" if device == "cpu" else f"memory of {device}"
    text = f"about {size(need)}, but {size(memory.free)} of {size(memory.total)} {name} are free; {fix}"
    (findings.fail if need > memory.total and not at_most else findings.note)(what, text)
