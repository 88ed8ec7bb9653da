from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.methods.omnet import FuseTasksd, fused_probabilities
from common.tensors import dilate

SHAPE = (23, 19, 17)


def fuse(scores: Tensor, **options: int) -> Tensor:
    return FuseTasksd("pred", **options)({"pred": scores})["pred"]


def probabilities(tumours: float = 0.01) -> Tensor:
    """Return sharp probabilities of the three tasks with some voxels of coarse tumour."""
    maps = [torch.softmax(3 * torch.randn(c, *SHAPE), 0) for c in (5, 5, 2)]
    maps[0][[0, 4]] += 100 * (torch.rand(SHAPE) > tumours)  # elsewhere no tumour
    maps[0] /= maps[0].sum(0)
    return torch.cat(maps)


def naive(scores: Tensor, levels: int) -> np.ndarray:
    """Apply the rules of the model cascade voxel by voxel."""
    p1, p2, p3 = (part.numpy() for part in scores.split([5, 5, 2]))
    label = np.zeros(SHAPE, int)
    if levels == 1:
        label[:] = p1.argmax(0)
        label[label == 4] = 0
        return label
    coarse = p1[1] + p1[2] + p1[3] > 0.5
    for x, y, z in np.ndindex(*SHAPE):
        if not coarse[max(x - 5, 0) : x + 6, max(y - 5, 0) : y + 6, max(z - 5, 0) : z + 6].any():
            continue
        fine = p2[:, x, y, z].argmax()
        if fine == 2:
            label[x, y, z] = 2
        elif fine in (1, 3):
            label[x, y, z] = fine if levels == 2 else (3 if p3[:, x, y, z].argmax() == 1 else 1)
    return label


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("tumours", [0.0005, 0.5])
def test_fusion_equals_the_rules_voxel_by_voxel(levels: int, tumours: float) -> None:
    scores = probabilities(tumours)
    before = scores.clone()
    found = fuse(scores, levels=levels)
    assert found.shape == (1, *SHAPE) and found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0].numpy(), naive(scores, levels))
    assert torch.equal(scores, before)
    if levels > 1:
        assert found.unique().tolist() == [0, 1, 2, 3]
    if tumours < 0.1:
        assert 0 < (found > 0).float().mean() < 0.5  # the region is a part only


def test_the_last_task_changes_only_the_core() -> None:
    scores = probabilities()
    three, two = fuse(scores), fuse(scores, levels=2)
    assert torch.equal(three, fuse(scores, levels=3))
    assert torch.equal(three > 0, two > 0) and torch.equal(three == 2, two == 2)
    assert ((two == 1) & (three == 3)).any() and ((two == 3) & (three == 1)).any()


def test_the_region_has_a_margin_of_five_voxels() -> None:
    scores = torch.zeros(12, *SHAPE)
    scores[0] = scores[7] = scores[10] = 1  # no coarse tumour, oedema everywhere
    scores[:, 10, 9, 3] = 0
    scores[[1, 2, 3, 0], 10, 9, 3] = torch.tensor([0.2, 0.2, 0.2, 0.4])  # tumour only if its classes are merged
    scores[7, 10, 9, 3] = 1
    expected = torch.zeros(1, *SHAPE)
    expected[0, 5:16, 4:15, 0:9] = 2
    assert torch.equal(fuse(scores).float(), expected)
    assert fuse(scores, margin=0).nonzero().tolist() == [[0, 10, 9, 3]]
    assert not fuse(scores, levels=1).any()
    scores[[1, 2, 3, 0], 10, 9, 3] = torch.tensor([0.25, 0.25, 0, 0.5])  # half is not more than half
    assert not fuse(scores).any()


def test_without_coarse_tumour_the_result_is_empty() -> None:
    scores = probabilities(tumours=0)
    assert not fuse(scores).any() and not fuse(scores, levels=2).any()
    assert fuse(scores).shape == (1, *SHAPE)


def test_class_4_is_neither_tumour_nor_core() -> None:
    scores = torch.zeros(12, 2, 2, 2)
    scores[1] = scores[9] = scores[11] = 1
    assert not fuse(scores).any() and not fuse(scores, levels=2).any()
    assert (fuse(scores, levels=1) == 1).all()


def test_enhancing_tumour_needs_more_than_half() -> None:
    scores = torch.zeros(12, 2, 2, 2)
    scores[3] = scores[8] = 1
    scores[10:] = 0.5
    assert (fuse(scores) == 1).all()


def test_a_metatensor_keeps_its_metadata() -> None:
    affine = np.diag([2.0, 1, 3, 1])
    scores = MetaTensor(probabilities(), affine=affine, meta={"filename_or_obj": "P1"})
    found = fuse(scores)
    assert isinstance(found, MetaTensor) and found.meta["filename_or_obj"] == "P1"
    np.testing.assert_array_equal(found.affine, affine)
    assert torch.equal(found.as_tensor(), fuse(scores.as_tensor()))
    assert not isinstance(fuse(scores.as_tensor()), MetaTensor)


def test_missing_channels_and_other_levels_are_refused() -> None:
    scores = probabilities()
    for levels, channels in ((1, 5), (2, 10), (3, 12)):
        assert torch.equal(fuse(scores[:channels], levels=levels), fuse(scores, levels=levels))
        with pytest.raises(ValueError, match=rf"'pred' of shape .*: expected {channels} channels"):
            fuse(scores[: channels - 1], levels=levels)
    with pytest.raises(ValueError, match="levels=4: expected 1, 2 or 3"):
        FuseTasksd("pred", levels=4)


def test_dilation_is_cut_at_the_border() -> None:
    mask = torch.zeros(4, 5, 6, dtype=torch.bool)
    mask[0, 2, 5] = True
    expected = torch.zeros_like(mask)
    expected[:3, :5, 3:] = True
    assert torch.equal(dilate(mask[None], 2)[0], expected)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_fused_probabilities_follow_the_nested_tasks(levels: int) -> None:
    scores = probabilities(0.0005)
    found = fused_probabilities(scores[: (5, 10, 12)[levels - 1]], levels)
    assert found.shape == (4, *SHAPE)
    torch.testing.assert_close(found.sum(0), torch.ones(SHAPE))
    coarse, fine = (torch.stack([p[0] + p[4], *p[1:4]]) for p in (scores[:5], scores[5:10]))
    region = dilate((scores[1:4].sum(0) > 0.5)[None], 5)[0]
    if levels == 1:
        torch.testing.assert_close(found, coarse)
        return
    torch.testing.assert_close(found[:, ~region], coarse[:, ~region])
    torch.testing.assert_close(found[[0, 2]][:, region], fine[[0, 2]][:, region])
    assert (found[0, ~region] >= 0.5).all()  # background there, as in the mask
    core = np.isin(naive(scores, levels), (1, 3))
    expected = fine[3] if levels == 2 else (fine[1] + fine[3]) * scores[11]
    torch.testing.assert_close(found[3][core], expected[core])
    torch.testing.assert_close((found[1] + found[3])[core], (fine[1] + fine[3])[core])
