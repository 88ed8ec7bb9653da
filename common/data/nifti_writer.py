"""Write volumes as NIfTI, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import NibabelWriter

from ..files import whole_file
from .content import gzip


class AtomicNibabelWriter(NibabelWriter):
    """Write NIfTI files for MONAI's ``SaveImage``; a file appears under its name only when it is complete.

    The map must be on its input's grid and gets the input's affine. MONAI's own writer resamples instead, which fails
    for a volume with permuted axes because it treats the volume as 2-D.

    Raises:
        ValueError: the map is not on the input's grid.
    """

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = False, **options: object) -> None:
        affine, _, shape = self.get_meta_info(meta_dict)
        if self.data_obj.shape[:3] != tuple(shape[:3]):
            raise ValueError(
                f"a map of shape {tuple(self.data_obj.shape)}, expected the input's {tuple(shape)}; invert it first"
            )
        self.affine = affine

    def write(
        self,
        filename: str | os.PathLike,
        verbose: bool = False,
        extension: nib.nifti1.Nifti1Extension | None = None,
        **kwargs: object,
    ) -> None:
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype)
        if extension is not None:
            image.header.extensions.append(extension)
        write_nifti(Path(filename), image, self.affine)


def write_nifti(path: Path, image: nib.Nifti1Image, affine: np.ndarray) -> None:
    """Write an image with ``affine`` in mm as sform and qform; the file appears when it is complete."""
    for set_affine in (image.set_sform, image.set_qform):
        set_affine(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    with whole_file(path) as partial:
        # higher levels than 1 save little for their time; without a time stamp, the same image gives the same bytes
        partial.write_bytes(gzip.compress(content, 1, mtime=0) if partial.suffix == ".gz" else content)
