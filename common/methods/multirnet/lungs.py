"""Find the lungs in a chest CT: their mask, the crop to their box, and the box in voxels of the scan.

Arrays are ``(C, x, y, z)`` with x along left-right, y along front-back and axial slices along z.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, MapTransform
from scipy import ndimage
from torch import Tensor

from ...errors import InputError
from ...tensors import as_tensor, source_of

COARSE = 3.0  # mm, voxel size of the search
TISSUE_HU = -400.0  # lung and air lie below
AIR_HU = -1000.0  # used where the scan shows no air around the body
AIR_RANGE = (-1150.0, -900.0)  # HU of air across scanners; padding lies below
GAS_ABOVE_AIR = 40.0  # HU; gas of airways and bowel lies within, fully inflated lung at least 70 above air
SMALLEST_ML = 50.0  # both lungs; a CT of the abdomen may show only their bases
SMALLEST_SHARE = 0.1  # of the larger lung's volume; a smaller component is not a second lung
CLOSING = 9.0  # mm; closes over vessels and lesions up to twice as thick

logger = logging.getLogger(__name__)


def lung_mask(volume: Tensor | np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the mask of the lungs of a CT, bool ``(x, y, z)``; it is empty where no lungs were found.

    A voxel is lung if it is darker than tissue, has tissue on all four sides within the slice and is denser than the
    gas of airways and bowel. This gas has the HU of the air around the body. The one or two largest connected
    components are kept, then closed. The rule also finds lungs that reach the first or last slice, and a lung that the
    field of view cuts.

    A consolidation is as dense as the chest wall. The mask leaves it out if it is thicker than a vessel and open to the
    wall. The search uses voxels of about 3 mm, so the mask's border is accurate to 3 mm.

    Args:
        volume: ``(x, y, z)`` in HU.
        spacing: voxel size along x, y, z in mm.
    """
    step = [max(1, round(COARSE / s)) for s in spacing]
    pooled = F.avg_pool3d(as_tensor(torch.as_tensor(volume)).float().cpu()[None, None], step, ceil_mode=True)
    hu, size = pooled[0, 0].numpy(), np.multiply(spacing, step)
    body = cc3d.largest_k(ndimage.binary_opening(hu > TISSUE_HU), k=1, connectivity=6) > 0
    around = hu[(_sides(body) < 2) & (hu > AIR_RANGE[0]) & (hu < AIR_RANGE[1])]
    gas_hu = (float(np.median(around)) if around.size else AIR_HU) + GAS_ABOVE_AIR
    smooth = ndimage.uniform_filter(hu, 3)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, -1]):  # the field of view may cut a lung; at the back is the mattress
        body[edge] |= smooth[edge] > gas_hu
    dark = cc3d.connected_components((hu < TISSUE_HU) & (_sides(body) == 4), connectivity=6)
    # the darkest quarter, since at this voxel size most of a bowel's gas is mixed with its wall
    darkest = ndimage.labeled_comprehension(hu, dark, range(int(dark.max()) + 1), _first_quartile, float, -np.inf)
    darkest[0] = -np.inf  # label 0 is the background
    gas = (darkest < gas_hu)[dark]
    gas |= smooth < gas_hu  # airways
    lung = ndimage.binary_opening(~gas)  # removes their walls, one or two voxels of HU between gas and tissue
    parts = cc3d.largest_k(lung, k=2, connectivity=6)
    volumes = cc3d.statistics(parts)["voxel_counts"][1:] * size.prod() / 1000
    kept = np.flatnonzero(volumes >= SMALLEST_SHARE * volumes.max(initial=0)) + 1
    if volumes[kept - 1].sum() < SMALLEST_ML:
        return np.zeros(volume.shape, dtype=bool)
    closed = _closed(np.isin(parts, kept), np.rint(CLOSING / size).astype(int))
    for axis, (factor, length) in enumerate(zip(step, volume.shape)):
        closed = closed.repeat(factor, axis).take(range(length), axis)
    return closed


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return the first and last index of a mask along an axis."""
    found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(found[0]), int(found[-1])


def _first_quartile(values: np.ndarray) -> float:
    return float(np.percentile(values, 25))


def _sides(tissue: np.ndarray) -> np.ndarray:
    """Return on how many of the four sides within its slice each voxel has tissue."""
    count = np.zeros(tissue.shape, dtype=np.uint8)
    for axis in (0, 1):
        count += np.logical_or.accumulate(tissue, axis)
        count += np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis), axis)
    return count


def _closed(mask: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return the closing of a mask by an ellipsoid of semi-axes ``reach`` in voxels; the volume's border stays."""
    axes = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((axis / max(r, 1)) ** 2 for axis, r in zip(axes, reach)) <= 1
    padded = np.pad(mask, [(r, r) for r in reach])
    grown = ndimage.binary_dilation(padded, ball)
    return ndimage.binary_erosion(grown, ball)[tuple(slice(r, r + n) for r, n in zip(reach, mask.shape))]


class CropLungsd(MapTransform):
    """Crop a chest CT to the box of the lungs with a margin.

    The box reaches equally far to the left and to the right of the field of view's middle. A lung without air is as
    dense as the chest wall and is not found, but the box must hold it, opposite the other lung.

    A warning names foreground of a label outside the box. Training patches are centred on lesions wherever they lie,
    so ``lesion_key`` enlarges the box to hold them. Evaluation must not use it, since inference has no label.

    Args:
        keys: ``(C, x, y, z)``, all on one grid, x along left-right, from :class:`ResampleAxesd`; all but
            ``image_key`` are label maps.
        image_key: key of the CT in HU; its first channel goes to :func:`lung_mask`.
        margin: mm around the lungs, up to the border of the scan.
        mask_key: key of a new entry, the mask of the box, bool ``(1, x, y, z)``; None for no entry.
        lesion_key: key of the label map above 0 in lesions that the box must hold; None for no such map.

    Raises:
        InputError: no lungs were found.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        margin: float = 10.0,
        mask_key: str | None = None,
        allow_missing_keys: bool = False,
        lesion_key: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.margin = margin
        self.mask_key = mask_key
        self.lesion_key = lesion_key
        self.crop = Crop()

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the largest shape of the box, that of the scan, see :mod:`common.transforms`."""
        return shape, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        spacing = image.pixdim.tolist() if isinstance(image, MetaTensor) else [1.0, 1.0, 1.0]
        mask = lung_mask(as_tensor(image)[0], spacing)
        if not mask.any():
            raise InputError(self._no_lungs(image))
        box = []
        for axis, (size, step) in enumerate(zip(mask.shape, spacing)):
            first, last = _extent(mask, axis)
            margin = round(self.margin / step)
            start, stop = first - margin, last + 1 + margin
            if axis == 0:
                start, stop = min(start, size - stop), max(stop, size - start)
            box.append(slice(max(start, 0), min(stop, size)))
        labels = {
            key: (as_tensor(d[key])[0] > 0).cpu().numpy() for key in self.key_iterator(d) if key != self.image_key
        }
        for key, label in labels.items():
            whole, inside = int(label.sum()), int(label[tuple(box)].sum())
            if inside < whole:
                kept = "the box is enlarged to hold them" if key == self.lesion_key else "they are cut off"
                logger.warning(
                    "%s: %d of %d foreground voxels lie outside the box of the lungs with a margin of %g mm; %s",
                    source_of(d[key], key), whole - inside, whole, self.margin, kept,
                )  # fmt: skip
        lesion = labels.get(self.lesion_key)
        if lesion is not None and lesion.any():
            reach = [_extent(lesion, axis) for axis in range(3)]
            box = [slice(min(s.start, first), max(s.stop, last + 1)) for s, (first, last) in zip(box, reach)]
        for key in self.key_iterator(d):
            d[key] = self.crop(d[key], box)
        if self.mask_key is not None:
            d[self.mask_key] = torch.from_numpy(mask[tuple(box)].copy())[None]
        return d

    def _no_lungs(self, image: Tensor) -> str:
        low, high = (float(value) for value in as_tensor(image)[0].aminmax())
        return (
            f"{source_of(image, self.image_key)}: no lungs found in a scan of {_scan_size(image)} with values "
            f"{low:.0f} to {high:.0f}; expected a chest CT in HU, in which air is -1000, with at least "
            f"{SMALLEST_ML:g} ml of lung; check that the file is such a CT and that its units are HU"
        )


def _scan_size(image: Tensor) -> str:
    """Return the extent of the scan as it is in its file, in mm and voxels along its own axes; for messages."""
    shape = tuple(image.shape[1:])
    if not isinstance(image, MetaTensor):
        return f"{' x '.join(map(str, shape))} voxels"
    affine = image.affine
    if "original_affine" in image.meta and "spatial_shape" in image.meta:
        shape, affine = tuple(map(int, image.meta["spatial_shape"])), torch.as_tensor(image.meta["original_affine"])
    millimetres = [f"{n * s:.0f}" for n, s in zip(shape, affine[:3, :3].norm(dim=0).tolist())]
    return f"{' x '.join(millimetres)} mm ({' x '.join(map(str, shape))} voxels)"


class LungBoxd(MapTransform):
    """Add the place of the box of :class:`CropLungsd` in the scan to the case's result.

    A case that was not cropped to the lungs has no mask of them, and its result gets no box.

    The result gets ``"lungs": {"first": [x, y, z], "last": [x, y, z]}``, the first and the last voxel along each axis
    of the scan as it is in its file. The box is computed from the affines, so other steps between the crop and the
    network do not matter, except padding.

    Args:
        keys: the network's image; its ``original_affine`` and ``spatial_shape`` are those of the scan.
        result_key: key of the result, which may exist already.
        lungs_key: key of the mask of the lungs, from :class:`CropLungsd`.
    """

    ending = "_class.json"  # CaseEvaluator writes the result to CASE_class.json

    def __init__(
        self,
        keys: KeysCollection = "image",
        result_key: str = "result",
        allow_missing_keys: bool = False,
        lungs_key: str = "lungs",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.result_key = result_key
        self.lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.lungs_key in d else ():
            image = d[key]
            scan_affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
            to_scan = np.linalg.solve(scan_affine, image.affine.cpu().numpy().astype(np.float64))
            edges = [(-0.5, n - 0.5) for n in image.shape[1:]]
            corners = np.stack(np.meshgrid(*edges, indexing="ij")).reshape(3, -1)
            reached = to_scan[:3, :3] @ corners + to_scan[:3, 3:]
            last = np.asarray(image.meta["spatial_shape"], dtype=int) - 1
            first = np.ceil(reached.min(axis=1) - 1e-4).astype(int).clip(0, last)
            end = np.floor(reached.max(axis=1) + 1e-4).astype(int).clip(0, last)
            box = {"first": first.tolist(), "last": end.tolist()}
            d[self.result_key] = {**d.get(self.result_key, {}), "lungs": box}
        return d
