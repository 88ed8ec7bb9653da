"""Make synthetic scans from seeds: an abdominal CT with organs, a head and a brain MRI, a pair of tumour masks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from common.files import whole_file
from common.methods.mmfnet import HeadPhantom

CT_SIZE = (320, 320, 100)  # voxels
CT_SPACING = (1.0, 1.0, 2.5)  # mm
CT_AFFINE = np.diag(
    [-1.0, -1.0, 2.5, 1.0]
)  # the axes of a stored slice point to the left and to the back, as scanners store it
BODY_RADII = (142.0, 104.0)  # mm, semi-axes in the axial plane
AIR, BODY = -1000.0, -150.0  # Hounsfield units

# Mean in HU, centre in mm from the middle of the body, and semi-axes in mm, along x, y, z. The means are 30 HU apart,
# little more than the standard deviation of the noise, so that no voxel alone identifies its organ. With two classes,
# the first organ is the foreground.
ORGANS = (
    (60, (-62, 10, 34), (46, 52, 50)),
    (-60, (78, 26, 48), (26, 34, 36)),
    (180, (62, 44, -28), (22, 20, 38)),
    (150, (-60, 52, -44), (22, 20, 36)),
    (-90, (26, -30, 44), (38, 30, 26)),
    (210, (4, 34, 0), (11, 11, 118)),
    (120, (-20, 40, -6), (12, 11, 112)),
    (0, (14, 2, -6), (44, 13, 13)),
    (-120, (-44, -48, -24), (19, 16, 22)),
    (240, (0, 70, 0), (22, 16, 120)),
    (-30, (8, -48, -74), (46, 28, 30)),
    (30, (88, -18, -42), (18, 30, 46)),
    (90, (-100, -6, -48), (15, 32, 42)),
)
NOISE, TEXTURE = 24.0, 6.0  # standard deviations in HU of the noise of a voxel and of blobs 6 mm wide


def ct_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a CT in HU, int16, and its organs (1 to 13), uint8, both ``(x, y, z)`` on the grid of ``CT_AFFINE``."""
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * s for n, s in zip(CT_SIZE, CT_SPACING)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    body = (x / BODY_RADII[0]) ** 2 + (y / BODY_RADII[1]) ** 2 + 0 * z <= 1
    hounsfield = np.where(body, np.float32(BODY), np.float32(AIR))
    organs = np.zeros(CT_SIZE, np.uint8)
    for organ, (mean, centre, radii) in enumerate(ORGANS, start=1):
        cx, cy, cz = np.add(centre, rng.uniform(-5, 5, 3))
        rx, ry, rz = np.multiply(radii, rng.uniform(0.9, 1.1, 3))
        inside = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1) & body
        organs[inside] = organ
        hounsfield[inside] = mean + rng.uniform(-5, 5)
    hounsfield = ndimage.gaussian_filter(hounsfield, 0.7 / np.array(CT_SPACING))  # partial volume
    texture = ndimage.gaussian_filter(rng.standard_normal(CT_SIZE, np.float32), 6 / np.array(CT_SPACING))
    hounsfield[body] += texture[body] * np.float32(TEXTURE / texture.std())
    hounsfield += rng.standard_normal(CT_SIZE, np.float32) * np.where(body, np.float32(NOISE), np.float32(NOISE / 3))
    return hounsfield.clip(-1024, 3071).round().astype(np.int16), organs


def ensure_ct(folder: Path, seed: int = 0, copies: tuple[int, int, int] = (1, 1, 1)) -> tuple[Path, Path]:
    """Write a CT and its organs, unless they exist, and return both files.

    Args:
        folder: folder for ``scan/ct.nii.gz`` and ``truth/ct.nii.gz``.
        seed: seed of the volume.
        copies: number of repetitions along each axis; they grow the volume, with equal content per voxel.
    """
    scan, truth = folder / "scan" / "ct.nii.gz", folder / "truth" / "ct.nii.gz"
    if not (scan.exists() and truth.exists()):
        hounsfield, organs = ct_volume(seed)
        _write(np.tile(organs, copies), CT_AFFINE, truth)
        _write(np.tile(hounsfield, copies), CT_AFFINE, scan)
    return scan, truth


def ensure_head(folder: Path, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[Path, Path]:
    """Write a head phantom, unless it exists, and return the folder of the scan and the file of the ground truth.

    Args:
        folder: folder for ``scan/head_T1.nii.gz``, ``head_T2``, ``head_CET1`` and ``truth/head.nii.gz``.
        size: mean size (x, y, z) of the phantom, in voxels.
        spacing: mean voxel size along x, y, z, in mm.
    """
    scan, truth = folder / "scan", folder / "truth" / "head.nii.gz"
    if not truth.exists():
        phantom = HeadPhantom(size=size, spacing=spacing)(np.random.default_rng(0))
        for modality, image in phantom.images.items():
            _write(image.astype(np.int16), phantom.affine, scan / f"head_{modality}.nii.gz")
        _write(phantom.label, phantom.affine, truth)
    return scan, truth


def ensure_brain(folder: Path, size: tuple[int, int, int] = (240, 240, 155)) -> tuple[Path, Path]:
    """Write a skull-stripped brain of four MRI channels, as in BraTS, unless it exists, and return both files.

    Args:
        folder: folder for ``brain.nii.gz``, int16 ``(x, y, z, channel)`` at 1 mm with 0 outside the brain, and
            ``brain_label.nii.gz``, uint8 with three nested tumour parts (1 to 3).
        size: size (x, y, z), in voxels.
    """
    image_file, label_file = folder / "brain.nii.gz", folder / "brain_label.nii.gz"
    if not (image_file.exists() and label_file.exists()):
        rng = np.random.default_rng(0)
        brain = _ellipsoid(size, (0.5, 0.5, 0.5), (0.3, 0.36, 0.42))
        label = np.zeros(size, np.uint8)
        for part, radius in ((2, 0.14), (1, 0.10), (3, 0.06)):
            label[_ellipsoid(size, (0.4, 0.55, 0.55), (radius, radius, 1.3 * radius))] = part
        image = np.zeros((*size, 4), np.int16)
        for channel in range(4):
            signal = rng.uniform(300, 900, 4)[label] + rng.normal(0, 60, size)
            image[..., channel] = np.where(brain, signal.clip(1), 0)
        _write(label, np.eye(4), label_file)
        _write(image, np.eye(4), image_file)
    return image_file, label_file


def tumour_masks(size: tuple[int, int, int] = (240, 240, 155)) -> tuple[np.ndarray, np.ndarray]:
    """Return a prediction and a ground truth, uint8 ``(x, y, z)``, with about 1.4 % of the voxels.

    They differ by a few voxels at the surface and by a stray component.
    """
    rng = np.random.default_rng(0)
    bumps = ndimage.gaussian_filter(rng.standard_normal(size, np.float32), 6)
    bumps *= np.float32(0.25 / bumps.std())
    truth = _ellipsoid(size, (0.4, 0.55, 0.55), (0.14, 0.14, 0.17), bumps)
    prediction = _ellipsoid(size, (0.405, 0.55, 0.56), (0.145, 0.135, 0.17), 0.8 * bumps)
    prediction |= _ellipsoid(size, (0.7, 0.4, 0.3), (0.02, 0.02, 0.03))
    return prediction.astype(np.uint8), truth.astype(np.uint8)


def _ellipsoid(
    size: tuple[int, int, int],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    bumps: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return the mask of an ellipsoid, with centre and semi-axes as fractions of the size."""
    axes = [((np.arange(n, dtype=np.float32) + 0.5) / n - c) / r for n, c, r in zip(size, centre, radii)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(x**2 + y**2 + z**2) + bumps <= 1


def _write(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with whole_file(path) as partial:
        nib.save(image, partial)
