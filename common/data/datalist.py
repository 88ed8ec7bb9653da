"""Data lists (``dataset.json``) of known public layouts, with cross-validation folds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import whole_file
from .cases import images_of_case, is_scan, modality_of, split_by_fold, stem

LABEL_WORDS = ("seg", "label", "mask", "gt", "gtv", "roi")
BRATS_LABEL_WORDS = ("seg", "segm", "ot")  # segm: BraTS20_Training_355/W39_1998.09.19_Segm.nii; ot: BraTS 2015

# Names of scans that end in the number of the patient's time point; what is before it is the patient.
TIME_POINT = re.compile(r"(brats1[789]_\w+|brats_\w+_pat\d+|brats-\w+-\d+)[_-]\d+", re.IGNORECASE)


def write_datalist(
    layout: str,
    root: str | Path,
    out: str | Path,
    modalities: Sequence[str] = (),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
) -> dict[str, list[dict]]:
    """List the labelled cases of a folder, deal them into folds, and write the split of one fold.

    Every case keeps its fold, so that ``--fold`` of a training can take any other split from the same file. The cases
    of a patient, where names tell the patient, stay together. Where a layout tells what the values of the labels mean,
    each case says so as ``label_code``.

    Args:
        layout: ``"nnunet"``, also the Medical Segmentation Decathlon's: ``imagesTr`` (a file per case, or
            ``CASE_0000``, ``CASE_0001``, ... per channel), ``labelsTr``; or ``"folders"``: a folder per case
            with its images and a label whose name has one of the words seg, label, mask, gt, gtv, roi. Gliomas:
            ``"brats2015"``, ``"brats2018"``, ``"brats2020"`` (their neighbours too: 2013 to 2016, 2017 to 2019, 2021),
            ``"brats2023"``: a folder per case, at any depth; ``"msd_task01"``: the Decathlon's brain tumours.
        root: the folder.
        out: the data list; ``dataset_dir`` of the bundles is its folder.
        modalities: names of the channels in the network's order, where a case has several.
        folds: number of folds, by patient.
        fold: the fold to test on; a quarter of the other patients is for validation.
        seed: of the random order in which patients are dealt into folds.

    Returns:
        the lists ``training``, ``validation`` and ``test``.

    Raises:
        InputError: an unknown layout, no labelled cases, fewer patients than folds, a case without an image or
            modality, labels of another code than the layout's.
    """
    root, out = Path(root), Path(out)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout}: expected one of {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise InputError(f"--root {root}: no such folder")
    if out.exists() and out.resolve() == (root / "dataset.json").resolve() and "fold" not in out.read_text():
        raise InputError(f"--out {out} is the data set's own description; write the list elsewhere")
    modalities = tuple(modality_of(name)[0] or name for name in modalities)
    cases = LAYOUTS[layout](root, modalities)
    patients: dict[object, list[dict]] = {}
    for index, case in enumerate(cases):
        patients.setdefault(case.get("patient", index), []).append(case)
    if not (2 <= folds <= len(patients) and 0 <= fold < folds):
        raise InputError(
            f"{len(cases)} labelled cases in {root}, of {len(patients)} patients, --folds {folds}, --fold {fold}: "
            "expected at least 2 folds, no more than patients, and fold 0 to folds - 1"
        )
    groups = list(patients.values())
    for position, index in enumerate(np.random.default_rng(seed).permutation(len(groups))):
        for case in groups[index]:
            case.update(fold=position % folds, order=position)
            for key in ("image", "label"):
                value = case[key]
                case[key] = _relative(value, out) if isinstance(value, str) else [_relative(v, out) for v in value]
    lists = split_by_fold(out.parent, {"training": cases}, fold)
    content = {"modality": {str(i): name for i, name in enumerate(modalities)}} if modalities else {}
    with whole_file(out) as partial:
        partial.write_text(json.dumps({**content, **lists}, indent=1) + "\n")
    return lists


def _nnunet(root: Path, modalities: Sequence[str]) -> list[dict]:
    labels = sorted(p for p in (root / "labelsTr").glob("*") if is_scan(p))
    if not labels:
        raise InputError(f"{root / 'labelsTr'}: no label files; layout nnunet has imagesTr and labelsTr")
    order = _channel_order(root, modalities)
    by_case: dict[str, list[Path]] = {}
    for image in sorted(p for p in (root / "imagesTr").glob("*") if is_scan(p)):
        name = stem(image)
        by_case.setdefault(name[:-5] if name[-5:-4] == "_" and name[-4:].isdigit() else name, []).append(image)
    cases = []
    for label in labels:
        images = by_case.get(stem(label), [])
        if len(images) not in (1, max(len(modalities), 1)):
            raise InputError(
                f"{label}: {len(images)} images of it in {root / 'imagesTr'}, expected 1, or one for each of "
                "--modalities"
            )
        if len(images) == 1 and order != sorted(order):
            raise InputError(
                f"{images[0]}: its channels are not in the order {', '.join(modalities)}; reorder them in the files"
            )
        cases.append(
            {"image": str(images[0]) if len(images) == 1 else [str(images[i]) for i in order], "label": str(label)}
        )
    return cases


def _channel_order(root: Path, modalities: Sequence[str]) -> list[int]:
    """Which channel of the data set each modality is, from its own description where it has one."""
    description = root / "dataset.json"
    named = {}
    if description.exists():
        content = json.loads(description.read_text())
        named = content.get("channel_names", content.get("modality", {}))
    names = [modality_of(str(named[key]))[0] for key in sorted(named, key=int)]
    if len(modalities) < 2 or None in names or not names:
        return list(range(len(modalities)))
    missing = [m for m in modalities if m not in names]
    if missing:
        raise InputError(f"{description}: channels {', '.join(map(str, named.values()))}, without {', '.join(missing)}")
    return [names.index(m) for m in modalities]


def _folders(root: Path, modalities: Sequence[str]) -> list[dict]:
    cases = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in folder.iterdir() if is_scan(p))
        labels = [
            f
            for f in files
            if any(word in stem(f).lower().split("_") for word in LABEL_WORDS) or stem(f).lower() in LABEL_WORDS
        ]
        if len(labels) != 1:
            raise InputError(
                f"{folder}: {len(labels)} label files, expected one whose name has a word of {', '.join(LABEL_WORDS)}"
            )
        images = images_of_case([f for f in files if f not in labels], modalities, str(folder))
        cases.append({"image": images, "label": str(labels[0])})
    if not cases:
        raise InputError(f"{root}: no folders; layout folders has one per case")
    return cases


def _brats(root: Path, modalities: Sequence[str], code: str) -> list[dict]:
    folders: dict[Path, list[Path]] = {}
    for file in sorted(p for p in root.rglob("*") if is_scan(p)):
        folder = file.parent.parent if file.parent.name.startswith("VSD.") else file.parent  # 2015: one for each file
        folders.setdefault(folder, []).append(file)
    cases = []
    for folder, files in folders.items():
        labels = [f for f in files if set(re.split(r"[_.-]", stem(f).lower())) & set(BRATS_LABEL_WORDS)]
        if len(labels) != 1:
            found = ", ".join(f.name for f in (labels or files)[:6])
            raise InputError(
                f"{folder}: {len(labels)} label files (among {found}); expected a folder for each case with one label, "
                f"whose name has a word of {', '.join(BRATS_LABEL_WORDS)} (cases without labels do not belong there)"
            )
        images = images_of_case([f for f in files if f not in labels], modalities, str(folder))
        time_point = TIME_POINT.fullmatch(folder.name)
        patient = time_point[1] if time_point else folder.name
        cases.append(
            {"case": folder.name, "patient": patient, "image": images, "label": str(labels[0]), "label_code": code}
        )
    if not cases:
        raise InputError(f"{root}: no scans; BraTS has a folder for each case, possibly in HGG and LGG")
    names = [case["case"] for case in cases]
    for case, folder in zip(cases, folders):
        if names.count(folder.name) > 1:  # of 2013, HGG and LGG have the same numbers
            case["case"] = f"{folder.parent.name}_{folder.name}"
    return cases


def _decathlon_brain(root: Path, modalities: Sequence[str]) -> list[dict]:
    description = root / "dataset.json"
    named = json.loads(description.read_text()).get("labels", {}) if description.exists() else {}
    if not str(named.get("1", "edema")).lower().startswith(("edema", "oedema")):
        raise InputError(f"{description}: label 1 is {named['1']}, but oedema in msd_task01; this is another data set")
    return [{**case, "label_code": "msd_task01"} for case in _nnunet(root, modalities)]


def _relative(path: str, out: Path) -> str:
    return Path(os.path.relpath(Path(path).resolve(), out.parent.resolve())).as_posix()


LAYOUTS: dict[str, Callable[[Path, Sequence[str]], list[dict]]] = {
    "nnunet": _nnunet,
    "folders": _folders,
    "brats2015": partial(_brats, code="brats2015"),
    "brats2018": partial(_brats, code="brats"),
    "brats2020": partial(_brats, code="brats"),
    "brats2023": partial(_brats, code="brats2023"),
    "msd_task01": _decathlon_brain,
}
