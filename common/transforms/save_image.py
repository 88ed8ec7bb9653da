"""Save a map of a scan as NIfTI."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import SaveImaged

from ..data.label_table import label_table
from ..data.nifti_writer import AtomicNibabelWriter
from ..tensors import affine_of, as_tensor
from .colour_files import write_colours

VOLUMES = "volumes_ml"  # entry of a case: the volume of each label


class AtomicSaveImaged(SaveImaged):
    """Write ``output_dir/CASE_POSTFIX.nii.gz``, a map on the grid of its scan; the file appears once it is complete.

    With ``labels``, the file also holds their names and colours, as an extension of its header. Files beside it have
    them for ITK-SNAP and 3D Slicer. The case gets the entry ``volumes_ml``, the volume of each label in ml. The voxels
    are the same without.

    MONAI Label and MONAI Deploy leave this transform out, as they do MONAI's own ``SaveImaged``.

    Args:
        keys: map ``(1, x, y, z)`` on the scan's grid, as :class:`common.transforms.ReturnToScand` leaves it.
        output_dir: folder to write to.
        output_postfix: last part of the file name, such as ``seg``.
        output_dtype: type of the voxels in the file.
        labels: names to values of a label map; None for another map.
        values: value of each label in the map, if it differs from the value in ``labels``.

    Attributes:
        ending: what follows the case in the file name, such as ``_seg.nii.gz``.
        labels: names to the values of the map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        output_postfix: str = "seg",
        output_dtype: str = "uint8",
        allow_missing_keys: bool = False,
        labels: Mapping[str, int] | None = None,
        values: Sequence[int] | None = None,
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
        self.folder = Path(output_dir)
        self.has_colours = False
        self.ending = f"_{output_postfix}.nii.gz"
        self.labels = dict(zip(labels or {}, (labels or {}).values() if values is None else values))
        if self.labels:
            self.set_options(write_kwargs={"extension": label_table(self.labels)})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        written: dict[Hashable, Any] = super().__call__(data)
        if self.labels and not self.has_colours:
            write_colours(self.labels, self.folder)
            self.has_colours = True
        for key in self.key_iterator(written) if self.labels else ():
            of_voxel = abs(float(np.linalg.det(affine_of(written[key])[:3, :3]))) / 1000  # mm3 to ml
            map = as_tensor(written[key])
            counts = {name: int((map == value).sum()) for name, value in self.labels.items()}
            written[VOLUMES] = {name: round(count * of_voxel, 3) for name, count in counts.items()}
        return written
