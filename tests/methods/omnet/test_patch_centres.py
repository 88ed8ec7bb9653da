from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.methods.omnet import FindPatchCentresd

SHAPE = (17, 15, 13)


def label() -> Tensor:
    """Return brain from the third voxel on, a tumour in its middle, and one voxel of tumour outside the brain."""
    classes = torch.zeros(1, *SHAPE)
    classes[:, 2:, 2:, 2:] = 4
    classes[:, 8, 7:9, 6] = torch.tensor([1.0, 2.0])
    classes[:, 9, 7, 6] = 3
    classes[:, 0, 0, 0] = 2
    return classes


def centres(classes: Tensor, **options: object) -> dict[str, set[tuple[int, ...]]]:
    found = FindPatchCentresd("label", **options)({"label": classes})["centres"]
    assert all(type(v) is Tensor and v.dtype == torch.int32 and v.device.type == "cpu" for v in found.values())
    return {name: set(zip(*(i.tolist() for i in np.unravel_index(v.numpy(), SHAPE)))) for name, v in found.items()}


def voxels(mask: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, mask[0].nonzero().tolist()))


@pytest.mark.parametrize("radius", [0, 1, 5])
def test_the_voxels_of_each_stream(radius: int) -> None:
    classes = label()
    found = centres(classes, dilation=radius)
    assert found["brain"] == voxels(classes != 0)
    assert found["core"] == {(8, 7, 6), (9, 7, 6)}
    tumour = voxels((classes > 0) & (classes < 4))
    every = [(x, y, z) for x in range(SHAPE[0]) for y in range(SHAPE[1]) for z in range(SHAPE[2])]
    near = {v for v in every if any(max(abs(a - b) for a, b in zip(v, t)) <= radius for t in tumour)}
    assert found["tumour"] == near


def test_the_paper_dilates_by_5() -> None:
    assert centres(label()) == centres(label(), dilation=5)


@pytest.mark.parametrize("classes", [label().to(torch.uint8), label().half(), MetaTensor(label())])
def test_labels_of_any_type_give_the_same_centres(classes: Tensor) -> None:
    before = classes.clone()
    assert centres(classes) == centres(label())
    assert torch.equal(classes, before)


def test_without_tumour_only_the_brain_has_centres() -> None:
    found = centres(4 * (label() != 0))
    assert found["brain"] and not found["tumour"] and not found["core"]


def test_other_entries_of_the_case_stay() -> None:
    case = {"label": label(), "image": "image"}
    result = FindPatchCentresd("label", output_key="places")(case)
    assert result.keys() == {"label", "image", "places"} and case.keys() == {"label", "image"}
