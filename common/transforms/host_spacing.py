"""Correct the voxel size of an image from MONAI Deploy, which exchanges the two spacings of a DICOM slice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError

ROW, COLUMN = "row_pixel_spacing", "col_pixel_spacing"  # distances of rows (y) and columns (x) in mm, from DICOM
TOLERANCE = 1e-3  # largest relative difference of equal spacings

logger = logging.getLogger(__name__)


def host_scaling(meta: Mapping[str, Any], name: str) -> np.ndarray:
    """Return a 4x4 matrix that gives ``original_affine @ matrix`` the spacings of the DICOM series.

    MONAI Deploy's ``DICOMSeriesToVolumeOperator`` (App SDK 4.0.0) gives the spacing of rows to the axis of columns, and
    the reverse. Its images also have both spacings in their metadata. Other images have not, and get the identity.

    Args:
        meta: metadata of an image ``(x, y, z)`` with ``original_affine``.
        name: name of the image for messages.

    Raises:
        InputError: the affine has other spacings than the metadata, in any order.
    """
    if meta.get(ROW) is None or meta.get(COLUMN) is None:
        return np.eye(4)
    row, column = float(meta[ROW]), float(meta[COLUMN])
    found = np.linalg.norm(np.asarray(meta["original_affine"], dtype=np.float64)[:3, :2], axis=0)
    if np.allclose(found, (column, row), rtol=TOLERANCE):
        return np.eye(4)
    if np.allclose(found, (row, column), rtol=TOLERANCE):
        logger.warning(
            "%s: the affine has voxels of %g x %g mm in plane, the DICOM series of %g x %g mm; the latter are used",
            *(name, *found, column, row),
        )
        return np.diag([column / row, row / column, 1.0, 1.0])
    raise InputError(
        f"{name}: voxels of {found[0]:g} x {found[1]:g} mm in the affine, {COLUMN} {column:g} mm and {ROW} {row:g} mm; "
        "give an image with one voxel size"
    )
