"""Read segmentations back with pydicom, and place their voxels by their headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage

from common.data import VolumeReader
from common.errors import InputError
from common.transforms import WriteDicomSegd

from ..dicom_series import voxels_of_segments, write_enhanced, write_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("itk", reason="DICOM needs itk")
pytestmark = [
    pytest.mark.slow,  # highdicom takes seconds to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the wrappers that itk is made with
]

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
GRIDS = {
    "axial": np.array([[-0.8, 0, 0, 30], [0, -0.5, 0, -40], [0, 0, 2, 10], [0, 0, 0, 1]]),
    "slices downwards": np.array([[-0.8, 0, 0, 30], [0, -0.5, 0, -40], [0, 0, -2, 10], [0, 0, 0, 1]]),
    "from the right, from behind": np.array([[0.8, 0, 0, 30], [0, 0.5, 0, -40], [0, 0, 2.5, 10], [0, 0, 0, 1]]),
    "coronal": np.array([[-0.8, 0, 0, 30], [0, 0, 2, -40], [0, -0.5, 0, 10], [0, 0, 0, 1]]),
    "oblique": np.vstack([np.column_stack([TURN * [0.7, 0.9, 3], [5, -60, 7]]), [0, 0, 0, 1]]),
}
LIVER = {
    "category": ["91723000", "SCT", "Anatomical Structure"],
    "type": ["10200004", "SCT", "Liver"],
}
TUMOUR = {
    "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
    "type": ["108369006", "SCT", "Neoplasm"],
    "anatomy": LIVER["type"],
}


@pytest.fixture
def writer(tmp_path: Path) -> Callable[..., WriteDicomSegd]:
    pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")
    about = {"name": "Liver", "version": "1.2.3", "authors": "Ada " * 20, "intended_use": "Not for clinical use."}
    (tmp_path / "metadata.json").write_text(json.dumps(about))

    def make(labels: dict[str, int] | None = None, segments: Any = None, **options: Any) -> WriteDicomSegd:
        options = {"metadata": tmp_path / "metadata.json", **options}
        segments = {"liver": LIVER, "tumour": TUMOUR} if segments is None else segments
        return WriteDicomSegd("pred", tmp_path / "out", labels or {"liver": 1, "tumour": 2}, segments, **options)

    return make


def labels_of(series: Path) -> MetaTensor:
    """Return a label map on the series' grid: 1 above 0 HU, 2 above 500 HU."""
    image = EnsureChannelFirst()(LoadImage(reader=VolumeReader(["CT"]))(series))
    image.meta["filename_or_obj"] = "P1.nii.gz"  # as a data set of cases does
    return MetaTensor((image > 0).to(torch.uint8) + (image > 500).to(torch.uint8), meta=image.meta)


def voxels(labels: MetaTensor, value: int) -> set[tuple[int, ...]]:
    return set(map(tuple, (labels[0] == value).nonzero().tolist()))


@pytest.mark.parametrize("grid", GRIDS)
def test_each_voxel_is_at_the_place_of_the_masks_voxel(writer: Callable, tmp_path: Path, grid: str) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS[grid]))
    data = {"pred": labels, "case": "P1"}
    assert writer()(data) == data
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["P1_seg.dcm"]
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 1), voxels(labels, 2)] and all(found)


def test_segments_have_colours_and_their_origin(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    writer()({"pred": labels, "case": "P1", "provenance": {"weights": "ab12", "precision": "float32"}})
    liver, tumour = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").SegmentSequence
    assert liver.RecommendedDisplayCIELabValue != tumour.RecommendedDisplayCIELabValue
    parameters = str(liver.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters)
    assert "weights=ab12" in parameters and "precision=float32" in parameters


@pytest.mark.parametrize("grid", ["axial", "oblique"])
def test_segmentation_of_an_enhanced_image(writer: Callable, tmp_path: Path, grid: str) -> None:
    folder = write_enhanced(tmp_path / "frames", write_series(tmp_path / "scan", VOLUME, GRIDS[grid]))
    labels = labels_of(folder)
    writer()({"pred": labels, "case": "P1"})
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 1), voxels(labels, 2)] and all(found)


@pytest.mark.parametrize("grid", GRIDS)
def test_each_frame_refers_to_its_slice(writer: Callable, tmp_path: Path, grid: str) -> None:
    series = write_series(tmp_path / "scan", VOLUME, GRIDS[grid])
    writer()({"pred": labels_of(series), "case": "P1"})
    sources = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.iterdir())}
    written = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm")
    referred = []
    for pixels, groups in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        image = sources[source.ReferencedSOPInstanceUID]
        assert image.ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        values = image.pixel_array
        np.testing.assert_array_equal(pixels, (values > 500) if number == 2 else (values > 0) & (values <= 500))
        referred.append((image.SOPInstanceUID, number))
    assert len(referred) == len(set(referred)) == 8


def test_highdicom_reads_the_labels_back(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    writer()({"pred": labels, "case": "P1"})
    import highdicom

    read = highdicom.seg.segread(tmp_path / "out" / "P1_seg.dcm")
    volume = read.get_volume(combine_segments=True).to_patient_orientation("LPH")
    np.testing.assert_array_equal(volume.array, labels[0].numpy())


def test_the_object_belongs_to_the_series(writer: Callable, tmp_path: Path) -> None:
    series = write_series(tmp_path / "scan", VOLUME, GRIDS["axial"])
    source = pydicom.dcmread(series / "IM001")
    writer()({"pred": labels_of(series), "case": "P1"})
    written = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientSex", "StudyDate"):
        assert written[keyword].value == source[keyword].value, keyword
    assert (written.SOPClassUID.name, written.SegmentationType, written.Modality) == (
        "Segmentation Storage", "BINARY", "SEG",
    )  # fmt: skip
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    (referred,) = written.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(referred.ReferencedInstanceSequence) == 4
    measures = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices, measures.PixelSpacing) == (2, 2, [0.5, 0.8])
    assert written.Manufacturer == "Ada " * 14 + "Ada..."
    assert written.ContentDescription == "Not for clinical use."


def test_the_segments_are_described(writer: Callable, tmp_path: Path) -> None:
    writer()({"pred": labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"])), "case": "P1"})
    segments = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").SegmentSequence
    assert [s.SegmentNumber for s in segments] == [1, 2]
    for segment, expected, label in zip(segments, (LIVER, TUMOUR), ("liver", "tumour")):
        (category,), (kind,) = segment.SegmentedPropertyCategoryCodeSequence, segment.SegmentedPropertyTypeCodeSequence
        anatomy = segment.get("AnatomicRegionSequence", [])
        found = [[c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning] for c in (category, kind, *anatomy)]
        assert found == [expected[key] for key in ("category", "type", "anatomy") if key in expected]
        assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == (label, "AUTOMATIC")
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Liver", "1.2.3")


def test_labels_may_have_other_values(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    labels[labels == 1] = 7
    writer(values=[2, 7])({"pred": labels, "case": "P1"})
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 2), voxels(labels, 7)]


def test_frames_without_a_voxel_are_left_out(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    labels[..., :3] = 0
    writer()({"pred": labels, "case": "P1"})
    assert pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").NumberOfFrames == 2  # one of each segment
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 1), voxels(labels, 2)]


def test_an_empty_mask_is_written(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    writer()({"pred": labels * 0, "case": "P1"})
    assert voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy()) == [set(), set()]


def test_optional_entries_of_headers_may_be_missing(writer: Callable, tmp_path: Path) -> None:
    """And with orientations that differ by rounding, and a step that has no short decimal."""

    def thin_out(header: pydicom.Dataset, k: int) -> None:
        for keyword in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyID", "StudyDate"):
            del header[keyword]
        for keyword in ("StudyTime", "AccessionNumber", "SliceThickness", "SpacingBetweenSlices"):
            del header[keyword]
        header.ImageOrientationPatient = [1, 0, 0.0001 * k, 0, 1, 0]

    grid = GRIDS["axial"] * [1, 1, 1 / 1.5, 1]
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, grid, thin_out))
    writer()({"pred": labels, "case": "P1"})
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 1), voxels(labels, 2)]


def set_to(keyword: str, value: object, only: int | None = None) -> Callable:
    def change(header: pydicom.Dataset, k: int) -> None:
        if only in (None, k):
            setattr(header, keyword, value)

    return change


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of values that are not valid
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("FrameOfReferenceUID", ""), r"scan/IM00\d: no FrameOfReferenceUID in its header, to which"),
        (set_to("SOPInstanceUID", "1.2"), "scan: 1 different SOPInstanceUID in its 4 slices, expected 4"),
        (set_to("PatientSex", "X"), "scan: its headers do not allow a DICOM segmentation .*X.*; correct them"),
    ],
)
def test_headers_that_do_not_allow_a_reference(
    writer: Callable, tmp_path: Path, change: Callable, message: str
) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"], change))
    with pytest.raises(InputError, match=message):
        writer()({"pred": labels, "case": "P1"})
    assert not (tmp_path / "out").exists()


def test_a_scan_that_is_not_a_series_is_refused(writer: Callable, write_nifti: Callable) -> None:
    labels = labels_of(write_nifti("scan.nii.gz", VOLUME.astype(np.float32)))
    with pytest.raises(InputError, match=r"scan.nii.gz: not the folder of a DICOM series, .* NIfTI"):
        writer()({"pred": labels, "case": "P1"})


def test_a_value_without_a_label_is_refused(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    with pytest.raises(InputError, match="P1_seg: value 2 in its mask, but `labels` has 1;"):
        writer({"liver": 1}, {})({"pred": labels, "case": "P1"})


@pytest.mark.parametrize("value", [-1, 255, 300, -255])
def test_a_value_that_no_label_can_have(writer: Callable, tmp_path: Path, value: int) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"])).to(torch.int16)
    labels[0, 0, 0, 0] = value
    low, high = min(value, 0), max(value, 2)
    with pytest.raises(InputError, match=f"P1_seg: values from {low} to {high} in its mask, expected 0 to 254;"):
        writer()({"pred": labels, "case": "P1"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_a_map_that_does_not_hold_integers(writer: Callable, tmp_path: Path, dtype: torch.dtype) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"])).to(dtype)
    with pytest.raises(ValueError, match=r"map of (float32|bool), expected integers"):
        writer()({"pred": labels, "case": "P1"})


def test_value_254_gets_a_segment(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"])).to(torch.int64)
    labels[labels == 2] = 254
    writer(values=[1, 254])({"pred": labels, "case": "P1"})
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", labels.affine.numpy())
    assert found == [voxels(labels, 1), voxels(labels, 254)] and all(found)


def test_a_map_on_another_grid_is_refused(writer: Callable, tmp_path: Path) -> None:
    labels = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    with pytest.raises(ValueError, match=r"map of shape \(1, 6, 5, 3\).*\(1, 6, 5, 4\)"):
        writer()({"pred": labels[..., :3], "case": "P1"})


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ({"liver": {**LIVER, "type": "Liver"}}, "segments, liver: .*; expected category, type"),
        ({"liver": {"type": LIVER["type"]}}, "segments, liver: .*KeyError: 'category'"),
        ({"liver": {**LIVER, "colour": LIVER["type"]}}, "segments, liver: .*unknown colour"),
        ([{**LIVER, "label": "liver"}], "segments: .*; expected codes by the names of `labels` .liver 1, tumour 2."),
        ({"kidney": LIVER}, "segments: codes for kidney, but labels are liver 1, tumour 2; give the codes"),
    ],
)
def test_a_segment_of_another_form(writer: Callable, segment: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        writer(segments=segment)


def test_a_label_without_codes_is_tissue_by_its_name(writer: Callable, tmp_path: Path) -> None:
    series = labels_of(write_series(tmp_path / "scan", VOLUME, GRIDS["axial"]))
    writer({"kidney": 1, "cyst": 2}, {"cyst": TUMOUR})({"pred": series, "case": "P1"})
    segments = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").SegmentSequence
    types = [(s.SegmentLabel, s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) for s in segments]
    assert types == [("kidney", "Tissue"), ("cyst", "Neoplasm")]
    known = pytest.importorskip("pydicom.sr.codedict").codes.SCT.Tissue
    code = segments[0].SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == (known.value, known.scheme_designator)


def test_metadata_of_another_form(writer: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.json: cannot be read"):
        writer(metadata=tmp_path / "nothing.json")
    (tmp_path / "short.json").write_text('{"name": "Liver"}')
    with pytest.raises(InputError, match=r"short.json: expected a bundle's metadata .*'version'"):
        writer(metadata=tmp_path / "short.json")


def test_writing_dicom_without_highdicom_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.transforms.dicom_seg.optional_import", lambda name: (None, False))
    with pytest.raises(InputError, match=r"--dicom_seg true.*highdicom.*pip install"):
        WriteDicomSegd("pred", tmp_path, {"liver": 1}, {}, tmp_path / "metadata.json")


def test_values_and_labels_are_as_many(writer: Callable) -> None:
    with pytest.raises(ValueError, match=r"values \[1\]: expected one key, 2 values"):
        writer(values=[1])


@pytest.mark.parametrize("values", [[1, 1], [0, 1], [1, 255], [300, 1], [-1, 1], [1.0, 2.0], ["1", "2"], [[1], [2]]])
def test_values_that_cannot_be_labels(writer: Callable, values: list) -> None:
    with pytest.raises(InputError, match=r"labels: .*expected (a whole number from 1 to 254|different names and)"):
        writer(values=values)
