"""Save a map of a scan as NIfTI."""

from __future__ import annotations

from pathlib import Path

from monai.config import KeysCollection
from monai.transforms import SaveImaged

from ..data.volumes import AtomicNibabelWriter


class AtomicSaveImaged(SaveImaged):
    """Write ``output_dir/CASE_POSTFIX.nii.gz``, a map on the grid of its scan; the file appears once it is complete.

    MONAI Label and MONAI Deploy leave this transform out, as they do MONAI's own ``SaveImaged``.

    Args:
        keys: map ``(1, x, y, z)`` on the scan's grid, as :class:`common.transforms.ReturnToScand` leaves it.
        output_dir: folder to write to.
        output_postfix: last part of the file name, such as ``seg``.
        output_dtype: type of the voxels in the file.

    Attributes:
        ending: what follows the case in the file name, such as ``_seg.nii.gz``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        output_postfix: str = "seg",
        output_dtype: str = "uint8",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix=output_postfix,
            output_ext=".nii.gz",
            output_dtype=output_dtype,
            writer=AtomicNibabelWriter,
            resample=False,
            separate_folder=False,
            print_log=False,
            allow_missing_keys=allow_missing_keys,
        )
        self.ending = f"_{output_postfix}.nii.gz"
