"""Find CT scans in which the anatomy contradicts the directions of the axes in the header."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import cc3d
import nibabel as nib
import numpy as np
from scipy import ndimage

COARSE = 4.0  # mm between the voxels that are examined
AIR_HU, TISSUE_HU, BONE_HU, LUNG_HU = -850.0, -300.0, 250.0, (-950.0, -500.0)
MIDLINE = 0.12  # share of the body's width on either side of its middle: includes the spine, not ribs or stomach
SMALLEST_SPINE_ML = 5.0
SMALLEST_TABLE_ML = 50.0
SMALLEST_LUNG_ML = 100.0
CLEAR = 0.8  # share of the bone or the table on one side of the body's middle that makes the side clear
OFF_CENTRE = 0.05  # share of the body's width by which a liver lies at least to one side
AT_END, FREE_END = (
    30.0,
    80.0,
)  # mm from lungs to an end of the scan: they reach it below the first, and not above the second
TRUNK, NECK = (
    0.6,
    0.4,
)  # share of the body's largest area in a slice: an abdomen has more than TRUNK, a neck less than NECK

logger = logging.getLogger(__name__)


class CheckAnatomyd:
    """Log a warning if the anatomy of a CT of the trunk contradicts its header.

    - Front and back: the bone in the midline of the body is the spine, which lies behind the body's middle. If a table
      is visible, it must agree, because a patient may lie prone.
    - Head and feet: if lungs reach one end of the scan, the other end shows the abdomen or the neck.
    - Left and right: the liver lies on the right.

    A rule that does not find its structure logs nothing. A volume that was stored as LPS with a header of RAS has front
    and sides exchanged, so the spine shows the error without a label.

    Args:
        key: CT in HU as read from its file, ``(C, x, y, z)`` with its affine.
        liver: True if ``label_key`` is above 0 in the liver alone.
        label_key: label map.
    """

    def __init__(self, key: str = "image", liver: bool = False, label_key: str = "label") -> None:
        self.key, self.liver, self.label_key = key, liver, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        image = data[self.key]
        affine = np.asarray(image.affine, dtype=np.float64)
        hu, spacing = _coarse(np.asarray(image[0]), affine)
        label = data.get(self.label_key) if self.liver else None
        liver = np.zeros(hu.shape, dtype=bool) if label is None else _coarse(np.asarray(label[0]), affine)[0] > 0
        found = contradictions(hu, spacing, liver)
        if found:
            logger.warning(
                "%s: the anatomy contradicts the header (%s): %s; if so in the whole data set, correct its headers",
                image.meta.get("filename_or_obj", self.key), "".join(nib.orientations.aff2axcodes(affine)),
                " and ".join(found),
            )  # fmt: skip
        return data


def contradictions(hu: np.ndarray, spacing: np.ndarray, liver: np.ndarray) -> list[str]:
    """Return texts on structures that lie in a wrong place in a CT in RAS+ orientation.

    Args:
        hu: CT in HU, ``(x, y, z)``; x increases to the right, y to the front, z to the head.
        spacing: voxel size in mm along x, y, z.
        liver: mask of the liver on the same grid; may be empty.
    """
    body = cc3d.largest_k(ndimage.binary_opening(hu > TISSUE_HU), k=1, connectivity=6) > 0
    if not body.any():
        return []
    found = []
    (x0, y0, _), (x1, y1, _) = (f(np.argwhere(body), axis=0) for f in (np.min, np.max))
    middle, width = ((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0 + 1
    if _front(hu, body, spacing, middle, width) == 1:
        found.append("the spine lies in front")
    if _head(hu, body, spacing) == -1:
        found.append("the head end lies at the feet")
    if liver.any() and np.argwhere(liver)[:, 0].mean() < middle[0] - OFF_CENTRE * width:
        found.append("the liver lies on the left")
    return found


def _front(hu: np.ndarray, body: np.ndarray, spacing: np.ndarray, middle: tuple[float, float], width: float) -> int:
    """Return 1 if the spine lies in front of the body's middle, -1 if behind, 0 if this is not clear."""
    x, y = np.ogrid[: hu.shape[0], : hu.shape[1]]
    bone = (hu > BONE_HU) & body & (np.abs(x - middle[0]) <= MIDLINE * width)[..., None]
    if bone.sum() * np.prod(spacing) / 1000 < SMALLEST_SPINE_ML:
        return 0
    spine = _side(bone, y, middle[1])
    outside = cc3d.largest_k((hu > AIR_HU) & ~ndimage.binary_dilation(body, iterations=2), k=1, connectivity=6) > 0
    table = _side(outside, y, middle[1]) if outside.sum() * np.prod(spacing) / 1000 > SMALLEST_TABLE_ML else 0
    return spine if table in (0, spine) else 0


def _side(mask: np.ndarray, y: np.ndarray, middle: float) -> int:
    """Return 1 if most of a mask lies in front of the middle, -1 if behind, 0 if neither is clear."""
    ahead = float((mask & (y > middle)[..., None]).sum() / mask.sum())
    return 1 if ahead > CLEAR else -1 if ahead < 1 - CLEAR else 0


def _head(hu: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> int:
    """Return 1 if the head lies at the last slices, as in the header, -1 if at the first, 0 if this is not clear."""
    enclosed = np.stack([ndimage.binary_fill_holes(part) for part in np.moveaxis(body, 2, 0)], axis=2) & ~body
    lung = ndimage.binary_opening(enclosed & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]))
    lung = cc3d.largest_k(lung, k=2, connectivity=6) > 0
    if lung.sum() * np.prod(spacing) / 1000 < SMALLEST_LUNG_ML:
        return 0
    slices = np.flatnonzero(lung.any((0, 1)))
    gaps = np.array([slices[0], hu.shape[2] - 1 - slices[-1]]) * spacing[2]  # below the lungs, above them
    if not (gaps.min() <= AT_END and gaps.max() >= FREE_END):
        return 0
    area = (body | enclosed).sum((0, 1))
    count = max(1, round(20 / spacing[2]))
    below = bool(gaps[0] > gaps[1])  # True if the lungs do not reach the lower end
    share = float(np.median(area[:count] if below else area[-count:]) / area.max())
    if NECK < share < TRUNK:
        return 0
    return 1 if below == (share >= TRUNK) else -1  # the end without lungs is the abdomen or the neck


def _coarse(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume in RAS+ at steps of about 4 mm, and its voxel size in mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.maximum(1, (COARSE / spacing + 1e-6).astype(int))
    orientation = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(volume[tuple(slice(None, None, step) for step in steps)], orientation)
    return turned, (spacing * steps)[np.argsort(orientation[:, 0])]
