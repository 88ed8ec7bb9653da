"""Find the body in an MR volume, normalise over it and crop to it (section IV-A).

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
from ...transforms.patches import patch_box

SMALLEST_SIGNAL = 0.25  # of the mean of the volume's body; a slice with a darker bright part holds only noise


def body_mask(volume: np.ndarray, closing_radius: float) -> np.ndarray:
    """Return the mask of the body: intensities of at least half the slice's Otsu threshold, closed in each slice.

    MMFNet takes this mask for its intra-body normalisation from 3D RU-Net (arXiv:1806.10342). Intensities count from
    the smallest one of the volume, so an offset of the background does not matter. A slice of a single value or of
    noise holds no body. A slice counts as noise if its bright voxels have a mean below a quarter of the mean of the
    voxels above the volume's Otsu threshold.

    Args:
        volume: ``(x, y, z)``.
        closing_radius: voxels; an octagon approximates the disc.

    Returns:
        bool ``(x, y, z)``.
    """
    slices = torch.as_tensor(volume).permute(2, 0, 1).contiguous()
    slices -= slices.min()
    mask = np.zeros(volume.shape, dtype=bool)
    if not slices.any():
        return mask
    signal = SMALLEST_SIGNAL * _mean_within(slices, slices >= _otsu(slices))
    for z, image in enumerate(slices):
        if image.max() > image.min():
            bright = image >= 0.5 * _otsu(image)
            if _mean_within(image, bright) >= signal:
                mask[:, :, z] = bright.numpy()
    packed = np.packbits(mask, axis=2)
    close_slices(packed, closing_radius)
    return np.unpackbits(packed, axis=2, count=len(slices)).view(bool)


def _mean_within(image: torch.Tensor, mask: torch.Tensor) -> float:
    return float(torch.from_numpy(image.numpy()[mask.numpy()]).mean())  # torch takes four times as long to index


def _otsu(image: torch.Tensor) -> float:
    counts, low, high = histogram(image)
    width = (high - low) / 256
    return threshold_otsu(hist=(counts.numpy(), low + width * (np.arange(256) + 0.5)))


def histogram(image: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Return the counts in 256 bins of equal width, the lowest and the highest value of an image.

    The counts are those of ``torch.histc``, which takes ten times as long.
    """
    low, high = image.aminmax()
    bins = (image - low).mul_(256).div_(high - low).clamp_(max=255)  # the highest value belongs to the last bin
    return torch.bincount(bins.to(torch.uint8).flatten(), minlength=256), float(low), float(high)


def close_slices(mask: np.ndarray, radius: float) -> None:
    """Close each slice of a mask in place with an octagon.

    SciPy's closing takes ten times as long. The operations are those of bits, so one byte may hold eight slices.

    Args:
        mask: bool ``(x, y, z)``, or uint8 with the slices packed by ``numpy.packbits``; changed in place.
        radius: voxels.
    """
    square = round(radius * 0.4)
    diamond = round(radius) - square
    for _ in range(2):  # dilates the mask, then its complement; voxels outside the slice count for neither
        for _ in range(diamond):
            before = mask.copy()
            mask[1:] |= before[:-1]
            mask[:-1] |= before[1:]
            mask[:, 1:] |= before[:, :-1]
            mask[:, :-1] |= before[:, 1:]
        for along in (mask, mask.swapaxes(0, 1)):
            for _ in range(square):
                before = along.copy(order="K")
                along[1:] |= before[:-1]
                along[:-1] |= before[1:]
        np.invert(mask, out=mask)


def body_box(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounding box of the largest 6-connected component above the volume's Otsu threshold.

    Args:
        volume: ``(x, y, z)``.

    Returns:
        first voxel and end (exclusive) along each axis.
    """
    body = cc3d.largest_k(volume > _otsu(torch.from_numpy(volume)), k=1, connectivity=6)
    inside = [np.flatnonzero(body.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return np.array([line[0] for line in inside]), np.array([line[-1] + 1 for line in inside])


class NormalizeBodyd(MapTransform):
    """Normalise intensities channel by channel: ``(I - mean) / std`` over the voxels of the body mask.

    Source: MMFNet section IV-A, after 3D RU-Net. The mask is :func:`body_mask`; mean and standard deviation are those
    of all slices with a body. Damaged voxels are corrected by :func:`~common.transforms.intensity.without_hot_voxels`
    first.

    Args:
        keys: images ``(C, x, y, z)``.
        closing_radius: mm within the slice (10 voxels of 0.5 mm in 3D RU-Net).

    Raises:
        InputError: no body was found in a channel, or it has no contrast there.
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
                    raise InputError(
                        f"{name} has no contrast: no body found on its background; give the scan of this modality"
                    )
                result.copy_(channel).sub_(float(body.mean(dtype=np.float64))).div_(deviation)
            d[key] = normalised
        return d


class CropBodyd(MapTransform, InvertibleTransform):
    """Crop to a fixed in-plane size around the centre of the body and to the slices of the body.

    Voxels outside the volume get ``pad_value``. The inverse puts the region back and fills the rest with zeros.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        image_key: key of the image; the first channel goes to :func:`body_box`.
        roi_size: window of the network in voxels; x and y are the size of the region, z its smallest number of slices.
        margin: voxels to keep around the region along each axis, for augmentation that shifts patches.
        pad_value: value outside an image; clipping makes a very low value the lowest of each channel.
        label_keys: keys of label maps, which are 0 outside the volume.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        image_key: str = "image",
        margin: Sequence[int] = (0, 0, 0),
        pad_value: float = -1e4,
        label_keys: KeysCollection = ("label",),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.image_key = image_key
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
        box_start, box_end = body_box(d[self.image_key][0].detach().cpu().numpy())
        region = np.array([self.roi_size[0], self.roi_size[1], max(self.roi_size[2], box_end[2] - box_start[2])])
        start = np.array([*((box_start + box_end - self.roi_size) // 2)[:2], box_start[2]]) - self.margin
        for key in self.key_iterator(d):
            inside, outside = patch_box(start, region + 2 * self.margin, d[key].shape[1:])
            value = 0.0 if key in self.label_keys else self.pad_value
            d[key] = self.pad(self.crop(d[key], tuple(inside)), to_pad=[(0, 0), *outside], value=value)
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop.inverse(self.pad.inverse(d[key]))
        return d
