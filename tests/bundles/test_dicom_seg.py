"""Test inference of DICOM series with ``--dicom_seg true``: the object holds the same as the NIfTI mask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.errors import InputError, root_cause

from ..conftest import BUNDLES
from ..dicom_series import voxels_of_segments, write_series
from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mpunet.tiny import MPUNET
from ..methods.omnet.tiny import OMNET
from ..workflows import parser_of, results_in

pydicom = pytest.importorskip("pydicom")
codes = pytest.importorskip("pydicom.sr.codedict").codes
pytest.importorskip("itk", reason="DICOM needs itk")
pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with

OVERLAYS = [(bundle, ()) for bundle in BUNDLES] + [(MPUNET, ("tasks/tumour",)), (MAMTLN_CT, ("tasks/lits",))]


def as_series(image: Path, folder: Path) -> Path:
    volume = nib.load(image)
    return write_series(folder, np.asarray(volume.dataobj).round().astype(np.int16), volume.affine)


def voxels_of(mask: Path, value: int) -> set[tuple[int, ...]]:
    return set(map(tuple, np.argwhere(np.asarray(nib.load(mask).dataobj) == value).tolist()))


def test_series_and_other_scans(
    workflow: Callable, cohort: Callable, busy_weights: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy_weights(MPUNET)
    first, second = (cohort(MPUNET) / "images" / f"case_00{i}.nii.gz" for i in (4, 5))
    as_series(first, tmp_path / "scans" / "P1")
    (tmp_path / "scans" / "P2.nii.gz").write_bytes(second.read_bytes())
    options = {"dataset_dir": str(tmp_path / "scans"), "dicom_seg": "true"}
    flow = workflow(MPUNET, "inference", **options)
    with pytest.raises(Exception, match="run") as error:
        flow.run()
    cause = root_cause(error.value)
    assert isinstance(cause, InputError)
    assert str(cause).startswith("1 of 2 cases failed: P2 (")
    assert "P2.nii.gz: not the folder of a DICOM series" in flow.evaluator.failures["P2"]
    results = results_in(tmp_path / "out")
    assert results == {"P1_seg.nii.gz", "P1_seg.dcm", "P2_seg.nii.gz", "inference.log"}
    mask = tmp_path / "out" / "P1_seg.nii.gz"
    (found,) = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", nib.load(mask).affine)
    assert found == voxels_of(mask, 1) and found

    (tmp_path / "scans" / "P2.nii.gz").unlink()
    before = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").SOPInstanceUID
    mask.unlink()
    with caplog.at_level("INFO"):
        workflow(MPUNET, "inference", resume="true", **options).run()
        workflow(MPUNET, "inference", resume="true", **options).run()
    assert "0 of 1 cases have a result" in caplog.text and "1 of 1 cases have a result" in caplog.text
    assert pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm").SOPInstanceUID != before
    (tmp_path / "out" / "P1_seg.dcm").unlink()
    workflow(MPUNET, "inference", resume="true", **{**options, "dicom_seg": False}).run()
    assert not (tmp_path / "out" / "P1_seg.dcm").exists()


def test_the_object_refers_to_the_series_of_the_first_modality(
    workflow: Callable, cohort: Callable, busy_weights: Callable, tmp_path: Path
) -> None:
    """Its segments follow the values of the label code, in which 4 is the third class."""
    busy_weights(OMNET)
    series = {
        modality: as_series(cohort(OMNET) / "images" / f"case_004_{modality}.nii.gz", tmp_path / "scans/P1" / modality)
        for modality in ("FLAIR", "T1", "CET1", "T2")
    }
    workflow(OMNET, "inference", dataset_dir=str(tmp_path / "scans"), dicom_seg=True).run()
    written = pydicom.dcmread(tmp_path / "out" / "P1_seg.dcm")
    (referred,) = written.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == pydicom.dcmread(series["FLAIR"] / "IM001").SeriesInstanceUID
    mask = tmp_path / "out" / "P1_seg.nii.gz"
    found = voxels_of_segments(tmp_path / "out" / "P1_seg.dcm", nib.load(mask).affine)
    assert found == [voxels_of(mask, value) for value in (1, 2, 4)] and all(found)
    labels = [segment.SegmentLabel for segment in written.SegmentSequence]
    assert labels == ["necrosis and non-enhancing tumour", "oedema", "enhancing tumour"]


@pytest.mark.parametrize(
    ("bundle", "overlay"), OVERLAYS, ids=lambda value: value.name if isinstance(value, Path) else "+".join(value)
)
def test_each_label_has_codes_of_the_standard(bundle: Path, overlay: tuple[str, ...]) -> None:
    parser = parser_of(bundle, "inference", *overlay)
    parser["dicom_seg"], parser["bundle_root"] = True, str(bundle)
    (index,) = (i for i, c in enumerate(parser["postprocessing::transforms"]) if c["_target_"].endswith("DicomSegd"))
    writer = parser.get_parsed_content(f"postprocessing::transforms::{index}")  # checks their form
    names = dict(zip(writer.values, writer.segments))
    told = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    channels = told["post_processed_outputs"]["pred"]["channel_def"]
    whole = {int(value): name for value, name in channels.items() if name not in ("background", "unused")}
    assert names == ({1: "liver", 2: "tumour"} if overlay else whole)
    for segment in writer.segments.values():
        for value, scheme, meaning in (segment[key] for key in ("category", "type", "anatomy") if key in segment):
            keyword = re.sub(r"\W", "", meaning)
            known = getattr(codes.cid7159 if scheme == "NCIt" else getattr(codes, scheme), keyword)
            assert (known.value, known.scheme_designator, known.meaning) == (value, scheme, meaning)
