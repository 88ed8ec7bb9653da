"""Read and compare label maps of OM-Net's bundle."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

MODALITIES = ("FLAIR", "T1", "CET1", "T2")
REGIONS = {"complete": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def assert_equal_maps(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys() and one
    for case in one:
        np.testing.assert_array_equal(one[case], other[case])


def files_of(cohort: Path, case: str = "case_000") -> dict[str, Path]:
    return {modality: cohort / "images" / f"{case}_{modality}.nii.gz" for modality in MODALITIES}
