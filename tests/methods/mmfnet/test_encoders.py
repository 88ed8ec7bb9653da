"""Test the encoders: sizes, weights from networks of one modality, freezing."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from common.methods.mmfnet import MMFNet
from common.methods.mmfnet.network import Encoder

from .formulas import BATCH_NORM_RELU, trained_batch_norms


def test_encoder_halves_every_axis_per_level() -> None:
    features = Encoder(1, (8, 16, 32, 64), **BATCH_NORM_RELU)(torch.randn(1, 1, 32, 48, 16))

    assert [tuple(f.shape[1:]) for f in features] == [
        (8, 32, 48, 16),
        (16, 16, 24, 8),
        (32, 8, 12, 4),
        (64, 4, 6, 2),
        (64, 2, 3, 1),
    ]


def test_load_encoders_takes_the_encoders_and_nothing_else() -> None:
    singles = [trained_batch_norms(MMFNet(1, fusion="concat", channels=(4, 8))).eval() for _ in range(3)]
    network = MMFNet(channels=(4, 8)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("encoders.")}

    network.load_encoders([single.state_dict() for single in singles])

    x = torch.randn(1, 3, 16, 16, 8)
    with torch.no_grad():
        for i, single in enumerate(singles):
            modality = x[:, i : i + 1]
            for loaded, expected in zip(network.encoders[i](modality), single.encoders[0](modality), strict=True):
                assert torch.equal(loaded, expected)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


def test_load_encoders_is_strict() -> None:
    network = MMFNet(channels=(4, 8))
    state = MMFNet(1, fusion="concat", channels=(4, 8)).state_dict()

    with pytest.raises(ValueError, match="expected 3 state dicts, one for each encoder, found 2"):
        network.load_encoders([state, state])
    incomplete = {k: v for k, v in state.items() if k != "encoders.0.bottom.conv.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*bottom.conv.weight"):
        network.load_encoders([state, state, incomplete])
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_encoders([state, state, MMFNet(1, fusion="concat", channels=(4, 16)).state_dict()])


def train(network: MMFNet, steps: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    loss_function = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)
    for _ in range(steps):
        x = torch.randn(2, 3, 8, 8, 8)
        optimizer.zero_grad()
        loss_function(network(x), (x[:, :1] > 0).float()).backward()
        optimizer.step()


def test_frozen_encoders_stay_as_they_are_while_the_rest_learns() -> None:
    network = MMFNet(channels=(4, 8), reduction=1)

    def moved_by_training() -> dict[str, bool]:
        before = {k: v.clone() for k, v in network.state_dict().items()}
        train(network.train(), steps=3)  # an engine calls train() before every epoch
        return {k: not torch.equal(before[k], v) for k, v in network.state_dict().items()}

    network.freeze_encoders(True)
    moved = moved_by_training()
    assert {k for k, changed in moved.items() if not changed} == {k for k in moved if k.startswith("encoders.")}
    assert network.training
    assert network.fusions.training
    assert not network.encoders.training

    network.freeze_encoders(False)
    assert network.encoders.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(moved_by_training().values())


def test_freezing_keeps_the_mode_of_the_network() -> None:
    network = MMFNet(channels=(4, 8)).eval()
    for frozen in (True, False):
        network.freeze_encoders(frozen)
        assert not any(module.training for module in network.modules())
