"""Stages of self-transfer."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from common.methods.mmfnet import MMFNet, self_transfer

narrow = functools.partial(MMFNet, channels=(2, 4), reduction=2)
single = functools.partial(narrow, in_channels=1, fusion="concat")


def test_the_last_stage_writes_the_weights(tmp_path: Path) -> None:
    stages = self_transfer(narrow(), single, ["A", "B", "C"], tmp_path, max_epochs=3, warm_up_epochs=1)
    assert [stage.max_epochs for stage in stages] == [3, 3, 3, 1, 2]
    assert [stage.weights for stage in stages][3:] == [None, "model.pt"]


def test_a_warm_up_of_all_epochs_is_the_result(tmp_path: Path) -> None:
    stages = self_transfer(narrow(), single, ["A", "B", "C"], tmp_path, max_epochs=2, warm_up_epochs=2)
    assert [stage.max_epochs for stage in stages] == [2, 2, 2, 2]
    assert stages[-1].weights == "model.pt"


def test_warm_up_is_cut_to_a_shorter_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = self_transfer(narrow(), single, ["A", "B", "C"], tmp_path, max_epochs=3, warm_up_epochs=5)
    assert [(stage.name, stage.max_epochs) for stage in stages][-1] == ("warm-up", 3)
    assert stages[-1].weights == "model.pt"
    assert "max_epochs 3 leaves no epoch after the warm-up of 5" in caplog.text
