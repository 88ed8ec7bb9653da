"""Test that slices and series of different scans or patients are never joined to one volume or case in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.dicom_choice import dicom_modality
from common.data.volume_reader import VolumeReader
from common.data.volumes import read_volume
from common.errors import InputError

pytest.importorskip("itk", reason="DICOM needs itk")
write_series = pytest.importorskip("tests.dicom_series", reason="DICOM needs pydicom").write_series
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)
AFFINE = np.array([[-0.7, 0, 0, 50], [0, -0.7, 0, 60], [0, 0, 3.0, -70], [0, 0, 0, 1]])


def entries(**values: Any) -> Callable[[Any, int], None]:
    """Return a change of a header: each value, or function slice -> value, replaces the element of its name."""

    def change(header: Any, k: int) -> None:
        for name, value in values.items():
            setattr(header, name, value(k) if callable(value) else value)

    return change


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("PatientID", lambda k: f"P{k // 4}", "P1 in IM001 and P0 in IM005"),
        ("StudyInstanceUID", lambda k: f"1.2.{k // 4}", "1.2.1 in IM001 and 1.2.0 in IM005"),
        ("FrameOfReferenceUID", lambda k: f"1.2.{k // 4}", "1.2.1 in IM001 and 1.2.0 in IM005"),
        ("Modality", lambda k: ("CT", "MR")[k // 4], "MR in IM001 and CT in IM005"),
    ],
)
def test_slices_of_two_scans_with_one_uid_are_refused(tmp_path: Path, name: str, value: Any, shown: str) -> None:
    series = write_series(tmp_path / "S", VOLUME, AFFINE, entries(**{name: value}))
    with pytest.raises(
        InputError, match=f"S: 2 different {name} in its 8 slices .{shown}., expected 1; put the slices"
    ):
        read_volume(series)


@pytest.mark.parametrize(("modality", "what"), [("SEG", "a segmentation"), ("RTDOSE", "a dose")])
def test_pixels_that_are_no_scan_are_refused(tmp_path: Path, modality: str, what: str) -> None:
    series = write_series(tmp_path / "S", VOLUME, AFFINE, entries(Modality=modality))
    with pytest.raises(InputError, match=rf"IM001: {what} \(Modality {modality}\), expected a scan"):
        read_volume(series)


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    series = write_series(tmp_path / "S", VOLUME, AFFINE)
    for path in list(series.iterdir()):
        path.with_suffix(".dcm").write_bytes(path.read_bytes()[132:])
        path.unlink()
    array, affine = read_volume(series)
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)


def modalities(folder: Path, **values: Any) -> list[Path]:
    """Write two series, each with its own one of the two values of each element."""
    values = {"StudyInstanceUID": ("1.2.3", "1.2.3"), "FrameOfReferenceUID": ("1.2.4", "1.2.4")} | values
    return [
        write_series(
            folder / f"T{c + 1}", VOLUME + c, AFFINE, entries(**{name: value[c] for name, value in values.items()})
        )
        for c in range(2)
    ]


def test_modalities_of_two_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="T1 is of patient A, but T2 of B; expected series of one patient"):
        VolumeReader(["T1", "T2"]).get_data(modalities(tmp_path, PatientID="AB"))


@pytest.mark.parametrize("references", [("1.2.4", "1.2.4"), ("1.2.4", "1.2.5")])
def test_another_frame_of_reference_is_said(
    tmp_path: Path, references: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    array, _ = VolumeReader(["T1", "T2"]).get_data(modalities(tmp_path, FrameOfReferenceUID=references))
    np.testing.assert_array_equal(array, [VOLUME, VOLUME + 1])
    assert ("T1 and T2 have different frames of reference" in caplog.text) == (references[0] != references[1])


def test_a_scan_given_for_two_modalities_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / "a_T1.nii", tmp_path / "a_T2.nii", tmp_path / "a_CET1.nii"]
    for file, voxels in zip(files, (VOLUME, VOLUME + 1, VOLUME)):
        nib.save(nib.Nifti1Image(voxels, AFFINE), file)
    VolumeReader(["T1", "T2", "CET1"]).get_data(files)
    assert [record.getMessage() for record in caplog.records] == [
        f"{files[2]}: the same voxels as a_T1.nii; expected different ones for T1 and CET1, so check the files"
    ]


@pytest.mark.parametrize(
    ("channels", "modality"), [(["CT"], "CT"), (["T1", "T2"], "MR"), (["ADC"], "MR"), (["PET"], "PT"), ([], None)]
)
def test_channels_tell_the_modality_of_dicom(channels: list[str], modality: str | None) -> None:
    assert dicom_modality(channels) == modality
