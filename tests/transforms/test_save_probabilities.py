from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCropd
from torch import Tensor

from common import memory
from common.errors import InputError
from common.memory import Memory
from common.transforms import ResampleAxesd, ReturnToScand, SaveProbabilitiesd

SHAPE = (19, 17, 13)
LABELS = {"liver": 1, "tumour": 4, "cyst": 2}


def network_input(lean: float = 0.0) -> MetaTensor:
    """Return a scan on the network's grid, cropped."""
    affine = np.array([[0, -1.5, 0, 20], [2, 0, lean, -30], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    meta = {"original_affine": affine.copy(), "spatial_shape": np.array(SHAPE), "filename_or_obj": "P1.nii.gz"}
    image = MetaTensor(torch.rand(1, *SHAPE), affine=affine, meta=meta)
    image = ResampleAxesd("image", pixdim=(1.3, 1.7, 2.0))({"image": image})["image"]
    return SpatialCropd("image", roi_start=(3, 3, 2), roi_end=(15, 17, 15))({"image": image})["image"]


def saved(folder: Path, image: MetaTensor, scores: Tensor, labels: dict[str, int], **options: Any) -> nib.Nifti1Image:
    data = {"case": "P1", "image": image, "pred": scores}
    SaveProbabilitiesd("pred", folder, labels, **options)(data)
    assert [file.name for file in folder.iterdir()] == ["P1_prob.nii.gz"]
    return nib.load(folder / "P1_prob.nii.gz")


@pytest.mark.parametrize("lean", [0.0, 0.8], ids=["straight", "sheared"])
@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_most_probable_class_is_the_label(tmp_path: Path, lean: float, labels: int, logits: bool) -> None:
    torch.manual_seed(0)
    image = network_input(lean)
    scores = torch.randn(1 + labels, *image.shape[1:]) + 5
    scores = scores if logits else scores.softmax(0)
    file = saved(tmp_path, image, scores, dict(list(LABELS.items())[:labels]), logits=logits)
    found = np.asarray(file.dataobj)
    assert found.shape == (*SHAPE, 1 + labels) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(file.affine, image.meta["original_affine"], atol=1e-5)
    mask = ReturnToScand("pred")({"image": image, "pred": scores})["pred"][0].numpy()
    np.testing.assert_array_equal(found.argmax(-1), mask)
    inside = ReturnToScand("pred", output="probabilities")({"image": image, "pred": torch.ones_like(scores)})["pred"]
    outside = inside[0].numpy() == 0
    assert 0 < outside.mean() < 1
    np.testing.assert_array_equal(found[outside][:, 0], 1)
    if not logits:
        expected = ReturnToScand("pred", output="probabilities")({"image": image, "pred": scores})["pred"].numpy()
        np.testing.assert_allclose(found[~outside], np.moveaxis(expected, 0, -1)[~outside], atol=1e-6)


def test_one_channel_is_the_only_label(tmp_path: Path) -> None:
    image = network_input()
    scores = torch.rand(1, *image.shape[1:])
    found = np.asarray(saved(tmp_path, image, scores, {"tumour": 1}).dataobj)
    expected = ReturnToScand("pred", output="probabilities")({"image": image, "pred": scores})["pred"][0].numpy()
    np.testing.assert_array_equal(found[..., 1], expected)
    np.testing.assert_array_equal(found[..., 0], 1 - expected)


def test_other_number_of_classes_is_an_error(tmp_path: Path) -> None:
    image = network_input()
    with pytest.raises(ValueError, match="of 3 channels, expected classes background, liver, tumour, cyst"):
        saved(tmp_path, image, torch.rand(3, *image.shape[1:]), LABELS)


def test_scan_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = network_input()
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(10_000, 20_000))
    with pytest.raises(InputError, match=r"P1.nii.gz: probabilities of 19 x 17 x 13 voxels .*--probabilities true"):
        saved(tmp_path, image, torch.rand(1, *image.shape[1:]), {"tumour": 1})
    assert not list(tmp_path.iterdir())
