"""Test that new weights take the place of those that a training went on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from common import files
from common.engines import Stage, TrainingFolder, replaced_weights
from common.engines.checkpoints import read_weights
from common.engines.replaced_weights import replace_weights
from common.errors import InputError

from .stages import conv, sgd


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Write weights and their record, and newer ones in the folder ``training``."""
    (tmp_path / "training").mkdir()
    for folder, text in ((tmp_path, "old"), (tmp_path / "training", "new")):
        for name in ("model.pt", "run.json"):
            (folder / name).write_text(f"{text} {name}")
    return tmp_path


def test_new_weights_and_record_replace_the_old_ones(models: Path) -> None:
    replace_weights(models / "model.pt", models / "training" / "model.pt")
    for name in ("model.pt", "run.json"):
        assert (models / name).read_text() == f"new {name}"
        assert (models / "previous_1" / name).read_text() == f"old {name}"
    replace_weights(models / "model.pt", models / "training" / "model.pt")
    assert (models / "previous_1" / "model.pt").read_text() == "old model.pt"
    assert (models / "previous_2" / "model.pt").read_text() == "new model.pt"


def test_failure_leaves_complete_weights(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replaced_weights.shutil, "copyfile", full)
    with pytest.raises(InputError, match="No space left on device"):
        replace_weights(models / "model.pt", models / "training" / "model.pt")
    assert (models / "model.pt").read_text() == "old model.pt"
    assert (models / "run.json").read_text() == "old run.json"


def test_a_kill_between_record_and_weights_is_noticed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(conv().state_dict(), models / "model.pt")
    replace, weights = files.os.replace, models / "model.pt"

    def killed(source: Path, to: Path) -> None:
        if to == weights:
            raise KeyboardInterrupt
        replace(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            replace_weights(weights, models / "training" / "model.pt")
    assert (models / "run.json").read_text() == "new run.json"
    with pytest.raises(InputError, match=r"\.replacing: a training ended .* copy both here from .*previous_1 or from"):
        read_weights(weights)
    for name in ("model.pt", "run.json"):
        shutil.copy(models / "previous_1" / name, models / name)
    (models / ".replacing").unlink()
    assert read_weights(weights).keys() == conv().state_dict().keys()


def test_new_weights_without_record_leave_no_older_record(models: Path) -> None:
    (models / "training" / "run.json").unlink()
    replace_weights(models / "model.pt", models / "training" / "model.pt")
    assert (models / "model.pt").read_text() == "new model.pt"
    assert {path.name for path in models.iterdir()} == {"model.pt", "training", "previous_1"}


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**options: object) -> None:
        raise OSError(30, "Read-only file system", f"{options['dir']}/.partial_x")

    folder = TrainingFolder(models, replaces=models / "model.pt")
    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
        folder.begin([Stage("one", conv(), sgd(0.1), 1, weights="model.pt")], {})


def test_weights_of_another_folder_stay(models: Path) -> None:
    """Expect a training from weights elsewhere to write to its own folder as any other."""
    stage = Stage("one", conv(), sgd(0.1), 1, weights="model.pt")
    folder = TrainingFolder(models / "training", replaces=models / "model.pt")
    folder.complete(stage)
    assert folder.path == models / "training" and (models / "model.pt").read_text() == "old model.pt"
    folder = TrainingFolder(models, replaces=models / "model.pt")
    folder.complete(stage)
    assert folder.path == models / "training" and (models / "model.pt").read_text() == "new model.pt"
