"""Test that a bundle refuses scans of another kind, and that damaged voxels do not change the other voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.errors import is_input_error, root_cause

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET
from ..methods.omnet.tiny import OMNET

CT, MRI = (MAMTLN_CT, MPUNET, MULTIRNET), (MMFNET, OMNET)
PADDING = -2000


def scans(folder: Path) -> list[Path]:
    """Return the files of the first case of a cohort, with the modalities in alphabetical order."""
    return sorted((folder / "images").glob("case_000*"))


@pytest.fixture
def prepare(workflow: Callable, cohort: Callable, tmp_path: Path) -> Callable[..., torch.Tensor]:
    """Return a function that changes each file of the first case and preprocesses the case as inference does.

    The change is a function (array, number of the modality) -> array.
    """

    def run(bundle: Path, change: Callable[[np.ndarray, int], np.ndarray], name: str = "image") -> torch.Tensor:
        preprocess = workflow(bundle, "inference").parser.get_parsed_content("preprocessing")
        modalities = workflow(bundle, "inference").parser.get_parsed_content("modalities")
        paths = []
        for number, modality in enumerate(modalities):
            (file,) = [
                p for p in scans(cohort(bundle)) if len(modalities) == 1 or p.name.endswith(f"_{modality}.nii.gz")
            ]
            image = nib.load(file)
            array = change(np.asarray(image.dataobj, dtype=np.float32), number)
            paths.append(str(tmp_path / f"{name}_{number}.nii.gz"))
            nib.save(nib.Nifti1Image(array.astype(np.float32), image.affine), paths[-1])
        return preprocess({"image": paths if len(paths) > 1 else paths[0]})["image"]

    return run


def ct_like(array: np.ndarray) -> np.ndarray:
    """Map values by their rank to the Hounsfield units of air, fat and soft tissue."""
    share = array.argsort(axis=None).argsort() / array.size
    hu = np.interp(share, [0, 0.5, 0.5001, 0.6, 0.6001, 1], [-1020, -980, -130, -90, 0, 120])
    return hu.reshape(array.shape)


def blurred(mask: np.ndarray) -> np.ndarray:
    """Map a mask to probabilities between 0 and 1."""
    return 1 / (1 + np.exp(-12 * (mask - 0.5)))


@pytest.mark.parametrize("bundle", CT, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "change",
    [
        lambda hu, _: np.abs(hu + 1000) / 2,
        lambda hu, _: hu + 1024,
        lambda hu, _: np.where(np.indices(hu.shape)[0] < 5, PADDING, hu + 1024),
        lambda hu, _: (hu > 0).astype(float),
        lambda hu, _: np.digitize(hu, [-500, 0, 100]),
        lambda hu, _: blurred((hu > 0).astype(float)) + 1e-4 * np.random.default_rng(0).random(hu.shape),
        lambda hu, _: hu[..., :1],
    ],
    ids=["MRI", "no intercept", "no intercept, padding", "mask", "label map", "probabilities", "2-D"],
)
def test_a_ct_bundle_refuses_other_inputs(bundle: Path, change: Callable, prepare: Callable) -> None:
    with pytest.raises(Exception) as error:
        prepare(bundle, change)
    cause = root_cause(error.value)
    assert is_input_error(cause) and "image_0.nii.gz: " in str(cause) and "expected a" in str(cause)


@pytest.mark.parametrize("bundle", MRI, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "change",
    [
        lambda mri, _: ct_like(mri),
        lambda mri, number: ct_like(mri) if number == 1 else mri,
        lambda mri, _: np.digitize(mri, np.quantile(mri, (0.7, 0.8, 0.9))),
        lambda mri, number: np.digitize(mri, np.quantile(mri, (0.7, 0.8, 0.9))) if number == 1 else mri,
        lambda mri, _: mri[..., :1],
    ],
    ids=["CT", "one CT", "label maps", "one label map", "2-D"],
)
def test_an_mri_bundle_refuses_other_inputs(bundle: Path, change: Callable, prepare: Callable) -> None:
    with pytest.raises(Exception) as error:
        prepare(bundle, change)
    cause = root_cause(error.value)
    assert is_input_error(cause) and ".nii.gz: " in str(cause) and "expected" in str(cause)


@pytest.mark.parametrize("bundle", (*CT, *MRI), ids=lambda path: path.name)
@pytest.mark.parametrize("value", [1e30, 3e38])
def test_extreme_voxels_do_not_change_the_others(
    bundle: Path, value: float, prepare: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    def hot(array: np.ndarray, number: int) -> np.ndarray:
        centre = [n // 2 for n in array.shape]
        array = array.copy()
        array[tuple(slice(c, c + 2) for c in centre)] = value if number == 0 else array[tuple(centre)]
        return array

    intact = prepare(bundle, lambda array, _: array)
    assert "image" not in caplog.text
    damaged = prepare(bundle, hot)
    assert "image_0.nii.gz: " in caplog.text and "limited to" in caplog.text
    assert damaged.shape == intact.shape and damaged.isfinite().all()
    near = (damaged - intact).abs() < 0.1
    assert near.float().mean() > 0.97
