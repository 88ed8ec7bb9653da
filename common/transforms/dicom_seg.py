"""Write label maps as DICOM Segmentation objects that refer to the series of the scan."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import optional_import

from ..data.dicom import is_series, ordered_slices
from ..data.dicom_headers import Slice
from ..data.label_table import label_colours
from ..errors import InputError, UsageError
from ..files import read_json, whole_file
from ..labels import check_labels, segments_of_labels
from ..tensors import as_tensor

if TYPE_CHECKING:
    import pydicom

LONGEST = 64  # characters of a name or a description in DICOM
REFERRED_TO = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
)  # fmt: skip
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber",
)  # fmt: skip
SERIES_NUMBER = 1000  # above those that scanners give
PROVENANCE = "provenance"  # entry of a case: names to texts that say what made its results
UNNAMED = 255  # marks a value without a label


class WriteDicomSegd(MapTransform):
    """Write ``output_dir/CASE_seg.dcm``, a label map as binary DICOM Segmentation with a segment for each label.

    The object belongs to the study, the frame of reference and the patient of the scan's series. Each frame belongs to
    a slice of the series, so the map must be on the scan's grid, as :class:`common.transforms.ReturnToScand` leaves
    it. If there are several series, one for each modality, the object refers to the first one, which has the
    grid of the map. Frames in which a segment is empty are left out. The entry does not change. Each segment has a
    colour. The ``provenance`` of the case, a mapping of texts, becomes the parameters of the algorithm.

    The transform needs the optional packages ``highdicom`` and ``itk``.

    Args:
        keys: one label map ``(1, x, y, z)`` of integers 0 to 254 for a scan that :class:`common.data.VolumeReader`
            read. ``case`` of the same data is its name.
        output_dir: folder to write to.
        labels: names to the values of the map; each label becomes a segment with its name.
        segments: codes of each label by its name: a mapping with ``category``, ``type`` and optionally ``anatomy``,
            each ``[value, scheme, meaning]``, such as ``["10200004", "SCT", "Liver"]``. A label without an entry gets
            the codes for any tissue.
        metadata: the bundle's ``metadata.json``. Its ``name`` and ``version`` become those of the algorithm,
            ``authors`` the manufacturer, ``intended_use`` the description, each cut to 64 characters.
        values: value of each label in the map, if it differs from the value in ``labels``.
        task: task of the network; ``"class"`` segments nothing.

    Raises:
        UsageError: the task segments nothing.
        InputError: if highdicom is missing, if labels, segments or metadata have another form, or if there are codes
            for an unknown label. For a case: if it was not read from a DICOM series, if a value has no label, or if a
            header is not valid or lacks an entry for the reference.
        ValueError: if there are several keys, another number of values than of labels, or a map that does not hold
            integers or is not on the scan's grid.
    """

    ending = "_seg.dcm"

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        labels: Mapping[str, int],
        segments: Mapping[str, Mapping[str, Any]],
        metadata: str | Path,
        values: Sequence[int] | None = None,
        task: str = "seg",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if task == "class":
            raise UsageError("--dicom_seg true, but --task class segments nothing; leave one of them out")
        if not optional_import("highdicom")[1]:
            raise InputError("--dicom_seg true: writing DICOM needs the package highdicom; pip install highdicom itk")
        self.values = list(check_labels(labels).values() if values is None else values)
        if len(self.keys) != 1 or len(self.values) != len(labels):
            raise ValueError(f"keys {self.keys}, values {self.values}: expected one key, {len(labels)} values")
        check_labels(dict(zip(labels, self.values)))
        self.output_dir = Path(output_dir)
        self.segments = segments_of_labels(labels, segments)
        self.about = _read_metadata(Path(metadata))
        _descriptions(self.segments, self.about)  # reports a mistake before the first case

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            if "source" not in data[key].meta:
                raise ValueError(f"'{key}' has no 'source' in its metadata; read the scan with VolumeReader")
            labels = as_tensor(data[key]).cpu().numpy()
            path = self.output_dir / f"{data['case']}{self.ending}"
            self._write(labels, Path(data[key].meta["source"]), path, data.get(PROVENANCE, {}))
        return dict(data)

    def _write(self, labels: np.ndarray, source: Path, path: Path, provenance: Mapping[str, str]) -> None:
        if not is_series(source):
            raise InputError(
                f"{source}: not the folder of a DICOM series, so {path.name} has no series to refer to; use the mask "
                "in NIfTI, or give the scan as a DICOM series"
            )
        slices = ordered_slices(source)
        if labels.shape != (1, *slices[0].size[:2], len(slices)):
            raise ValueError(
                f"map of shape {labels.shape}, expected {(1, *slices[0].size[:2], len(slices))} as its series"
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(f"map of {labels.dtype}, expected integers")
        if labels.min() < 0 or labels.max() >= UNNAMED:
            raise InputError(
                f"{path.stem}: values from {labels.min()} to {labels.max()} in its mask, expected 0 to {UNNAMED - 1}; "
                "give each label such a value"
            )
        numbers = np.full(UNNAMED + 1, UNNAMED, np.uint8)
        numbers[[0, *self.values]] = range(len(self.values) + 1)
        frames = numbers[labels[0].transpose(2, 1, 0)]  # slice, row, column
        if (frames == UNNAMED).any():
            found = ", ".join(map(str, np.unique(labels[0].transpose(2, 1, 0)[frames == UNNAMED])))
            raise InputError(
                f"{path.stem}: value {found} in its mask, but `labels` has {', '.join(map(str, self.values))}; "
                "give every label of the network a name"
            )
        segmentation = self._segmentation(frames, slices, source, provenance)
        with whole_file(path) as partial:
            segmentation.save_as(partial)

    def _segmentation(
        self, frames: np.ndarray, slices: Sequence[Slice], folder: Path, provenance: Mapping[str, str]
    ) -> pydicom.Dataset:
        import highdicom

        images = _headers(slices, folder)
        if slices[0].frame is not None:  # the frames of the object are those of the image, in its own order
            frames = frames[np.argsort([one.frame or 0 for one in slices])]
        try:
            return highdicom.seg.Segmentation(
                source_images=images,
                pixel_array=frames,
                segmentation_type="BINARY",
                segment_descriptions=_descriptions(self.segments, self.about, provenance),
                series_instance_uid=highdicom.UID(),
                series_number=SERIES_NUMBER,
                series_description=self.about["name"],
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=self.about["authors"],
                manufacturer_model_name=self.about["name"],
                software_versions=self.about["version"],
                device_serial_number="none",  # must not be empty
                content_description=self.about["intended_use"],
                specific_character_set="ISO_IR 192",  # UTF-8, whatever the labels are
                omit_empty_frames=bool(frames.any()),  # an object must have a frame
            )
        except ValueError as error:
            raise InputError(
                f"{folder}: its headers do not allow a DICOM segmentation ({error}); correct them"
            ) from error


def _headers(slices: Sequence[Slice], folder: Path) -> list[pydicom.Dataset]:
    """Read the headers of the slices, and make them fit for the segmentation.

    Raises:
        InputError: if a header lacks an entry that a segmentation refers to, or if two slices have the same UID.
    """
    import pydicom

    # force: itk has read these files, and it accepts files without the DICM prefix
    files = list(dict.fromkeys(one.path for one in slices))
    if slices[0].frame is not None and len(files) > 1:
        raise InputError(
            f"{folder}: {len(files)} images with several frames in one series, expected one, to which a DICOM "
            "segmentation can refer; use the mask in NIfTI"
        )
    images = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in files]
    for one, image in zip(slices, images):
        missing = [keyword for keyword in REFERRED_TO if not image.get(keyword)]
        if missing:
            raise InputError(
                f"{one.path}: no {', '.join(missing)} in its header, to which a DICOM segmentation refers; "
                "export the series with all of its UIDs"
            )
    if (found := len({image.SOPInstanceUID for image in images})) < len(images):
        raise InputError(
            f"{folder}: {found} different SOPInstanceUID in its {len(images)} slices, expected {len(images)}; "
            "export the series again"
        )
    for keyword in MAY_BE_EMPTY:
        if keyword not in images[0]:  # an anonymisation may remove it
            setattr(images[0], keyword, "")
    if slices[0].frame is not None:
        return images
    # the thickness and the spacing in the headers may differ from the step between slices
    step = float(np.linalg.norm(slices[-1].position - slices[0].position)) / (len(slices) - 1)
    images[0].SliceThickness = images[0].SpacingBetweenSlices = step
    for image in images:  # they differ by rounding alone, as reading has checked
        image.ImageOrientationPatient = images[0].ImageOrientationPatient
    return images


def _read_metadata(path: Path) -> dict[str, str]:
    """Read name, version, authors and intended use of a bundle, each cut to ``LONGEST`` characters.

    Raises:
        InputError: if the file is missing or lacks one of them.
    """
    metadata = read_json(path)
    try:
        names = ("name", "version", "authors", "intended_use")
        return {name: textwrap.shorten(str(metadata[name]), LONGEST, placeholder="...") for name in names}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected a bundle's metadata with name, version, authors and intended_use, for --dicom_seg true "
            f"({type(error).__name__}: {error})"
        ) from error


def _descriptions(
    segments: Mapping[str, Mapping[str, Any]], about: Mapping[str, str], provenance: Mapping[str, str] | None = None
) -> list[pydicom.Dataset]:
    """Return a description for each segment: its name, codes and colour, and the algorithm with its parameters.

    Raises:
        InputError: if the codes of a segment are not valid.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=about["name"],
        family=codes.cid7162.ArtificialIntelligence,
        version=about["version"],
        parameters=dict(provenance or {}) or None,
    )
    colours = label_colours(dict.fromkeys(segments, 0))
    described = []
    for number, (label, segment) in enumerate(segments.items(), start=1):
        try:
            kinds = {key: highdicom.sr.CodedConcept(*code) for key, code in segment.items()}
            anatomy = kinds.pop("anatomy", None)
            described.append(
                highdicom.seg.SegmentDescription(
                    segment_number=number,
                    segment_label=label,
                    segmented_property_category=kinds.pop("category"),
                    segmented_property_type=kinds.pop("type"),
                    algorithm_type="AUTOMATIC",
                    algorithm_identification=algorithm,
                    anatomic_regions=None if anatomy is None else [anatomy],
                    display_color=highdicom.color.CIELabColor.from_rgb(*colours[label]),
                )
            )
            if kinds:
                raise ValueError(f"unknown {', '.join(kinds)}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"segments, {label}: {segment} ({type(error).__name__}: {error}); expected category, type and "
                'optionally anatomy, each a code such as ["10200004", "SCT", "Liver"]'
            ) from error
    return described
