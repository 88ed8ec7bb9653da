"""Find the cases of data sets in known layouts, with their patient, class and label code."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json
from ..label_names import names_by_values
from .folders import entries, images_of_case, scans_below, scans_in, warn_of_unused
from .names import MODALITY_NAMES, first_names, modality_of, named_channels, stem, words

logger = logging.getLogger(__name__)

LABEL_WORDS = ("seg", "label", "mask", "gt", "gtv", "roi")
BRATS_LABEL_WORDS = ("seg", "segm", "ot")  # segm: BraTS20_Training_355/W39_1998.09.19_Segm.nii; ot: BraTS 2015
COVID = "COVID-19"  # class

# Names of scans that end in the number of a time point; group 1 is the patient.
TIME_POINT = re.compile(r"(brats1[789]_\w+|brats_\w+_pat\d+|brats-\w+-\d+)[_-]\d+", re.IGNORECASE)


def _nnunet(root: Path, modalities: Sequence[str]) -> list[dict]:
    labels = _scans(root / "labelsTr")
    if not labels:
        raise InputError(f"{root / 'labelsTr'}: no label files; layout nnunet has imagesTr and labelsTr")
    order, described = _channel_order(root, modalities)
    names = {stem(label) for label in labels}
    whole: dict[str, list[Path]] = {}  # a number at the end may belong to the case's name
    channels: dict[str, dict[int, Path]] = {}
    for image in _scans(root / "imagesTr"):
        name = stem(image)
        if name not in names and re.search(r"_\d{4}$", name):
            channels.setdefault(name[:-5], {})[int(name[-4:])] = image
        else:
            whole.setdefault(name, []).append(image)
    cases = []
    for label in labels:
        name = stem(label)
        images, numbered = whole.get(name, []), channels.get(name, {})
        if not images and set(order) <= set(numbered) and max(numbered) < (described or len(order)):
            images = [numbered[number] for number in order]
        elif not images and len(numbered) == 1 and not (described and len(order) == 1):
            images = list(numbered.values())
        elif len(images) != 1 or numbered:
            found = ", ".join(path.name for path in (*images, *numbered.values())) or "none"
            raise InputError(
                f"{label}: found images {found} in {root / 'imagesTr'}; expected one, or one for each of "
                f"{'the channels in dataset.json' if described else '--modalities'}"
            )
        if len(images) == 1 and order != sorted(order):
            raise InputError(
                f"{images[0]}: its channels do not have the order {', '.join(modalities)}; reorder them in the files"
            )
        paths = [str(path) for path in images]
        cases.append({"case": name, "image": paths[0] if len(paths) == 1 else paths, "label": str(label)})
    return cases


def _channel_order(root: Path, modalities: Sequence[str]) -> tuple[list[int], int]:
    """Return the channel index of each modality, and the number of channels that ``dataset.json`` names, or 0."""
    path, content = description_of(root)
    names = [modality_of(name)[0] or name for name in named_channels(path, content)]
    wanted = [name.lower() for name in modalities]
    known = [name.lower() for name in names]
    if wanted and set(wanted) <= set(known):
        return [known.index(name) for name in wanted], len(known)
    if len(wanted) > 1 and names and set(names) <= set(MODALITY_NAMES):
        missing = [name for name in modalities if name.lower() not in known]
        raise InputError(
            f"{path}: channels {', '.join(named_channels(path, content))}, expected {', '.join(missing)} too; correct "
            "--modalities"
        )
    return list(range(max(len(modalities), 1))), 0


def description_of(root: Path) -> tuple[Path, dict[str, Any]]:
    """Return the path and the content of the data set's own ``dataset.json``; empty if it has none.

    Raises:
        InputError: the file cannot be read, or does not hold an object.
    """
    path = root / "dataset.json"
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object that describes the data set, found {str(content)[:60]!r}")
    return path, content


def _scans(folder: Path) -> list[Path]:
    return scans_in(folder) if folder.is_dir() else []


def _scans_below(folder: Path) -> list[Path]:
    return scans_below(folder) if folder.is_dir() else []


def _folders(root: Path, modalities: Sequence[str]) -> list[dict]:
    cases, found_scans = [], []
    for folder in (path for path in entries(root) if path.is_dir()):
        files = scans_in(folder)
        labels = [file for file in files if set(words(stem(file))) & set(LABEL_WORDS)]
        if len(labels) != 1:
            found = ", ".join(file.name for file in (labels or files)[:6]) or "no scans"
            raise InputError(
                f"{folder}: {len(labels)} label files among {found}; expected one, named with one of the words "
                f"{', '.join(LABEL_WORDS)} between _ - . or blanks"
            )
        scans = [f for f in files if f not in labels]
        found_scans += scans
        images = images_of_case(scans, modalities, str(folder))
        cases.append({"case": folder.name, "image": images, "label": str(labels[0])})
    if not cases:
        raise InputError(f"{root}: no folders, expected one for each case")
    warn_of_unused(root, found_scans, [case["image"] for case in cases], modalities)
    return cases


def _brats(root: Path, modalities: Sequence[str], code: str) -> list[dict]:
    folders: dict[Path, list[Path]] = {}
    for file in scans_below(root):
        folder = (
            file.parent.parent if file.parent.name.startswith("VSD.") else file.parent
        )  # 2015: a folder for each file
        folders.setdefault(folder, []).append(file)
    cases, found_scans = [], []
    for folder, files in folders.items():
        labels = [f for f in files if set(words(stem(f))) & set(BRATS_LABEL_WORDS)]
        if len(labels) != 1:
            found = ", ".join(f.name for f in (labels or files)[:6])
            raise InputError(
                f"{folder}: {len(labels)} label files (among {found}); expected a folder for each case with one label, "
                f"named with the word {' or '.join(BRATS_LABEL_WORDS)}; move cases without labels to another folder"
            )
        scans = [f for f in files if f not in labels]
        found_scans += scans
        images = images_of_case(scans, modalities, str(folder))
        time_point = TIME_POINT.fullmatch(folder.name)
        patient = time_point[1] if time_point else folder.name
        name = folder.name
        if name.lower().startswith("brats_2013_") and folder.parent.name.upper() in ("HGG", "LGG"):
            name = f"{folder.parent.name}_{name}"  # both grades of 2013 have the same numbers
        cases.append({"case": name, "patient": patient, "image": images, "label": str(labels[0]), "label_code": code})
    if not cases:
        raise InputError(f"{root}: no scans; expected a folder for each case, possibly in HGG and LGG")
    warn_of_unused(root, found_scans, [case["image"] for case in cases], modalities)
    return cases


def _decathlon(root: Path, modalities: Sequence[str], layout: str, meanings: Mapping[str, Sequence[str]]) -> list[dict]:
    """Return the cases of a Decathlon data set; ``meanings`` maps each label value to possible words of its name."""
    path, content = description_of(root)
    labels = content.get("labels")
    named = names_by_values(labels)
    if labels and not named:
        raise InputError(f'{path}: labels is {labels!r}; expected names, such as {{"0": "background", "1": ...}}')
    for value, any_of in meanings.items():
        name = named.get((int(value),))
        if name is not None and not any(word in name.lower() for word in any_of):
            raise InputError(
                f"{path}: label {value} is {name}, expected {any_of[0]} in layout {layout}; choose the layout "
                "of this data set"
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
        raise InputError(f"{root}: no volume-N.nii and segmentation-N.nii (or .nii.gz) in this folder or below")
    return _pairs(root, volumes, "volume-N", segmentations, "segmentation-N")


def _mosmed(root: Path, modalities: Sequence[str]) -> list[dict]:
    masks = _numbered(root, r"study_(\d+)_mask")
    if not masks:
        raise InputError(f"{root}: no study_N_mask.nii.gz in this folder or below; expected studies and masks")
    studies = {n: path for n, path in _numbered(root, r"study_(\d+)").items() if n in masks}
    cases = _pairs(root, studies, "study_N", masks, "study_N_mask")
    return [{**case, "class": "normal" if "CT-0" in Path(case["image"]).parts else COVID} for case in cases]


def _covid_ct_seg(root: Path, modalities: Sequence[str]) -> list[dict]:
    folders = [root / "COVID-19-CT-Seg_20cases", root / "Infection_Mask"]
    scans, masks = (_numbered(folder, r"coronacases_(?:org_)?(\d+)") for folder in folders)
    if not scans and not masks:
        raise InputError(f"{root}: no coronacases_N.nii.gz in COVID-19-CT-Seg_20cases and in Infection_Mask")
    windowed = [path.name for path in _scans_below(folders[0]) if path.name.startswith("radiopaedia_")]
    if windowed:
        logger.warning("%s: ignored, because they are not in HU: %s", folders[0], first_names(sorted(windowed)))
    cases = _pairs(root, scans, "coronacases_N", masks, "Infection_Mask/coronacases_N")
    return [{**case, "class": COVID} for case in cases]


def _numbered(root: Path, pattern: str) -> dict[int, Path]:
    """Return the scans in a folder or below with names that match a pattern, by the number in the name."""
    found: dict[int, Path] = {}
    for file in _scans_below(root):
        match = re.fullmatch(pattern, stem(file).lower())
        if match:
            number = int(match[1])
            if number in found:
                raise InputError(
                    f"{found[number]} and {file}: two files with the same number; remove one of them from {root}"
                )
            found[number] = file
    return found


def _pairs(
    root: Path, images: Mapping[int, Path], image_name: str, labels: Mapping[int, Path], label_name: str
) -> list[dict]:
    for here, there, missing in ((images, labels, label_name), (labels, images, image_name)):
        alone = [file.name for number, file in here.items() if number not in there]
        if alone:
            raise InputError(f"{root}: no {missing} with the number of {first_names(alone)} in this folder or below")
    return [
        {"case": stem(image), "image": str(image), "label": str(labels[number])}
        for number, image in sorted(images.items())
    ]


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
