"""Test stages of MMFNet's training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from common.engines import FineTuning, Stage
from common.errors import InputError, UsageError
from common.methods.mmfnet import MMFNet, training_stages

narrow = functools.partial(MMFNet, channels=(2, 4), reduction=2)
single = functools.partial(narrow, in_channels=1, fusion="concat")


def stages_of(folder: Path, **options: Any) -> list[Stage]:
    adam = functools.partial(torch.optim.Adam, lr=0.5)
    return training_stages(narrow(), single, adam, ["A", "B", "C"], [0, 1, 2], folder, **options)


def test_the_last_stage_writes_the_weights(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, max_epochs=3, warm_up_epochs=1)
    assert [stage.max_epochs for stage in stages] == [3, 3, 3, 1, 2]
    assert [stage.weights for stage in stages][3:] == [None, "model.pt"]


def test_a_warm_up_of_all_epochs_is_the_result(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, max_epochs=2, warm_up_epochs=2)
    assert [stage.max_epochs for stage in stages] == [2, 2, 2, 2]
    assert stages[-1].weights == "model.pt"


def test_warm_up_is_cut_to_a_shorter_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = stages_of(tmp_path, max_epochs=3, warm_up_epochs=5)
    assert [(stage.name, stage.max_epochs) for stage in stages][-1] == ("warm-up", 3)
    assert stages[-1].weights == "model.pt"
    assert "max_epochs 3 leaves no epoch after the warm-up of 5" in caplog.text


def test_fine_tuning_alone_has_its_own_rate(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, max_epochs=3, warm_up_epochs=1, fine_tuning_rate=0.25)
    rates = [stage.start_optimizer()[0].param_groups[0]["lr"] for stage in stages]
    assert rates == [0.5, 0.5, 0.5, 0.5, 0.25]


def test_every_stage_has_the_schedule(tmp_path: Path) -> None:
    cosine = functools.partial(CosineAnnealingLR, T_max=3)
    for self_transfer in (True, False):
        stages = stages_of(tmp_path, self_transfer=self_transfer, lr_scheduler=cosine)
        assert {stage.lr_scheduler for stage in stages} == {cosine}


def test_without_self_transfer_one_stage_trains_all(tmp_path: Path) -> None:
    (stage,) = stages_of(tmp_path, self_transfer=False, max_epochs=3, patience=2)
    assert (stage.name, stage.max_epochs, stage.patience, stage.weights) == ("from scratch", 3, 2, "model.pt")


def test_channels_choose_the_modalities(tmp_path: Path) -> None:
    network = functools.partial(narrow, in_channels=2)()
    adam = functools.partial(torch.optim.Adam, lr=0.5)
    stages = training_stages(network, single, adam, ["A", "B", "C"], [2, 0], tmp_path)
    assert [(stage.name, stage.channels) for stage in stages[:2]] == [("C", [0]), ("A", [1])]


def test_self_transfer_refuses_other_beginnings(tmp_path: Path) -> None:
    torch.save(narrow().state_dict(), tmp_path / "base.pt")
    for tuning in (FineTuning(tmp_path / "base.pt"), FineTuning(freeze_encoder=2)):
        with pytest.raises(UsageError, match=r"with self-transfer.* give --self_transfer false"):
            stages_of(tmp_path, fine_tuning=tuning)
        (stage,) = stages_of(tmp_path, fine_tuning=tuning, self_transfer=False)
        assert stage.name == ("from other weights" if tuning.init_weights else "from scratch")
        assert stage.fine_tuning == tuning


def test_every_stage_warms_up(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, fine_tuning=FineTuning(warm_up=3))
    assert [stage.fine_tuning.warm_up for stage in stages] == 5 * [3]


def test_channels_without_a_modality_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--channels \[0, 3\]: expected indices from 0 to 2, of A, B, C"):
        training_stages(narrow(), single, torch.optim.Adam, ["A", "B", "C"], [0, 3], tmp_path)


def test_encoders_of_other_channels_are_refused(tmp_path: Path) -> None:
    other = functools.partial(MMFNet, in_channels=1, fusion="concat", channels=(4, 8))
    with pytest.raises(InputError, match="the encoders of network_def and single_modality_network differ"):
        training_stages(narrow(), other, torch.optim.Adam, ["A", "B", "C"], [0, 1, 2], tmp_path)
