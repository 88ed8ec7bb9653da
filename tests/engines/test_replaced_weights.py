"""Test that new weights take the place of those that a training went on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.engines import Stage, TrainingFolder, replaced_weights
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


def test_weights_of_another_folder_stay(models: Path) -> None:
    """Expect a training from weights elsewhere to write to its own folder as any other."""
    stage = Stage("one", conv(), sgd(0.1), 1, weights="model.pt")
    folder = TrainingFolder(models / "training", replaces=models / "model.pt")
    folder.complete(stage)
    assert folder.path == models / "training" and (models / "model.pt").read_text() == "old model.pt"
    folder = TrainingFolder(models, replaces=models / "model.pt")
    folder.complete(stage)
    assert folder.path == models / "training" and (models / "model.pt").read_text() == "new model.pt"
