"""Write the data list of a study: one test set for every arm, and the same training and validation cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser

from common.data.datalist import write_datalist
from common.data.folds import TEST
from common.data.layouts import LAYOUTS
from common.data.listed_cases import all_items
from common.errors import InputError
from common.files import make_folder, read_json, write_own_json
from common.phantoms import write_cohort

from .study import Cases

FOLD = 0  # validates; the others train
SEED = 0  # of the cohort, and of the choice of the test cases


def write_cases(cases: Cases, out: Path, dataset_dir: Path | None) -> Path:
    """Write the data list of a study unless it is there, and return its folder.

    Args:
        cases: cases of the study.
        out: folder of the study.
        dataset_dir: folder of the real cases in the form of nnU-Net or of the Decathlon; None for phantoms.

    Raises:
        InputError: ``dataset_dir`` has too few cases, or cannot be read.
    """
    lists = out / "data"
    if (lists / "dataset.json").exists():
        return lists
    if dataset_dir is None:
        _write_phantoms(cases, out / "phantoms", lists)
    else:
        _write_real(cases, dataset_dir, lists)
    return lists


def _write_phantoms(cases: Cases, cohort: Path, lists: Path) -> None:
    write_cohort(ConfigParser(dict(cases.recipe or {})).get_parsed_content(), cohort, cases.number, SEED)
    listing = read_json(cohort / "dataset.json")
    entries = all_items(listing)
    for place, case in enumerate(entries):
        images = case["image"] if isinstance(case["image"], list) else [case["image"]]
        paths = [f"../{cohort.name}/{path}" for path in images]
        case["image"] = paths if isinstance(case["image"], list) else paths[0]
        case["label"] = f"../{cohort.name}/{case['label']}"
        case["order"] = place
        if place < cases.training:
            case["fold"] = FOLD + 1
        else:
            case["fold"] = FOLD if place < cases.training + cases.validation else TEST
    parts = {"training": entries, "validation": [], "test": []}
    make_folder(lists)
    write_own_json({key: listing[key] for key in ("name", "modality", "labels")} | parts, lists / "dataset.json")


def _write_real(cases: Cases, dataset_dir: Path, lists: Path) -> None:
    names = sorted(case["case"] for case in LAYOUTS["nnunet"](dataset_dir, cases.modalities))
    if len(names) < cases.number:
        raise InputError(
            f"--dataset_dir {dataset_dir}: {len(names)} labelled cases, but the study needs {cases.number}: "
            f"{cases.training} for training, {cases.validation} for validation and {cases.test} for the test"
        )
    order = np.random.default_rng(SEED).permutation(len(names))[: cases.test]
    test = ",".join(names[place] for place in sorted(order))
    folds = round((len(names) - cases.test) / cases.validation)
    write_datalist(
        "nnunet", dataset_dir, lists / "dataset.json", cases.modalities, folds=folds, fold=FOLD, seed=SEED, test=test
    )
