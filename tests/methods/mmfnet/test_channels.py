from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.methods.mmfnet import ClipChannelsd, SelectChannelsd, clipping_ranges


def image(channels: int) -> MetaTensor:
    values = torch.linspace(-10, 10, 24).reshape(1, 4, 3, 2).repeat(channels, 1, 1, 1)
    return MetaTensor(values, affine=np.diag([1.25, 0.75, 4, 1]), meta={"filename_or_obj": "P1_T1.nii.gz"})


def test_ranges_follow_the_names_of_the_modalities() -> None:
    assert clipping_ranges(["T1", "T2", "CET1"]) == [[-2, 1], [-3, 2], [-2, 3.5]]  # section IV-A
    assert clipping_ranges(["CET1"]) == [[-2, 3.5]]
    assert clipping_ranges(["DWI", "T1"]) == [[-3, 3.5], [-2, 1]]


def test_each_channel_has_its_own_range() -> None:
    clipped = ClipChannelsd("image", [(-2, 1), (-3, 3.5)])({"image": image(2)})["image"]
    assert clipped.amin((1, 2, 3)).tolist() == [-2, -3] and clipped.amax((1, 2, 3)).tolist() == [1, 3.5]
    within = (image(1)[0] > -2) & (image(1)[0] < 1)
    assert torch.equal(clipped[0][within], image(1)[0][within])
    assert clipped.affine[2, 2] == 4


def test_another_number_of_channels_than_ranges_is_refused() -> None:
    with pytest.raises(InputError, match=r"P1_T1.nii.gz: 1 channels, but 2 clipping ranges; .* modalities"):
        ClipChannelsd("image", [(-2, 1), (-3, 2)])({"image": image(1)})


def test_selected_channels_keep_order_and_affine() -> None:
    numbered = image(3)
    numbered[:] = torch.arange(3.0)[:, None, None, None]
    selected = SelectChannelsd("image", [2, 0])({"image": numbered})["image"]
    assert selected[:, 0, 0, 0].tolist() == [2, 0]
    assert selected.affine[2, 2] == 4


def test_a_channel_that_the_image_lacks_is_refused() -> None:
    message = r"P1_T1.nii.gz: channels is \[0, 2\], but the image has only 2.* give --channels .\[0, 1\]"
    with pytest.raises(InputError, match=message):
        SelectChannelsd("image", [0, 2])({"image": image(2)})
