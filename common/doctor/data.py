"""A data set before a bundle uses it: its cases, and the memory that they will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from ..session import quiet_loggers
from .anatomy import CheckAnatomyd
from .bundle import read_config, why
from .cases import (
    SCANS,
    Lists,
    check_headers,
    check_labels,
    check_leaks,
    check_names,
    check_voxels,
    list_cases,
    read_headers,
    warn_of_small_labels,
)
from .findings import Findings, size
from .headers import Header
from .machine import Memory, cuda_memory, main_memory
from .memory import Preprocessing, cache_bytes, inference_memory, network_memory

CLASS_STEP = "ClassIndexd"  # needs no voxel
CT_STEP = "CheckHounsfieldd"


def examine_data(
    findings: Findings,
    folder: Path,
    dataset_dir: Path,
    fold: int | None = None,
    overlay: str | Path | None = None,
    headers_only: bool = False,
) -> list[str]:
    """Check every case of a data set for a bundle, and estimate the memory that it will take.

    A labelled case is read with ``load`` of ``train.json``, a scan without a label with the first steps of
    ``inference.json``, so that what is wrong is what a run would say. Steps after these, such as finding a body part,
    are not tried.

    Args:
        findings: takes what is wrong.
        folder: of the bundle.
        dataset_dir: folder with a ``dataset.json``, or scans as inference takes them.
        fold: cross-validation fold, as for a training.
        overlay: config file on top of the bundle's, as in a run.
        headers_only: no voxel is read: labels' values, Hounsfield units, anatomy, damage behind the header stay
            unknown.

    Returns:
        lines to show.

    Raises:
        InputError: there are no cases, or the data list as a whole is wrong.
    """
    train, infer = (read_config(folder, name, overlay, dataset_dir) for name in ("train", "inference"))
    quiet_loggers()
    modalities = infer.get_parsed_content("modalities")
    lists = list_cases(findings, dataset_dir, modalities, fold)
    load = train.get_parsed_content("load") if SCANS not in lists else _reading(infer)
    load = _with_own_checks([step for step in load if step is not None], train)
    headers: dict[str, list[list[Header]]] = {section: [] for section in lists}  # of the cases without a failure
    everything = [(section, case) for section, cases in lists.items() for case in cases]
    for section, case in tqdm(everything, desc="headers" if headers_only else "reading", ncols=100, delay=2):
        where = f"{section} {case['case']}"
        failures = findings.count("failure")
        check_names(findings, where, case, modalities)
        found = read_headers(findings, where, case)
        if found and headers_only:
            check_headers(findings, where, case, found, modalities)
            check_voxels(findings, where, case, [step for step in load if type(step).__name__ == CLASS_STEP])
        elif found:
            check_voxels(findings, where, case, load)
        if findings.count("failure") == failures:
            headers[section].append(found)
    check_leaks(findings, lists, by_content=not headers_only)
    if not headers_only:
        check_labels(findings, lists, segments=train.get("task") != "cls")
    lines = _summary(lists, headers)
    for what, estimate, config in (("caching", _caching, train), ("inference", _inference, infer)):
        try:
            lines += estimate(findings, config, headers)
        except Exception as error:  # a network that asks for values, for instance
            lines.append(f"{what}: not estimated, this does not follow from shapes alone ({why(error)})")
    return lines


def _reading(infer: ConfigParser) -> list[Callable]:
    """The steps of inference that read and check a scan as it is."""
    steps = []
    for index, config in enumerate(infer["preprocessing"]["transforms"]):
        name = config["_target_"].rpartition(".")[2]
        if not (name in ("LoadImaged", "EnsureChannelFirstd") or name.startswith("Check")):
            break
        steps.append(infer.get_parsed_content(f"preprocessing#transforms#{index}"))
    return steps


def _with_own_checks(load: list[Callable], train: ConfigParser) -> list[Callable]:
    """Return the steps and those that a run does not have: of small labels, and of the anatomy in a CT."""
    if not any(type(step).__name__ == CT_STEP for step in load):
        return [*load, warn_of_small_labels]
    names = [name for key in ("labels", "regions") if isinstance(train.get(key), dict) for name in train.get(key)]
    return [*load, warn_of_small_labels, CheckAnatomyd(liver="liver" in names and set(names) <= {"liver", "tumour"})]


def _summary(lists: Lists, headers: dict[str, list[list[Header]]]) -> list[str]:
    lines = ["cases: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items())]
    for section, cases in lists.items():
        count = Counter(str(case["class"]) for case in cases if "class" in case)
        if count:
            lines.append(f"classes, {section}: " + ", ".join(f"{n} {name}" for name, n in sorted(count.items())))
    first = [found[0] for group in headers.values() for found in group]
    if first:
        shapes = np.array([header.shape for header in first])
        spacings = np.array([np.linalg.norm(header.affine[:3, :3], axis=0) for header in first])
        lines.append(f"voxels: {_range(shapes, '.0f')}; spacing in mm: {_range(spacings, '.3g')}")
    return lines


def _range(values: np.ndarray, form: str) -> str:
    pairs = [[format(v, form) for v in (low, high)] for low, high in zip(values.min(0), values.max(0))]
    return " x ".join(low if low == high else f"{low} to {high}" for low, high in pairs)


def _caching(findings: Findings, train: ConfigParser, headers: dict[str, list[list[Header]]]) -> list[str]:
    channels = len(train.get_parsed_content("modalities"))
    total, crops, counted = 0, set(), 0
    for section, key in {"training": "train#preprocessing", "validation": "validate#preprocessing"}.items():
        preprocessing = Preprocessing(train, key)
        for found in headers.get(section, []):
            total += cache_bytes(preprocessing(found[0], channels), preprocessing.index_bytes)
            counted += 1
            crops |= set(preprocessing.crops)
    if not counted:
        return []
    rate = float(train.get_parsed_content("cache_rate"))
    device = torch.device(train.get_parsed_content("cache_device"))
    line = f"caching {counted} cases for a training: {_about(crops)}{size(total * rate)} on {device.type}"
    _compare(
        findings, "caching", int(total * rate), device.type, bool(crops), "--cache_device cpu or a lower --cache_rate"
    )
    return [line + _left_out(crops)]


def _inference(findings: Findings, infer: ConfigParser, headers: dict[str, list[list[Header]]]) -> list[str]:
    cases = [found[0] for group in headers.values() for found in group]
    if not cases:
        return []
    channels = len(infer.get_parsed_content("modalities"))
    preprocessing = Preprocessing(infer, "preprocessing")
    device = torch.device(infer.get_parsed_content("device")).type
    inferer: Any = infer.get_parsed_content("inferer")
    network = infer.get_parsed_content("network_def")
    batch = (inferer.sw_batch_size, preprocessing(cases[0], channels).channels, *inferer.roi_size)
    out_channels, layers = network_memory(network, batch)
    copies = any(getattr(inferer, name, None) for name in ("keep", "empty", "num_classes"))
    most = [inference_memory(h, channels, preprocessing(h, channels), out_channels, layers, copies) for h in cases]
    largest = max(most, key=lambda memory: memory.of_main_memory(len(cases), "cpu"))
    crops = set(preprocessing.crops)
    needs = {"cpu": largest.of_main_memory(len(cases), device)}
    if device != "cpu":
        needs[device] = largest.of_gpu(len(cases))
    for where, need in needs.items():
        _compare(findings, "inference", need, where, bool(crops), "a machine with more, or smaller scans")
    parts = f"reading {size(largest.reading)}, windows {size(largest.computing)}, layers {size(largest.layers)}, "
    shown = " and ".join(f"{_about(crops)}{size(need)} on {where}" for where, need in needs.items())
    return [f"inference of the largest case: {shown} ({parts}way back {size(largest.finishing)}){_left_out(crops)}"]


def _about(crops: set[str]) -> str:
    return "at most about " if crops else "about "


def _left_out(crops: set[str]) -> str:
    return f"; less after {', '.join(sorted(crops))}" if crops else ""


def _compare(findings: Findings, what: str, need: int, device: str, at_most: bool, fix: str) -> None:
    """More than is free is worth a note; more than there is, and not only at most, is a failure."""
    memory: Memory | None = main_memory() if device == "cpu" else cuda_memory()
    if memory is None or need <= memory.free:
        return
    name = "main memory" if device == "cpu" else f"memory of {device}"
    text = f"about {size(need)}, but {size(memory.free)} of {size(memory.total)} {name} are free; {fix}"
    (findings.fail if need > memory.total and not at_most else findings.note)(what, text)
