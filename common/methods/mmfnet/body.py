"""Transforms that find the body in an MR or CT volume: its box, its intensities.

Arrays are ``(C, x, y, z)`` with axial slices along z.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform, Pad
from skimage.filters import threshold_otsu

from ...errors import InputError
from ...tensors import as_tensor, source_of
from ...transforms.intensity import without_hot_voxels

SMALLEST_SIGNAL = 0.25  # of the volume's body: a slice whose bright part is darker holds noise alone


def body_mask(volume: np.ndarray, closing_radius: float) -> np.ndarray:
    """Return, slice by slice, where the intensity is at least half the slice's Otsu threshold, closed in the slice.

    This is the mask of the intra-body normalisation that MMFNet takes from 3D RU-Net (arXiv:1806.10342). Intensities
    count from the volume's smallest, so that an offset of the background does not matter. A slice of one single value
    or of noise holds no body; the mean of what is bright in noise is below a quarter of the mean of what is above the
    volume's Otsu threshold.

    Args:
        volume: ``(x, y, z)``.
        closing_radius: in voxels; the disc is approximated by an octagon.
    """
    slices = torch.as_tensor(volume).permute(2, 0, 1).contiguous()
    slices -= slices.min()
    mask = np.zeros(slices.shape, dtype=bool)
    if not slices.any():
        return mask.transpose(1, 2, 0)
    signal = SMALLEST_SIGNAL * float(slices[slices >= _otsu(slices)].mean())
    for image, inside in zip(slices, mask):
        highest = float(image.max())
        if highest > float(image.min()):
            bright = image >= 0.5 * _otsu(image)
            if float(image[bright].mean()) >= signal:
                inside[:] = bright.numpy()
                _close(inside, closing_radius)
    return np.ascontiguousarray(mask.transpose(1, 2, 0))


def _otsu(image: torch.Tensor) -> float:
    low, high = float(image.min()), float(image.max())
    width = (high - low) / 256
    counts = torch.histc(image, 256, low, high).numpy()
    return threshold_otsu(hist=(counts, low + width * (np.arange(256) + 0.5)))


def _close(mask: np.ndarray, radius: float) -> None:
    """Closing of one slice, in place; SciPy's takes ten times as long, which was half of a case's preparation."""
    square = round(radius * 0.4)
    diamond = round(radius) - square
    for _ in range(2):  # the mask grows, then what is outside of it; what lies beyond the slice counts for neither
        for _ in range(diamond):
            before = mask.copy()
            mask[1:] |= before[:-1]
            mask[:-1] |= before[1:]
            mask[:, 1:] |= before[:, :-1]
            mask[:, :-1] |= before[:, 1:]
        for along in (mask, mask.T):
            for _ in range(square):
                before = along.copy(order="K")
                along[1:] |= before[:-1]
                along[:-1] |= before[1:]
        np.logical_not(mask, out=mask)


def body_box(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box of the largest connected component above the volume's Otsu threshold.

    Args:
        volume: ``(x, y, z)``.

    Returns:
        start and end (exclusive) along each axis, in voxels.
    """
    volume = np.ascontiguousarray(volume)
    components = cc3d.largest_k(volume > _otsu(torch.from_numpy(volume)), k=1, connectivity=6)
    box = cc3d.statistics(components)["bounding_boxes"][1]
    return np.array([s.start for s in box]), np.array([s.stop for s in box])


class NormalizeBodyd(MapTransform):
    """Normalise intensities channel by channel: ``(I - mean) / std`` over the voxels of the body mask.

    Source: MMFNet section IV-A, after 3D RU-Net; the mask is :func:`body_mask`, the statistics are of all slices that
    show the body. Damaged voxels count as :func:`~common.transforms.intensity.without_hot_voxels` leaves them.

    Args:
        keys: images ``(C, x, y, z)``.
        closing_radius: in millimetres within the slice (the reference's 10 voxels of 0.5 mm).

    Raises:
        InputError: a channel has no body or no contrast in it.
    """

    def __init__(self, keys: KeysCollection, closing_radius: float = 5.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.closing_radius = closing_radius

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            spacing = float(image.pixdim[:2].mean()) if isinstance(image, MetaTensor) else 1.0
            normalised = torch.empty_like(image, dtype=torch.float32)
            for c, (channel, result) in enumerate(zip(as_tensor(image), as_tensor(normalised))):
                name = f"{source_of(image, key)}: channel {c}"
                channel = without_hot_voxels(channel.detach(), name)
                volume = channel.cpu().numpy()
                body = volume[body_mask(volume, self.closing_radius / spacing)]
                deviation = float(body.std(dtype=np.float64)) if body.size else 0.0
                if deviation == 0:
                    raise InputError(f"{name} has no contrast: no body can be told from the background")
                result.copy_(channel).sub_(float(body.mean(dtype=np.float64))).div_(deviation)
            d[key] = normalised
        return d


class ClipChannelsd(MapTransform):
    """Limit each channel to its own range.

    Args:
        keys: images ``(C, x, y, z)``.
        ranges: lowest and highest value per channel.

    Raises:
        InputError: another number of channels than ranges.
    """

    def __init__(
        self, keys: KeysCollection, ranges: Sequence[tuple[float, float]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ranges = torch.tensor(ranges, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if len(d[key]) != len(self.ranges):
                raise InputError(
                    f"'{key}' has {len(d[key])} channels, expected {len(self.ranges)}, one per clipping range"
                )
            low, high = self.ranges.to(d[key].device)[:, :, None, None, None].unbind(1)
            d[key] = torch.clamp(d[key], low, high)
        return d


class CropBodyd(MapTransform, InvertibleTransform):
    """Crop to a fixed in-plane size around the centre of the body and to the slices of the body.

    What lies outside the volume is padded with ``pad_value``. The inverse puts the region back and fills with zeros.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        source_key: the body box is :func:`body_box` of the first channel of this entry.
        roi_size: window of the network; x and y are the size of the region, z its smallest number of slices.
        margin: voxels to keep around the region along each axis, for augmentation that moves the window.
        pad_value: fill of the images; labels (``label_keys``) are filled with 0. Before clipping, a very low value ends
            as the lowest of each channel.
        label_keys: those of ``keys`` that are label maps.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        source_key: str = "image",
        margin: Sequence[int] = (0, 0, 0),
        pad_value: float = -1e4,
        label_keys: KeysCollection = ("label",),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.source_key = source_key
        self.roi_size = np.asarray(roi_size)
        self.margin = np.asarray(margin)
        self.pad_value = pad_value
        self.label_keys = (label_keys,) if isinstance(label_keys, str) else tuple(label_keys)
        self.crop = Crop()
        self.pad = Pad()

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the largest shape of the region, see :mod:`common.transforms`: no body is longer than the scan."""
        largest = np.array([*self.roi_size[:2], max(self.roi_size[2], shape[2])]) + 2 * self.margin
        return tuple(largest.tolist()), spacing

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        box_start, box_end = body_box(d[self.source_key][0].detach().cpu().numpy())
        size = np.array([self.roi_size[0], self.roi_size[1], max(self.roi_size[2], box_end[2] - box_start[2])])
        start = np.array([*((box_start + box_end - self.roi_size) // 2)[:2], box_start[2]]) - self.margin
        end = start + size + 2 * self.margin
        for key in self.key_iterator(d):
            shape = np.asarray(d[key].shape[1:])
            inside = tuple(slice(int(max(a, 0)), int(min(b, n))) for a, b, n in zip(start, end, shape))
            outside = [(0, 0), *((int(max(-a, 0)), int(max(b - n, 0))) for a, b, n in zip(start, end, shape))]
            value = 0.0 if key in self.label_keys else self.pad_value
            d[key] = self.pad(self.crop(d[key], inside), to_pad=outside, value=value)
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop.inverse(self.pad.inverse(d[key]))
        return d
