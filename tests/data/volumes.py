"""Write small volumes, and read them as the bundles do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage, SaveImage

from common.data import AtomicNibabelWriter, VolumeReader
from common.errors import InputError, root_cause

NAMES = ["T1", "T2", "CET1"]
SHAPE = (7, 6, 5)
VOLUMES = np.random.default_rng(0).integers(0, 900, (3, *SHAPE)).astype(np.int16)


Write = Callable[..., Path]


def load(paths: Path | list[Path], names: list[str]) -> MetaTensor:
    """Read as the bundles do, with the channels first; raise the reader's own error."""
    try:
        return EnsureChannelFirst()(LoadImage(reader=VolumeReader(names))(paths))
    except Exception as error:
        cause = root_cause(error)
        assert isinstance(cause, InputError), error
        raise cause from None


def save(folder: Path, mask: np.ndarray, name: str = "case.nii.gz", affine: np.ndarray | None = None) -> Path:
    affine = np.eye(4) if affine is None else affine
    meta = {"filename_or_obj": name, "original_affine": affine, "spatial_shape": np.array(mask.shape)}
    options = {"writer": AtomicNibabelWriter, "separate_folder": False, "output_dtype": np.uint8, "print_log": False}
    SaveImage(folder, "seg", ".nii.gz", **options)(MetaTensor(mask[None].astype(np.float32), affine=affine, meta=meta))
    return folder / name.replace(".nii.gz", "_seg.nii.gz")


MASK = (VOLUMES[0] % 3).astype(np.uint8)
