"""Test a package as its receiver uses it, in a process that does not see this repository."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
from monai.bundle import ConfigParser

from ..errors import InputError
from ..geometry import same_grid
from ..phantoms import write_cohort
from ..record import record_path
from .archive import unpack_zip
from .checksums import check_checksums
from .process import in_clean_process


def try_package(archive: Path, phantom: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Unpack a package elsewhere, check it, infer a synthetic case, and use its scripted network alone.

    Args:
        archive: zip of the package.
        phantom: config of the phantom that makes the case.
        settings: options of the inference, such as a coarser grid than the recorded one, to save time.

    Raises:
        InputError: a check failed, or inference wrote no mask on the grid of the case.
    """
    with tempfile.TemporaryDirectory() as temporary:
        elsewhere = Path(temporary)
        folder = unpack_zip(archive, elsewhere)
        check_checksums(folder)
        (elsewhere / "alone").mkdir()
        shutil.copy(folder / "models" / "model.ts", elsewhere / "alone")
        in_clean_process("alone", elsewhere / "alone", "model.ts")
        if settings:  # the record would refuse another grid
            record_path(folder / "models" / "model.pt").unlink(missing_ok=True)
        write_cohort(ConfigParser(dict(phantom)).get_parsed_content(), elsewhere / "data", cases=3)
        options = {
            "config_file": folder / "configs" / "inference.json",
            "dataset_dir": elsewhere / "data",
            "output_dir": elsewhere / "out",
            **settings,
        }
        in_clean_process("run", elsewhere, *(f"--{key}={value}" for key, value in options.items()))
        results = [path for path in (elsewhere / "out").iterdir() if path.suffix != ".log"]
        if not results:
            raise InputError(f"{archive.name}: inference of a synthetic case wrote no result")
        for path in results:
            if path.name.endswith("_seg.nii.gz"):
                _check_grid(path, elsewhere / "data" / "labels" / path.name.replace("_seg", ""))


def _check_grid(path: Path, label: Path) -> None:
    mask, truth = nib.load(path), nib.load(label)
    if not same_grid(mask.shape, mask.affine, truth.shape, truth.affine):
        raise InputError(f"{path.name}: the mask of a synthetic case has another grid than the case")
