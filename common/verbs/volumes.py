"""Define the verbs for scans in files: series, stack, unstack."""

from __future__ import annotations

from ..data.dicom_series import find_series
from ..data.dicom_table import series_table
from ..data.stacking import stack_volumes, unstack_volume
from ..doctor.bundle import read_config
from .arguments import bundle_folder, words


def series(folder: str, bundle: str | None = None) -> None:
    """List the DICOM series below a folder: number, description, modality, slices, spacing, verdict and reason.

    Patients and studies are found at any level, with or without a DICOMDIR. In inference, --series NUMBER, "*pattern*"
    or best chooses from this list; best is the thinnest axial series of each study.

    Args:
        folder: folder of an export, or its DICOMDIR.
        bundle: name in bundles/, or folder of a bundle. Series of other modalities than its own are then refused, and a
            bundle with several modalities gets the series of each, by the descriptions.
    """
    modalities = [] if bundle is None else read_config(bundle_folder(bundle), "inference")["modalities"]
    for study in find_series(folder):
        print(series_table(study, modalities))


def stack(*volumes: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write single-channel volumes as one 4-D NIfTI file, for MONAI Label and MONAI Deploy.

    The file has the grid of the first volume. The other volumes are resampled to it. A volume that does not overlap
    the first is refused.

    Args:
        volumes: files, or folders of one DICOM series, in the order of the network's inputs.
        out: file to write, CASE.nii.gz or CASE.nii.
        names: names of the channels, such as T1,T2,CET1. Default: names from the file names.
    """
    print(f"{out}: channels {', '.join(stack_volumes(volumes, out, words(names)))}")


def unstack(volume: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write each channel of a 4-D file to a separate file, CASE_NAME.nii.gz.

    Args:
        volume: 4-D file, CASE.nii.gz.
        out: folder to write to.
        names: names of the channels. Default: the names that stack wrote into the file, or 0000,0001,...
    """
    for file in unstack_volume(volume, out, words(names)):
        print(file)
