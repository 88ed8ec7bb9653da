"""Decide the label from several maps of foreground."""

from __future__ import annotations

import torch

from common.transforms import AddBackgroundd, DecideLabeld


def test_the_largest_label_above_one_half_is_the_class() -> None:
    maps = torch.tensor([[0.2, 0.5, 0.6, 0.7, 0.9], [0.3, 0.1, 0.2, 0.8, 0.9], [0.4, 0.5, 0.7, 0.1, 0.2]])
    d = AddBackgroundd("pred")({"pred": maps[:, :, None, None]})
    assert d["pred"].shape == (4, 5, 1, 1)
    torch.testing.assert_close(d["pred"][0].flatten(), torch.tensor([0.6, 0.5, 0.3, 0.2, 0.1]))
    assert torch.equal(d["pred"][1:].flatten(1), maps)
    assert DecideLabeld("pred")(d)["pred"].flatten().tolist() == [0, 0, 3, 2, 1]


def test_a_single_map_stays_alone() -> None:
    single = {"pred": torch.rand(1, 2, 3, 4)}
    assert AddBackgroundd("pred")(single)["pred"] is single["pred"]
