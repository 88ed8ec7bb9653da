"""Test which series of a DICOM export are found, which become cases, and how the cases are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import find_cases
from common.data.dicom_choice import modality_in
from common.data.dicom_series import find_series
from common.data.dicom_table import series_table
from common.data.dicom_trees import files_of_series
from common.data.volumes import read_grid, read_volume
from common.errors import InputError
from common.record.identity import digest_of

from ..dicom_series import pydicom, write_enhanced, write_series

pytest.importorskip("itk", reason="DICOM needs itk")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the wrappers that itk is made with
]

PRIMARY = "ORIGINAL\\PRIMARY\\AXIAL"


def affine(step: float, turned: bool = False) -> np.ndarray:
    """Return the affine of slices across the body, or from left to right."""
    if turned:
        return np.array([[0.0, 0, step, 0], [-1.5, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1]])
    return np.diag([-1.5, -1.5, step, 1.0])


def add(folder: Path, number: int, description: str, count: int = 4, step: float = 5, **header: Any) -> Path:
    """Write a series with different voxels into a folder of an export."""
    turned = header.pop("turned", False)
    entries = {"ImageType": PRIMARY.split("\\"), "StudyInstanceUID": "1.2.3", "AccessionNumber": "A99", **header}

    def change(written: Any, k: int) -> None:
        written["PixelData"].VR = "OW"
        written.SeriesNumber, written.SeriesDescription = number, description
        for keyword, value in entries.items():
            setattr(written, keyword, value)

    volume = np.random.default_rng(number).integers(-1000, 1000, (6, 5, count)).astype(np.int16)
    return write_series(folder, volume, affine(step, turned), change)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Write a localizer, two CT series and a capture as an archive exports them."""
    study = tmp_path / "export" / "PT000000" / "ST000000"
    add(study / "SE000000", 1, "Topogram", 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(study / "SE000001", 2, "Thorax 5.0")
    add(study / "SE000002", 3, "Thorax 2.0", 8, 2)
    add(study / "SE000003", 4, "Capture", 1, ImageType=["DERIVED", "SECONDARY"])
    (tmp_path / "export" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return tmp_path / "export"


@pytest.mark.parametrize("given", ["", "DICOMDIR", "PT000000", "PT000000/ST000000"])
def test_best_is_the_thinnest_axial_series(export: Path, given: str) -> None:
    (case,) = find_cases(export / given, ["CT"], series="best")
    assert case == {"case": "P-17_A99_3", "image": str(export / "PT000000/ST000000/SE000002")}


def test_thin_series_in_another_plane_is_not_best(export: Path) -> None:
    add(export / "sagittal", 5, "Thorax sag", 20, 1, turned=True)
    assert [case["case"] for case in find_cases(export, ["CT"], series="best")] == ["P-17_A99_3"]


@pytest.mark.parametrize(("series", "number"), [(2, "2"), ("002", "2"), ("*x 2.0", "3"), ("thorax 5*", "2")])
def test_number_or_pattern_chooses_a_series(export: Path, series: Any, number: str) -> None:
    assert [case["case"] for case in find_cases(export, ["CT"], series=series)] == [f"P-17_A99_{number}"]


def test_pattern_takes_every_usable_series(export: Path) -> None:
    assert [case["case"] for case in find_cases(export, ["CT"], series="*")] == ["P-17_A99_2", "P-17_A99_3"]


@pytest.mark.parametrize("series", ["9", "*brain*"])
def test_unknown_series_lists_the_numbers(export: Path, series: str) -> None:
    with pytest.raises(InputError, match=r"no such series in .*, which has 1 'Topogram'; 2 'Thorax 5.0'; 3 .*; 4 "):
        find_cases(export, ["CT"], series=series)


def test_study_without_a_usable_series_is_a_failed_case(export: Path) -> None:
    add(export / "other", 1, "Brain", PatientID="P-18", StudyInstanceUID="1.2.4", Modality="MR")
    good, bad = find_cases(export, ["CT"], series="best")
    assert good["case"] == "P-17_A99_3" and bad["case"] == "P-18_A99"
    assert "no axial CT volume among 1 'Brain' (MR, expected CT)" in bad["error"]


def test_the_reason_why_a_chosen_series_is_refused(export: Path) -> None:
    (case,) = find_cases(export, ["CT"], series="1")
    assert case["case"] == "P-17_A99_1" and case["error"].endswith("series 1 'Topogram': a localizer")


def test_equal_numbers_get_the_end_of_their_uids(export: Path) -> None:
    add(export / "again", 3, "Thorax 2.0", 8, 2)
    names = [case["case"] for case in find_cases(export, ["CT"], series="3")]
    assert len(set(names)) == 2 and all(name.startswith("P-17_A99_3_") for name in names)


def test_results_in_the_export_are_left_out(export: Path) -> None:
    add(export / "results" / "x", 9, "a result", 30, 0.5)
    (case,) = find_cases(export, ["CT"], exclude=export / "results", series="best")
    assert case["case"] == "P-17_A99_3"


def test_without_the_option_the_message_names_it(export: Path) -> None:
    (case,) = find_cases(export, ["CT"])
    assert "--series best" in case["error"] and "SE000000" in case["error"]
    with pytest.raises(InputError, match=r"DICOMDIR: the index of a DICOM export; .*--series best"):
        find_cases(export / "DICOMDIR", ["CT"])
    with pytest.raises(InputError, match="has no folds"):
        find_cases(export, ["CT"], series="best", fold=1)


def test_series_in_one_folder_are_separate(export: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for place in ("SE000001", "SE000002"):
        for file in (export / "PT000000" / "ST000000" / place).iterdir():
            shutil.copy(file, flat / f"{place}_{file.name}")
    cases = find_cases(flat, ["CT"], series="*")
    assert [read_grid(Path(case["image"]))[0] for case in cases] == [(6, 5, 4), (6, 5, 8)]
    array, _ = read_volume(Path(cases[1]["image"]))
    alone = export / "PT000000" / "ST000000" / "SE000002"
    np.testing.assert_array_equal(array, read_volume(alone)[0])
    assert digest_of(cases[1]["image"]) == digest_of(str(alone))


def test_a_header_is_read_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in (1, 2, 3):
        for file in add(tmp_path / f"S{number}", number, f"series {number}", 4, 3).iterdir():
            shutil.copy(file, flat / f"S{number}_{file.name}")
    (study,) = find_series(flat)
    read, dcmread = [], pydicom.dcmread

    def count(file: Any, *arguments: Any, **options: Any) -> Any:
        read.append(Path(file.name))
        return dcmread(file, *arguments, **options)

    changed = flat / "S1_IM001"
    header = dcmread(changed)
    monkeypatch.setattr(pydicom, "dcmread", count)
    assert [len(files_of_series(one.path)) for one in study] == [4, 4, 4] and not read
    header.SeriesInstanceUID = pydicom.uid.generate_uid()
    header.save_as(changed, enforce_file_format=True)
    assert [len(files_of_series(one.path)) for one in study] == [3, 4, 4] and read == [changed]


MRI = ["FLAIR", "T1", "CET1", "T2"]


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    """Write an MRI study with the four modalities and a thicker repetition of one."""
    named = ["ax T2 FLAIR", "t1_se_tra", "T1 tra +Gd", "t2_tse_tra", "t2_tse_tra"]
    for number, description in enumerate(named, 1):
        step = 6 if number == 5 else 3
        add(tmp_path / "brain" / f"S{number}", number, description, 4, step, Modality="MR")
    return tmp_path / "brain"


def test_descriptions_name_the_modalities(brain: Path) -> None:
    (case,) = find_cases(brain, MRI, series="best")
    assert case == {"case": "P-17_A99", "image": [str(brain / f"S{number}") for number in (1, 2, 3, 4)]}
    assert 'best is --series "FLAIR=1,T1=2,CET1=3,T2=4"' in series_table(find_series(brain)[0], MRI)


def test_each_modality_can_be_chosen(brain: Path) -> None:
    (case,) = find_cases(brain, MRI, series="FLAIR=1,T1=t1_se*,CET1=*gd,T2=5")
    assert case["image"] == [str(brain / f"S{number}") for number in (1, 2, 3, 5)]


@pytest.mark.parametrize("series", ["3", "FLAIR=1,T1=2", "FLAIR=1,T1=2,CET1=3,T2=4,PD=5", "FLAIR=,T1=2,CET1=3,T2=4"])
def test_choice_without_every_modality_is_refused(brain: Path, series: str) -> None:
    with pytest.raises(InputError, match="expected best, or a number or a pattern for each of FLAIR, T1, CET1, T2"):
        find_cases(brain, MRI, series=series)


def test_missing_modality_is_named(brain: Path) -> None:
    shutil.rmtree(brain / "S3")
    (case,) = find_cases(brain, MRI, series="best")
    assert case["error"].startswith("no usable series for CET1 among 1 'ax T2 FLAIR'; ")
    (case,) = find_cases(brain, MRI, series="FLAIR=1,T1=2,CET1=2,T2=4")
    assert case["error"].startswith("one series for several modalities")


@pytest.mark.parametrize(
    ("description", "modality"),
    [
        ("AX T1 SE", "T1"), ("t1_mprage_sag_km", "CET1"), ("T1 +C", "CET1"), ("T1w post contrast", "CET1"),
        ("T1 without contrast", "T1"), ("FLAIR T2 ax", "FLAIR"), ("T2 TSE", "T2"), ("T2*_GRE", None),
        ("T1/T2 map", None), ("tra dark fluid", "FLAIR"), ("Post", None),
    ],
)  # fmt: skip
def test_modality_of_a_description(description: str, modality: str | None) -> None:
    assert modality_in(description) == modality


def test_table_names_the_best_and_the_refused(export: Path) -> None:
    lines = series_table(find_series(export)[0], ["CT"]).splitlines()
    assert lines[0] == "patient P-17, study 20260102, accession number A99"
    words = [line.split() for line in lines]
    assert words[1] == ["number", "description", "modality", "slices", "spacing", "verdict", "reason"]
    assert [row[0] for row in words[2:]] == ["1", "2", "3", "4"]
    assert [("refused" in row, "usable" in row, "best" in row).index(True) for row in words[2:]] == [0, 1, 2, 0]
    assert "1.5 x 1.5 x 2" in lines[4] and lines[2].endswith("a localizer")
    assert "CT, not MR" in series_table(find_series(export)[0], ["MRI"])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("ISO_IR 192", "Kopf für 頭部"), ("ISO_IR 144", "Голова"), (["", "ISO 2022 IR 87"], "CT 頭部 axial"),
        (["", "ISO 2022 IR 149"], "두부"), ("GB18030", "头部"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Schädel Голова"),
    ],
)  # fmt: skip
def test_descriptions_in_any_character_set(tmp_path: Path, names: Any, text: str) -> None:
    add(tmp_path / "S1", 1, text, SpecificCharacterSet=names, PatientName="A")
    assert find_series(tmp_path)[0][0].about.description == text


def test_tree_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("none")
    with pytest.raises(InputError, match="no DICOM files in this folder or below"):
        find_series(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        find_series(tmp_path / "nowhere")


def test_damaged_file_beside_a_series_is_not_passed_over(tmp_path: Path) -> None:
    folder = add(tmp_path / "S1", 1, "Thorax 5.0")
    (folder / "IM004").write_bytes((folder / "IM004").read_bytes()[:200])
    cases = find_cases(tmp_path, ["CT"], series="best")
    assert {case["case"] for case in cases} >= {"P-17_A99"}
    assert all("IM004: not a DICOM image, or damaged" in case.get("error", "") for case in cases)


def multiframe(folder: Path, change: Callable[[Any], object] = lambda image: None) -> Path:
    """Write a series whose slopes differ by slice, in ``slices``, and the same as one image, in ``frames``."""

    def scale(written: Any, k: int) -> None:
        written["PixelData"].VR = "OW"
        written.RescaleSlope, written.SeriesNumber = str(k + 1), 7

    volume = np.random.default_rng(7).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    write_enhanced(folder / "frames", write_series(folder / "slices", volume, affine(5), scale), change)
    return folder


@pytest.mark.slow
def test_enhanced_image_is_a_volume(tmp_path: Path) -> None:
    folder = multiframe(tmp_path)
    expected, there = read_volume(folder / "slices")
    array, place = read_volume(folder / "frames")
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_allclose(place, there, atol=1e-6)
    assert read_grid(folder / "frames")[0] == expected.shape
    assert [case["case"] for case in find_cases(folder / "frames", ["CT"], series="7")] == ["P-17_20260102_7"]


def test_frames_at_one_place_are_refused(tmp_path: Path) -> None:
    def move(image: Any) -> None:
        first, second = image.PerFrameFunctionalGroupsSequence[:2]
        second.PlanePositionSequence = first.PlanePositionSequence

    with pytest.raises(InputError, match="1 of its 4 images at the position of another"):
        read_volume(multiframe(tmp_path, move) / "frames")


def test_a_frame_rescaled_by_0_is_refused(tmp_path: Path) -> None:
    def rescale(image: Any) -> None:
        image.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleSlope = "0"

    with pytest.raises(InputError, match="RescaleSlope 0 and RescaleIntercept 0 of frame 2"):
        read_volume(multiframe(tmp_path, rescale) / "frames")


def test_frames_without_a_slope_have_that_of_their_image(tmp_path: Path) -> None:
    def rescale(image: Any) -> None:
        for groups in image.PerFrameFunctionalGroupsSequence:
            del groups.PixelValueTransformationSequence
        image.RescaleSlope, image.RescaleIntercept = "2", "-1000"

    stored = np.random.default_rng(7).integers(-1000, 1000, (6, 5, 4))
    array, _ = read_volume(multiframe(tmp_path, rescale) / "frames")
    np.testing.assert_array_equal(np.sort(array, axis=None), np.sort(2 * stored - 1000, axis=None))


def test_compression_that_nothing_decodes_names_the_package(tmp_path: Path) -> None:
    if pydicom.pixels.get_decoder("1.2.840.10008.1.2.4.201").is_available:
        pytest.skip("a decoder is installed")
    for file in add(tmp_path / "S1", 1, "Thorax").iterdir():
        one = pydicom.dcmread(file)
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        one.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        one.save_as(file, enforce_file_format=True)
    message = r"High-Throughput JPEG 2000 .*, which itk does not decode; install pylibjpeg.* and pylibjpeg-"
    with pytest.raises(InputError, match=message):
        read_volume(tmp_path / "S1")
    assert "pylibjpeg" in series_table(find_series(tmp_path)[0])


def test_compression_that_pydicom_alone_decodes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = add(tmp_path / "S1", 1, "Thorax", RescaleSlope="2", RescaleIntercept="-100")
    expected, _ = read_volume(folder)
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        one.compress(pydicom.uid.RLELossless)
        one.save_as(file)
    monkeypatch.setattr("common.data.dicom_pixels.READ_BY_ITK", frozenset())
    np.testing.assert_array_equal(read_volume(folder)[0], expected)
