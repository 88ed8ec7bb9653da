"""Write a data list as a data set of nnU-Net v2, with the same folds.

F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18 (2021) 203-211. The layout is that of nnU-Net's page ``dataset_format.md``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import EnsureChannelFirstd, LoadImaged
from tqdm import tqdm

from .data import VolumeReader, load_cases
from .data.folds import SECTIONS, TEST, VALIDATION_SHARE
from .data.listed_cases import files_of, read_lists
from .data.nifti_writer import write_nifti
from .data.volumes import read_grid
from .errors import InputError
from .files import PARTIAL, make_folder
from .geometry import same_grid
from .label_names import BACKGROUND
from .labels import class_regions
from .tensors import as_tensor
from .transforms import CheckLabeld

FILE_ENDING = ".nii.gz"
FOLDER = re.compile(r"Dataset\d{3}_\w+")

Split = dict[str, list[str]]


def write_nnunet(
    dataset_dir: str | Path,
    out: str | Path,
    modalities: Sequence[str],
    labels: Mapping[str, int],
    label_map: Any = (),
    regions: Mapping[str, Sequence] | None = None,
    validation_share: float = VALIDATION_SHARE,
) -> tuple[int, list[Split]]:
    """Write the cases of a data list as nnU-Net's ``imagesTr``, ``labelsTr``, ``dataset.json`` and splits.

    ``splits_final.json`` has a split for each fold of the list, or one for a list without folds: under ``train`` the
    training cases of the fold, under ``val`` its test cases. nnU-Net evaluates ``val`` after the training and does not
    choose weights by it. The validation cases of the fold are in neither.

    A fixed test set goes to ``imagesTs`` and ``labelsTs``, which nnU-Net neither plans nor trains with. Then ``val``
    has the cases of the fold and ``train`` those of the other folds.

    The value of a label becomes its position in ``labels``, from 1, because nnU-Net expects consecutive values. Images
    are links where each channel is a ``.nii.gz`` file on one grid, or copies where the system has no links; else they
    are written as float32.

    Args:
        dataset_dir: folder of ``dataset.json`` as ``datalist`` writes it.
        out: new folder ``DatasetNNN_NAME`` in nnU-Net's ``nnUNet_raw``.
        modalities: names of the channels in order. nnU-Net normalises a channel ``CT`` as CT, others as MRI.
        labels: mapping from names to values.
        label_map: as for :func:`common.labels.read_label_map`.
        regions: mapping from names to lists of labels; nnU-Net then trains on regions.
        validation_share: fraction of the patients outside a fold that are held out, as in a training; 0 for none.
            With a fixed test set, any other value has no effect.

    Returns:
        number of cases, those of a fixed test set included, and the splits.

    Raises:
        InputError: ``out`` has another form or holds files, a case or label cannot be used, a case has a label code,
            the folds are not numbered from 0, or nnU-Net cannot train on the regions.
    """
    out = Path(out)
    if not FOLDER.fullmatch(out.name):
        raise InputError(
            f"--out {out}: nnU-Net expects a name DatasetNNN_NAME with three digits, such as Dataset501_Liver"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: already exists and is not overwritten; remove it, or choose another number")
    named, order = label_values(labels, regions)
    cases, tested, splits = _cases_and_splits(Path(dataset_dir), modalities, validation_share)
    steps = [
        LoadImaged("image", reader=VolumeReader(channels=modalities)),
        LoadImaged("label", reader=VolumeReader(channels=["label"], allow_constant=True)),
        EnsureChannelFirstd(["image", "label"]),
        CheckLabeld("label", labels=labels, label_map=label_map, dataset_dir=dataset_dir),
    ]
    description: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(modalities)},
        "labels": named,
        "numTraining": len(cases) - len(tested),
        "file_ending": FILE_ENDING,
    }
    if order:
        description["regions_class_order"] = order
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        for case in tqdm(cases, desc="write cases", disable=None):
            data: Any = case
            for step in steps:  # MONAI's Compose would hide the errors
                data = step(data)
            _write_case(case, data, folder, "Ts" if case["case"] in tested else "Tr")
        for name, content in (("dataset.json", description), ("splits_final.json", splits)):
            (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(folder, out)
    return len(cases), splits


def label_values(
    labels: Mapping[str, int], regions: Mapping[str, Sequence] | None = None
) -> tuple[dict[str, Any], list[int] | None]:
    """Return ``labels`` and ``regions_class_order`` of nnU-Net's ``dataset.json``.

    nnU-Net decides regions one after the other: a voxel in region i of the list gets the i-th value of the order, and
    later regions overwrite earlier ones. So the regions are sorted from large to small, and the value of each is the
    label that no later region has.

    Args:
        labels: mapping from names to values; the class of a label is its position, from 1.
        regions: mapping from names to lists of labels, or None.

    Returns:
        value or values by name with the background first, and the order; None without regions of several labels.

    Raises:
        InputError: a label is in no region, or a region has not exactly one label that no smaller region has.
    """
    classes = class_regions(labels, regions)
    order = sorted(classes, key=lambda region: -len(classes[region]))  # stable
    own: dict[str, int] = {}
    for number, label in enumerate(labels, start=1):
        last = next((region for region in reversed(order) if number in classes[region]), None)
        if last is None or last in own:
            found = f"is in none of {', '.join(order)}" if last is None else f"is not alone in the rest of {last}"
            raise InputError(
                f"regions: label {label} {found}; nnU-Net needs nested regions, each with one label more than the next "
                "smaller one; give an overlay with other regions, or with none"
            )
        own[last] = number
    if extra := [region for region in order if region not in own]:
        raise InputError(f"regions: {extra[0]} has no label of its own; nnU-Net cannot train on it; leave it out")
    # earlier versions of nnU-Net leave a list of one value out of their heads
    values = {region: classes[region] if len(classes[region]) > 1 else classes[region][0] for region in order}
    several = any(isinstance(value, list) for value in values.values())
    return {BACKGROUND: 0, **values}, [own[region] for region in order] if several else None


def _cases_and_splits(
    dataset_dir: Path, modalities: Sequence[str], validation_share: float
) -> tuple[list[dict], set[str], list[Split]]:
    """Return all cases of a list, the names of those of a fixed test set, and the splits of the others."""
    listing = read_lists(dataset_dir, modalities, None, validation_share)
    listed = [section for section in SECTIONS if listing.get(section)]
    cases = [case for section in listed for case in load_cases(dataset_dir, section, modalities)]
    if coded := [case["case"] for case in cases if "label_code" in case]:
        raise InputError(
            f"{dataset_dir / 'dataset.json'}: {coded[0]} has a label_code, which gives its values another meaning; "
            "write its labels with the values of `labels`, and list them with layout nnunet or folders"
        )
    tested = {case["case"] for case in cases if case.get("fold") == TEST}
    found = {case.get("fold") for case in cases if case["case"] not in tested}
    folds: list[int | None] = [None]
    if found != {None}:
        if found != set(range(len(found))):
            raise InputError(
                f"{dataset_dir / 'dataset.json'}: folds {sorted(map(str, found))}, expected 0, 1, 2 and so on for all "
                "cases; write the list with `python -m common datalist ... --folds 5`"
            )
        folds = list(range(len(found)))
    sections = {"train": "training", "val": "validation" if tested else "test"}
    share = VALIDATION_SHARE if tested else validation_share  # 0 would put the cases of a fold into its training
    splits = []
    for fold in folds:
        lists = {key: load_cases(dataset_dir, section, modalities, fold, share) for key, section in sections.items()}
        splits.append({key: [case["case"] for case in listed] for key, listed in lists.items()})
    return cases, tested, splits


def _write_case(case: Mapping[str, Any], data: Mapping[str, Any], folder: Path, part: str) -> None:
    """Write a case to the folders of the training, with ``part`` "Tr", or of the test, with "Ts"."""
    image, label = data["image"], as_tensor(data["label"])[0].cpu().numpy().astype(np.uint8)
    affine = np.asarray(image.affine, np.float64)
    *files, _ = files_of(case)
    for place in ("images", "labels"):
        make_folder(folder / f"{place}{part}")
    write_nifti(folder / f"labels{part}" / f"{case['case']}{FILE_ENDING}", nib.Nifti1Image(label, affine), affine)
    can_link = len(files) == len(image) and all(_is_on_grid(file, label.shape, affine) for file in files)
    for number, channel in enumerate(as_tensor(image).cpu().numpy()):
        path = folder / f"images{part}" / f"{case['case']}_{number:04d}{FILE_ENDING}"
        if can_link:
            _link(files[number], path)
        else:
            write_nifti(path, nib.Nifti1Image(channel.astype(np.float32), affine), affine)


def _is_on_grid(file: Path, shape: Sequence[int], affine: np.ndarray) -> bool:
    if not (file.is_file() and file.name.endswith(FILE_ENDING)):
        return False
    own_shape, own_affine = read_grid(file)
    return tuple(own_shape) == tuple(shape) and same_grid(own_shape, own_affine, shape, affine)


def _link(file: Path, path: Path) -> None:
    try:
        path.symlink_to(file.resolve())
    except OSError:  # such as Windows without the right to make links
        shutil.copyfile(file, path)
