"""Test that all 48 orders and directions of axes give masks at the same places of the patient.

Sizes and spacings are three different ones, so that no two axes can be swapped unseen.
"""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, SaveImaged

from common.data import AtomicNibabelWriter, VolumeReader
from common.transforms import ResampleAxesd, ReturnToScand, WriteDicomSegd

ORDERS = [np.array([axes, signs]).T for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]
TURN = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
AFFINE = TURN @ np.array([[0.75, 0, 0, -30], [0, 1.25, 0, 12], [0, 0, 3, 7], [0, 0, 0, 1]])
SHAPE = (11, 9, 7)
MASK = np.zeros(SHAPE, bool)
MASK[2:5, 1:8, 3], MASK[3, 2, 4:6], MASK[0, 0, 0], MASK[6:, 5, -1] = True, True, True, True
VOLUME = np.where(MASK, 300, -np.arange(MASK.size).reshape(SHAPE)).astype(np.int16)

only_itk_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with


def in_order(axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the volume with its axes in an order, and its affine."""
    volume = nib.orientations.apply_orientation(VOLUME, axes).copy()
    return volume, AFFINE @ nib.orientations.inv_ornt_aff(axes, SHAPE)


def places(mask: np.ndarray, affine: np.ndarray) -> set[tuple[float, ...]]:
    """Return the positions of a mask's voxels in mm."""
    return set(map(tuple, np.round(nib.affines.apply_affine(affine, np.argwhere(mask)), 2).tolist()))


def write_itk(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    itk = pytest.importorskip("itk", reason="NRRD and MetaImage need itk")
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    to_lps = np.diag([-1.0, -1, 1, 1]) @ affine
    steps = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_lps[:3, :3] / steps)))
    itk.imwrite(image, str(path))


def mask_of(path: Path, *after: Any) -> dict[str, Any]:
    """Return the mask that inference writes with a network that finds the bright voxels on its own grid."""
    steps = [
        LoadImaged("image", reader=VolumeReader(["CT"])),
        EnsureChannelFirstd("image"),
        ResampleAxesd("image", "RAS"),
        lambda case: {**case, "case": "P1", "pred": (case["image"] > 200).float()},
        ReturnToScand("pred"),
        *after,
    ]
    return Compose(steps)({"image": path})


@only_itk_warns
@pytest.mark.parametrize(
    "suffix", [".nii", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".nrrd", ".mha"))]
)
def test_a_mask_lies_where_its_scan_does(suffix: str, tmp_path: Path) -> None:
    save = SaveImaged(
        "pred", output_dir=tmp_path / "out", output_postfix="seg", output_ext=".nii", output_dtype=np.uint8,
        resample=False, separate_folder=False, writer=AtomicNibabelWriter, print_log=False,
    )  # fmt: skip
    expected = places(MASK, AFFINE)
    for axes in ORDERS:
        volume, affine = in_order(axes)
        path = tmp_path / f"P1{suffix}"
        if suffix == ".nii":
            nib.save(nib.Nifti1Image(volume, affine), path)
        else:
            write_itk(path, volume, affine)
        mask_of(path, save)
        written = nib.load(tmp_path / "out" / "P1_seg.nii")
        assert written.shape == volume.shape
        np.testing.assert_allclose(written.affine, affine, atol=1e-4)
        assert places(np.asarray(written.dataobj) > 0, written.affine) == expected
        np.testing.assert_array_equal(np.asarray(written.dataobj), volume == 300)


@only_itk_warns
@pytest.mark.slow
def test_a_dicom_segmentation_lies_where_its_series_does(tmp_path: Path) -> None:
    """Slices are read along their normal, so that a mirrored order of them is the other way around."""
    pytest.importorskip("itk", reason="DICOM needs itk")
    pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")
    from ..dicom_series import voxels_of_segments, write_series

    about = {"name": "Bright", "version": "1.0", "authors": "Ada", "intended_use": "None"}
    (tmp_path / "metadata.json").write_text(json.dumps(about))
    codes = {"category": ["49755003", "SCT", "Morphologically Altered Structure"], "type": ["4147007", "SCT", "Mass"]}
    write = WriteDicomSegd("pred", tmp_path, {"bright": 1}, {"bright": codes}, tmp_path / "metadata.json")
    for number, axes in enumerate(ORDERS):
        volume, affine = in_order(axes)
        case = mask_of(write_series(tmp_path / f"series_{number}", volume, affine), write)
        mask = np.asarray(case["pred"])[0] > 0
        assert places(mask, case["pred"].affine.numpy()) == places(MASK, AFFINE)
        (found,) = voxels_of_segments(tmp_path / "P1_seg.dcm", affine)
        assert found == set(map(tuple, np.argwhere(volume == 300).tolist()))
