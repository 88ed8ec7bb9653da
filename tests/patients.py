"""Draw patients of a task that no bundle has: three labels, two MRI modalities, three classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

LABELS = {"cortex": 1, "nucleus": 3, "cyst": 7}
CLASSES = ["healthy", "mild", "severe"]
TESTS = ["P5.nii.gz", "P6.nii.gz"]


def write_patients(write_nifti: Callable[..., Path], folder: Path, empty: Collection[int] = ()) -> Path:
    """Write six patients, half of them in LPS; no two have the same voxel size.

    Args:
        write_nifti: fixture that writes below the parent of ``folder``.
        folder: folder of the data list.
        empty: numbers of the patients without foreground, from 1.
    """
    rng, cases = np.random.default_rng(0), []
    for number in range(1, 7):
        shape = (19 + number, 23 - number, 13)
        apart = np.linalg.norm(np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2, axis=0)
        label = np.select([apart < 2, apart < 4, apart < 6], [7, 3, 1], 0).astype(np.uint8) * (number not in empty)
        sign = -1 if number % 2 else 1
        affine = np.diag([sign * (0.9 + 0.11 * number), sign * 1.17, 1.31, 1])
        affine[:3, 3] = [sign * 9, -7, 5]
        images = []
        for name in ("T1", "T2"):
            images.append(f"images/P{number}_{name}.nii.gz")
            values = 300 + 20.0 * label + rng.normal(0, 9, shape)
            write_nifti(f"{folder.name}/{images[-1]}", values.astype(np.int16), affine)
        write_nifti(f"{folder.name}/labels/P{number}.nii.gz", label, affine)
        case = {"case": f"P{number}", "image": images, "label": f"labels/P{number}.nii.gz"}
        cases.append({**case, "class": CLASSES[number % 3]})
    listing = {"training": cases[:3], "validation": cases[3:4], "test": cases[4:]}
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder
