"""Measure the training cases of a data set: grid, labels and intensities.

MONAI's ``DataAnalyzer`` is not used here. It resizes a label to its image by default, and it does not read cases of
several files or DICOM series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from tqdm import tqdm

from ..data import VolumeReader
from ..errors import InputError, root_cause
from ..tensors import affine_of, as_tensor
from ..transforms import CheckHounsfieldd, CheckLabeld

LARGEST_SAMPLE = 10_000  # foreground voxels of a case that the intensity statistics are computed from


class CaseFacts(NamedTuple):
    """Hold what planning needs to know of a case.

    Args:
        shape: number of voxels along x, y, z of RAS.
        spacing: voxel size in mm along x, y, z of RAS.
        orientation: axes of the file, such as ``"LPS"``.
        values: values of the label map, without 0.
        foreground: intensities of voxels with a label, ``(voxels, channels)``, at most 10,000 of them.
        zeros: share of voxels that are 0 in every channel.
        is_ct: whether the values can be Hounsfield units.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    values: tuple[int, ...]
    foreground: np.ndarray
    zeros: float
    is_ct: bool


def measure_cases(cases: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> list[CaseFacts]:
    """Read every case and return its facts.

    Args:
        cases: labelled cases, as :func:`common.data.load_cases` returns them.
        modalities: names of the channels.

    Raises:
        InputError: a case cannot be read, or no case has foreground.
    """
    load = Compose(
        [
            LoadImaged("image", reader=VolumeReader(modalities)),
            LoadImaged("label", reader=VolumeReader(["label"], allow_constant=True)),
            EnsureChannelFirstd(["image", "label"]),
            CheckLabeld("label", num_classes=254),
        ]
    )
    facts = [_facts_of(load, case) for case in tqdm(cases, desc="measure the training cases", disable=None)]
    if not any(fact.values for fact in facts):
        raise InputError(
            f"none of {len(facts)} training cases has a voxel with a label, such as {cases[0]['label']}; check the "
            "labels and the data list"
        )
    return facts


def _facts_of(load: Compose, case: Mapping[str, Any]) -> CaseFacts:
    try:
        data = load({"image": case["image"], "label": case["label"]})
    except RuntimeError as error:
        raise root_cause(error) from error
    image, label = as_tensor(data["image"]).float().numpy(), as_tensor(data["label"])[0].numpy().round().astype(int)
    affine = affine_of(data["image"])
    order = nib.io_orientation(affine)[:, 0].astype(int)  # axis of RAS of each axis of the file
    places = np.argsort(order)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    inside = image[:, label > 0].T
    if len(inside) > LARGEST_SAMPLE:
        inside = inside[np.random.default_rng(0).choice(len(inside), LARGEST_SAMPLE, replace=False)]
    try:
        CheckHounsfieldd("image")({"image": data["image"]})
        is_ct = True
    except InputError:
        is_ct = False
    return CaseFacts(
        shape=tuple(int(image.shape[1 + axis]) for axis in places),
        spacing=tuple(float(sizes[axis]) for axis in places),
        orientation="".join(nib.aff2axcodes(affine)),
        values=tuple(int(value) for value in np.unique(label) if value),
        foreground=inside,
        zeros=float((image == 0).all(0).mean()),
        is_ct=is_ct,
    )
