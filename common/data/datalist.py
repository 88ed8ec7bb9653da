"""Data lists (``dataset.json``) of known public layouts, with cross-validation folds."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import whole_file
from ..labels import names_in_list
from .cases import case_name, images_of_case, is_scan, modality_of, split_by_fold, stem

logger = logging.getLogger(__name__)

LABEL_WORDS = ("seg", "label", "mask", "gt", "gtv", "roi")
BRATS_LABEL_WORDS = ("seg", "segm", "ot")  # segm: BraTS20_Training_355/W39_1998.09.19_Segm.nii; ot: BraTS 2015
COVID = "COVID-19"  # class

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
    classes: str | Path | None = None,
) -> dict[str, list[dict]]:
    """List the labelled cases of a folder, deal them into folds, and write the split of one fold.

    Every case keeps its fold, so that ``--fold`` of a training can take any other split from the same file. The cases
    of a patient, where names or ``classes`` tell the patient, stay together. Where cases have a class, each fold, and
    the validation of each, gets its share of every class. Where a layout tells what the values of the labels mean, each
    case says so as ``label_code``.

    Args:
        layout: ``"nnunet"``, also the Medical Segmentation Decathlon's: ``imagesTr`` (a file per case, or
            ``CASE_0000``, ``CASE_0001``, ... per channel), ``labelsTr``; or ``"folders"``: a folder per case
            with its images and a label whose name has one of the words seg, label, mask, gt, gtv, roi. Gliomas:
            ``"brats2015"``, ``"brats2018"``, ``"brats2020"`` (their neighbours too: 2013 to 2016, 2017 to 2019, 2021),
            ``"brats2023"``: a folder per case, at any depth; ``"msd_task01"``: the Decathlon's brain tumours. Livers:
            ``"lits"``: ``volume-N`` and ``segmentation-N``, at any depth; ``"msd_task03"``: the Decathlon's. Lungs:
            ``"mosmed"``: MosMedData's ``studies/CT-?/study_N`` that have a ``masks/study_N_mask``, 50 of CT-1, of class
            COVID-19; one of CT-0 for which an empty mask was put there is normal. ``"covid_ct_seg"``: the ten scans
            ``coronacases_N`` of ``COVID-19-CT-Seg_20cases`` with their ``Infection_Mask``, all COVID-19; the other ten
            are not in HU. Both have masks of lesions to train a segmentation, and neither has other pneumonia: to tell
            COVID-19 from it they cannot train.
        root: the folder.
        out: the data list; ``dataset_dir`` of the bundles is its folder.
        modalities: names of the channels in the network's order, where a case has several.
        folds: number of folds, by patient.
        fold: the fold to test on; a quarter of the other patients is for validation.
        seed: of the random order in which patients are dealt into folds.
        classes: table of the cases' classes, see :func:`read_case_classes`; each case gets its ``class``, and its
            ``patient`` where the table has one.

    Returns:
        the lists ``training``, ``validation`` and ``test``.

    Raises:
        InputError: an unknown layout, no labelled cases, fewer patients than folds, a case without an image, a label or
            a modality, labels of another code than the layout's, a table of other cases than these.
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
    if classes is not None:
        _add_classes(cases, Path(classes), root, modalities)
    patients: dict[object, list[dict]] = {}
    for index, case in enumerate(cases):
        patients.setdefault(case.get("patient", index), []).append(case)
    if not (2 <= folds <= len(patients) and 0 <= fold < folds):
        raise InputError(
            f"{len(cases)} labelled cases in {root}, of {len(patients)} patients, --folds {folds}, --fold {fold}: "
            "expected at least 2 folds, no more than patients, and fold 0 to folds - 1"
        )
    groups = list(patients.values())
    shuffled = [groups[index] for index in np.random.default_rng(seed).permutation(len(groups))]
    for position, group in enumerate(sorted(shuffled, key=_classes_of)):  # class by class, each in random order
        for case in group:
            case.update(fold=position % folds, order=position)
            for key in ("image", "label"):
                value = case[key]
                case[key] = _relative(value, out) if isinstance(value, str) else [_relative(v, out) for v in value]
    lists = split_by_fold(out.parent, {"training": cases}, fold)
    content = {"modality": {str(i): name for i, name in enumerate(modalities)}} if modalities else {}
    named = names_in_list(root)  # which a training compares with its own; with a code, a case says them itself
    if named and not any("label_code" in case for case in cases):
        content["labels"] = {str(value): name for value, name in named.items()}
    with whole_file(out) as partial:
        partial.write_text(json.dumps({**content, **lists}, indent=1) + "\n")
    return lists


def read_case_classes(path: str | Path) -> dict[str, dict]:
    """The classes of cases from a CSV file with the columns ``case``, ``class`` and, if any, ``patient``.

    Args:
        path: a row for each case, under the name that the case has in results: its file without the ending, or its
            folder. A class is a name, or its number from 0.

    Returns:
        for each case ``class`` and, where the row has one, ``patient``.

    Raises:
        InputError: no such file, no such columns, a row without a case or class, a case twice.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"--classes {path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin it with a byte order mark
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [{key: (row[key] or "").strip() for key in columns} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not {"case", "class"} <= set(columns):
        raise InputError(
            f"{path}: columns {', '.join(columns) or 'none'}, expected case, class and, if known, patient, "
            "separated by commas"
        )
    known: dict[str, dict] = {}
    for number, row in enumerate(rows, start=1):
        name, value = row["case"], row["class"]
        if not name or not value:
            raise InputError(f"{path}: row {number} has no {'class' if name else 'case'}")
        if name in known:
            raise InputError(f"{path}: {name} stands there twice; leave one row for each case")
        known[name] = {"class": int(value) if value.isdecimal() else value}
        if row.get("patient"):
            known[name]["patient"] = row["patient"]
    return known


def _add_classes(cases: list[dict], path: Path, root: Path, modalities: Sequence[str]) -> None:
    known = read_case_classes(path)
    names = []
    for case in cases:
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        names.append(case.get("case") or case_name(images, modalities))
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"{path}: no row for {_some(missing)}, labelled cases in {root}; add their classes")
    unknown = [name for name in known if name not in names]
    if unknown:
        raise InputError(
            f"{path}: rows for {_some(unknown)}, but no such labelled case in {root}, whose cases are {_some(names)}; "
            "mend the names or leave these rows out"
        )
    for case, name in zip(cases, names):
        case.update(known[name])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _classes_of(cases: Sequence[Mapping]) -> list[str]:
    """Of a patient's cases; without classes, patients are all alike."""
    return sorted({str(case["class"]) for case in cases if "class" in case})


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
        cases.append({"case": folder.name, "image": images, "label": str(labels[0])})
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


def _decathlon(root: Path, modalities: Sequence[str], layout: str, words: Mapping[str, Sequence[str]]) -> list[dict]:
    """``words``: for values of the label, what their names have to have in them."""
    description = root / "dataset.json"
    named = json.loads(description.read_text()).get("labels", {}) if description.exists() else {}
    for value, any_of in words.items():
        if value in named and not any(word in str(named[value]).lower() for word in any_of):
            raise InputError(
                f"{description}: label {value} is {named[value]}, but {any_of[0]} in {layout}; this is another data set"
            )
    return _nnunet(root, modalities)


def _decathlon_brain(root: Path, modalities: Sequence[str]) -> list[dict]:
    cases = _decathlon(root, modalities, "msd_task01", {"1": ("oedema", "edema")})
    return [{**case, "label_code": "msd_task01"} for case in cases]


def _decathlon_liver(root: Path, modalities: Sequence[str]) -> list[dict]:
    return _decathlon(root, modalities, "msd_task03", {"1": ("liver",), "2": ("tumour", "tumor", "cancer")})


def _lits(root: Path, modalities: Sequence[str]) -> list[dict]:
    volumes, segmentations = (_numbered(root, rf"{kind}-(\d+)") for kind in ("volume", "segmentation"))
    if not volumes and not segmentations:
        raise InputError(f"{root}: no volume-N.nii and segmentation-N.nii (or .nii.gz), in it or below")
    return _pairs(root, volumes, "volume-N", segmentations, "segmentation-N")


def _mosmed(root: Path, modalities: Sequence[str]) -> list[dict]:
    masks = _numbered(root, r"study_(\d+)_mask")
    if not masks:
        raise InputError(f"{root}: no study_N_mask.nii.gz in it or below; layout mosmed has studies and masks")
    studies = {n: path for n, path in _numbered(root, r"study_(\d+)").items() if n in masks}
    cases = _pairs(root, studies, "study_N", masks, "study_N_mask")
    return [{**case, "class": "normal" if "CT-0" in Path(case["image"]).parts else COVID} for case in cases]


def _covid_ct_seg(root: Path, modalities: Sequence[str]) -> list[dict]:
    folders = [root / "COVID-19-CT-Seg_20cases", root / "Infection_Mask"]
    scans, masks = (_numbered(folder, r"coronacases_(?:org_)?(\d+)") for folder in folders)
    if not scans and not masks:
        raise InputError(f"{root}: no coronacases_N.nii.gz in COVID-19-CT-Seg_20cases and in Infection_Mask")
    windowed = [path.name for path in folders[0].rglob("radiopaedia_*") if is_scan(path)]
    if windowed:
        logger.warning("%s: left out, since they are not in HU: %s", folders[0], _some(sorted(windowed)))
    cases = _pairs(root, scans, "coronacases_N", masks, "Infection_Mask/coronacases_N")
    return [{**case, "class": COVID} for case in cases]


def _numbered(root: Path, pattern: str) -> dict[int, Path]:
    """The scans of a folder and below whose whole name, in lower case, is of a pattern with a number."""
    found: dict[int, Path] = {}
    for file in sorted(p for p in root.rglob("*") if is_scan(p)):
        match = re.fullmatch(pattern, stem(file).lower())
        if match:
            number = int(match[1])
            if number in found:
                raise InputError(f"{found[number]} and {file}: two files of one name; leave one of them in {root}")
            found[number] = file
    return found


def _pairs(
    root: Path, images: Mapping[int, Path], image_name: str, labels: Mapping[int, Path], label_name: str
) -> list[dict]:
    for here, there, missing in ((images, labels, label_name), (labels, images, image_name)):
        alone = [file.name for number, file in here.items() if number not in there]
        if alone:
            raise InputError(f"{root}: no {missing} of the same number in it or below for {_some(alone)}")
    return [{"image": str(image), "label": str(labels[number])} for number, image in sorted(images.items())]


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
    "msd_task03": _decathlon_liver,
    "lits": _lits,
    "mosmed": _mosmed,
    "covid_ct_seg": _covid_ct_seg,
}
