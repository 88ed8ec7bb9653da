"""Write DICOM series with the headers of a scanner, and read the voxels of DICOM segmentations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="DICOM segmentations need pydicom")

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    change: Callable[[pydicom.Dataset, int], object] = lambda header, k: None,
) -> Path:
    """Write a volume as a DICOM series, one slice ``k`` for each z, and return the folder.

    File names and instance numbers decrease with z.

    Args:
        folder: folder to make and write to.
        volume: array ``(x, y, z)`` in HU.
        affine: 4 x 4 matrix, voxel -> RAS+ in mm.
        change: function (header, k) that may change a header before it is written.
    """
    folder.mkdir(parents=True)
    to_patient = LPS_TO_RAS @ affine
    steps = np.linalg.norm(to_patient[:3, :3], axis=0)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for k in range(volume.shape[2]):
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SpecificCharacterSet = "ISO_IR 100"
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
        header.Modality = "CT"
        header.PatientName = "Müller^Jörg"
        header.PatientID = "P-17"
        header.PatientBirthDate = "19700101"
        header.PatientSex = "O"
        header.StudyID = header.AccessionNumber = header.StudyTime = ""
        header.StudyDate = "20260102"
        header.InstanceNumber = volume.shape[2] - k
        header.SliceThickness = "7"  # mm; differs from the step between slices, as in real scans
        header.SpacingBetweenSlices = "9"
        header.ImagePositionPatient = [f"{v:.10g}" for v in to_patient[:3] @ [0, 0, k, 1]]
        header.ImageOrientationPatient = [f"{v:.10g}" for v in (to_patient[:3, :2] / steps[:2]).T.ravel()]
        header.PixelSpacing = [f"{v:.10g}" for v in steps[[1, 0]]]
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.Rows, header.Columns = volume.shape[1], volume.shape[0]
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation = 15, 1
        header.RescaleIntercept, header.RescaleSlope = "0", "1"
        header.PixelData = volume[:, :, k].T.astype("<i2").tobytes()
        change(header, k)
        header.save_as(folder / f"IM{volume.shape[2] - k:03d}", enforce_file_format=True)
    return folder


def write_enhanced(
    folder: Path, series: Path, change: Callable[[pydicom.Dataset], object] = lambda image: None
) -> Path:
    """Write a CT series as one enhanced multi-frame image, its frames in the order of the file names.

    Args:
        folder: folder to make and write to.
        series: folder of the series.
        change: function that may change the image before it is written.
    """
    highdicom = pytest.importorskip("highdicom", reason="an enhanced image is made with highdicom")
    slices = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    for one in slices:
        one.PatientPosition, one.AcquisitionNumber, one.RescaleType, one.Manufacturer = "HFS", 1, "HU", "none"
        one.ContentTime, one.ContentDate, one.ImageType = "120000", "20260102", ["ORIGINAL", "PRIMARY", "AXIAL"]
    image = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices, highdicom.UID(), series_number=7, sop_instance_uid=highdicom.UID(), instance_number=1
    )
    change(image)
    folder.mkdir()
    image.save_as(folder / "IM001", enforce_file_format=True)
    return folder


def voxels_of_segments(path: Path, affine: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return the set of voxel indices of each segment of a DICOM segmentation, in the grid of an affine.

    The voxels are placed only by the positions, orientations and spacings in the file.

    Args:
        path: DICOM segmentation.
        affine: 4 x 4 matrix of the grid, voxel -> RAS+ in mm.
    """
    object = pydicom.dcmread(path)
    shared = object.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    voxels: list[set[tuple[int, ...]]] = [set() for _ in object.SegmentSequence]
    frames = object.pixel_array.reshape(-1, object.Rows, object.Columns)
    for pixels, groups in zip(frames, object.PerFrameFunctionalGroupsSequence, strict=True):
        # a file with a single segment may name it once for all frames
        named = groups if "SegmentIdentificationSequence" in groups else shared
        number = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        j, i = pixels.nonzero()
        places = corner + np.outer(i * between_columns, row) + np.outer(j * between_rows, column)
        there = np.linalg.inv(affine) @ LPS_TO_RAS @ np.column_stack([places, np.ones(len(places))]).T
        assert np.abs(there - there.round()).max(initial=0) < 1e-3
        voxels[number - 1] |= set(map(tuple, there[:3].round().astype(int).T.tolist()))
    return voxels
