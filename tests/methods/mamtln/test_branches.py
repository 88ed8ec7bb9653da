"""Test the branches of the two tasks against their equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from common.methods.mamtln.network import ClassificationBranch, SegmentationBranch

from .formulas import GROUPS, W, attended, down, equal, scales, trained


@pytest.mark.parametrize("attention", [True, False])
def test_segmentation_branch_against_its_formula(attention: bool) -> None:
    branch, a = trained(SegmentationBranch(W, GROUPS, attention, 3)), scales()
    s2 = attended(branch.attention2, [torch.cat([a[3], a[2]], 1), a[1]])
    s1 = attended(branch.attention1, [s2, a[0]])
    equal(branch(a), F.conv3d(s1, branch.head.weight, branch.head.bias))


@pytest.mark.parametrize("attention", [True, False])
def test_classification_branch_against_its_equations(attention: bool) -> None:
    branch, a = trained(ClassificationBranch(W, GROUPS, attention, 3)), scales()
    t2 = attended(branch.attention2, [down(branch.down[0], a[0]), a[1]])
    t3 = attended(branch.attention3, [down(branch.down[1], t2), a[2]])
    pooled = torch.cat([t3, a[3]], 1).mean((2, 3, 4))
    equal(branch(a), pooled @ branch.head.weight.T + branch.head.bias)
