"""Test a package as its receiver uses it, in a process that does not see this repository."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser

from ..errors import InputError
from ..files import read_json
from ..geometry import same_grid
from ..phantoms import PhantomRecipe
from ..record import record_path
from .archive import unpack_zip
from .checksums import check_checksums
from .modalities import kind_of_scan
from .process import in_clean_process

WINDOWS = 1.5  # largest size of the case, in windows of the network


def try_package(
    archive: Path,
    phantom: Mapping[str, Any],
    settings: Mapping[str, Any],
    own_transforms: bool = False,
    code: Path | None = None,
) -> None:
    """Unpack a package elsewhere, check it, infer a synthetic case, and use its scripted network alone.

    Args:
        archive: zip of the package.
        phantom: config of the phantom that makes the case.
        settings: options of the inference, such as a coarser grid than the recorded one, to save time.
        own_transforms: whether ``normalize`` of the package is another one than its bundle's.
        code: folder where the package's wheel is installed, or None.

    Raises:
        InputError: a check failed, or inference wrote no mask on the grid of the case.
    """
    with tempfile.TemporaryDirectory() as temporary:
        elsewhere = Path(temporary)
        folder = unpack_zip(archive, elsewhere)
        check_checksums(folder)
        (elsewhere / "alone").mkdir()
        shutil.copy(folder / "models" / "model.ts", elsewhere / "alone")
        in_clean_process("alone", elsewhere / "alone", "model.ts", code=code)
        if settings:  # the record would refuse another grid
            record_path(folder / "models" / "model.pt").unlink(missing_ok=True)
        case = elsewhere / "data" / "case.nii.gz"
        case.parent.mkdir()
        recipe, config = ConfigParser(dict(phantom)).get_parsed_content(), read_json(folder / "configs/inference.json")
        write_case(recipe, config, case, own_transforms)
        options = {
            "config_file": folder / "configs" / "inference.json",
            "dataset_dir": elsewhere / "data",
            "output_dir": elsewhere / "out",
            **settings,
        }
        in_clean_process("run", elsewhere, *(f"--{key}={value}" for key, value in options.items()), code=code)
        results = [path for path in (elsewhere / "out").iterdir() if path.suffix != ".log"]
        if not results:
            raise InputError(f"{archive.name}: inference of a synthetic case wrote no result")
        for path in results:
            if path.name.endswith("_seg.nii.gz"):
                _check_grid(path, case)


def write_case(phantom: PhantomRecipe, config: Mapping[str, Any], path: Path, own_transforms: bool = False) -> None:
    """Write a scan with the modalities of a package: a phantom, with several channels in one file.

    A modality that the phantom does not have is another one of its modalities. Its values become Hounsfield units or
    intensities of MRI if the package checks for these. For a package with a grid of its own, the phantom becomes so
    small that a few windows cover it.

    Args:
        phantom: recipe of the scan.
        config: ``inference.json`` of the package.
        path: file to write.
        own_transforms: as for :func:`try_package`.
    """
    drawn = phantom(np.random.default_rng(0), phantom.classes[0] if phantom.classes else None)
    volumes = list(drawn.images.values())
    names, kind = config["modalities"], kind_of_scan(config)
    channels = [drawn.images.get(name, volumes[i % len(volumes)]) for i, name in enumerate(names)]
    scan = np.stack([_as_kind(volume, kind) for volume in channels], -1).astype(np.int16)
    shrink = np.diag([*3 * [_shrinkage(drawn.affine, scan.shape[:3], config, own_transforms)], 1.0])
    nib.save(nib.Nifti1Image(scan[..., 0] if len(names) == 1 else scan, shrink @ drawn.affine), path)


def _as_kind(volume: np.ndarray, kind: str) -> np.ndarray:
    """Return the values of a phantom as those of a CT in HU or of an MRI."""
    is_ct = volume.min() < 0
    if kind == "CT" and not is_ct:
        tissue = np.median(volume[volume > 0.1 * volume.max()])
        return (volume / tissue * 1040 - 1000).clip(-1000, 700)  # 40 HU for the median of the tissue
    return (volume + 1000).clip(0) if kind == "MR" and is_ct else volume


def _shrinkage(affine: np.ndarray, shape: Sequence[int], config: Mapping[str, Any], own_transforms: bool) -> float:
    """Return a factor on the size of a phantom, 1 for a package with the grid of its bundle."""
    for step in config.get("normalize", ()):
        pixdim = step.get("pixdim")
        if pixdim == "@spacing" and own_transforms:
            pixdim = config["spacing"]
        if isinstance(pixdim, list) and all(isinstance(size, (int, float)) and size > 0 for size in pixdim):
            extent = np.multiply(shape, np.linalg.norm(affine[:3, :3], axis=0))
            return min(1.0, float((WINDOWS * np.multiply(config["roi_size"], pixdim) / extent).min()))
    return 1.0


def _check_grid(path: Path, case: Path) -> None:
    mask, scan = nib.load(path), nib.load(case)
    if not same_grid(mask.shape, mask.affine, scan.shape[:3], scan.affine):
        raise InputError(f"{path.name}: the mask of a synthetic case has another grid than the case")
