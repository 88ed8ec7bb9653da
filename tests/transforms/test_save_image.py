"""Test masks with the names and colours of their labels in the header."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.volumes import read_volume
from common.transforms import AtomicSaveImaged
from common.transforms.colour_files import ITK_SNAP, SLICER

AFFINE = np.diag([-2.0, -2, 5, 1])


def saved(folder: Path, **options: object) -> dict:
    mask = torch.zeros(1, 4, 3, 2)
    mask[0, :2, 0, 0], mask[0, 3] = 1, 4
    meta = {
        "affine": torch.tensor(AFFINE), "original_affine": AFFINE, "spatial_shape": np.array([4, 3, 2]),
        "filename_or_obj": "P1.nii.gz",
    }  # fmt: skip
    return AtomicSaveImaged("pred", folder, **options)({"pred": MetaTensor(mask, meta=meta)})


def table(path: Path) -> list[dict[str, str]]:
    (extension,) = nib.load(path).header.extensions
    text = extension.get_content()
    root = ElementTree.fromstring(text.rstrip(b"\0") if isinstance(text, bytes) else text)
    return [{**label.attrib, "name": label.text or ""} for label in root.iter("Label")]


def test_mask_names_its_labels_in_colours(tmp_path: Path) -> None:
    data = saved(tmp_path, labels={"liver": 1, "tumour <5 mm & more": 4})
    labels = table(tmp_path / "P1_seg.nii.gz")
    assert [(label["Key"], label["name"]) for label in labels] == [("1", "liver"), ("4", "tumour <5 mm & more")]
    assert len({(label["Red"], label["Green"], label["Blue"]) for label in labels}) == 2
    assert data["volumes_ml"] == {"liver": 0.04, "tumour <5 mm & more": 0.12}


def test_values_may_differ_from_the_labels(tmp_path: Path) -> None:
    data = saved(tmp_path, labels={"liver": 1, "tumour": 2}, values=[1, 4])
    assert [label["Key"] for label in table(tmp_path / "P1_seg.nii.gz")] == ["1", "4"]
    assert data["volumes_ml"]["tumour"] == 0.12


def test_names_leave_the_voxels_as_they_are(tmp_path: Path) -> None:
    saved(tmp_path / "named", labels={"liver": 1, "tumour": 4})
    assert "volumes_ml" not in saved(tmp_path / "plain")
    (named, there), (plain, place) = (read_volume(tmp_path / name / "P1_seg.nii.gz") for name in ("named", "plain"))
    np.testing.assert_array_equal(named, plain)
    np.testing.assert_array_equal(there, place)
    assert not nib.load(tmp_path / "plain" / "P1_seg.nii.gz").header.extensions


def test_viewers_get_names_and_colours_of_the_labels(tmp_path: Path) -> None:
    saved(tmp_path, labels={"liver": 1, "tumour of the liver": 4})
    itk_snap, slicer = ((tmp_path / name).read_text().splitlines() for name in (ITK_SNAP, SLICER))
    assert itk_snap[-2:] == ['1 230 159 0 1 1 1 "liver"', '4 86 180 233 1 1 1 "tumour of the liver"']
    assert slicer[-2:] == ["1 liver 230 159 0 255", "4 tumour_of_the_liver 86 180 233 255"]


def test_colours_that_a_user_changed_stay(tmp_path: Path) -> None:
    (tmp_path / SLICER).write_text("1 liver 9 9 9 255\n")
    saved(tmp_path, labels={"liver": 1})
    assert (tmp_path / SLICER).read_text() == "1 liver 9 9 9 255\n"
    assert not (saved(tmp_path / "plain") and (tmp_path / "plain" / ITK_SNAP).exists())


def test_colours_of_other_labels_get_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, labels={"liver": 1, "tumour of the liver": 2})
    (tmp_path / SLICER).write_text((tmp_path / SLICER).read_text().replace("230 159", "9 9"))
    saved(tmp_path, labels={"tumour of the liver": 2})
    assert not caplog.messages
    saved(tmp_path, labels={"lesion": 1})
    assert [message.partition(":")[0] for message in caplog.messages] == [str(tmp_path / f) for f in (ITK_SNAP, SLICER)]
