"""Test training and inference of MMFNet with other modalities than the paper's three."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.methods.mmfnet import HeadPhantom
from common.phantoms import write_cohort

from ...workflows import assert_label_maps
from .tiny import MMFNET


def write_heads(folder: Path, modalities: list[str]) -> None:
    """Write three heads; a modality that the phantom does not have is CET1 under another name."""
    drawn = [m if m in HeadPhantom.all_modalities else "CET1" for m in modalities]
    write_cohort(HeadPhantom(size=(28, 32, 16), spacing=(6.0, 5.8, 5.5), modalities=drawn), folder, cases=3)
    listing = json.loads((folder / "dataset.json").read_text())
    listing["modality"] = {str(number): name for number, name in enumerate(modalities)}
    (folder / "dataset.json").write_text(json.dumps(listing))


@pytest.mark.parametrize(
    ("modalities", "overlays"), [(["T1"], ["ablations/single_modality_t1"]), (["T1"], []), (["DWI", "T2"], [])]
)
def test_any_modalities_train_and_infer(
    workflow: Callable, tmp_path: Path, modalities: list[str], overlays: list[str]
) -> None:
    data = tmp_path / "heads"
    write_heads(data, modalities)
    options = {"dataset_dir": str(data), "modalities": modalities, "max_epochs": 2, "updates_per_epoch": 1}
    workflow(MMFNET, "train", *overlays, **options).run()
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert len({key.split(".")[1] for key in weights if key.startswith("encoders.")}) == len(modalities)
    workflow(MMFNET, "inference", dataset_dir=str(data)).run()
    assert_label_maps(tmp_path / "out", data / "labels", ["case_002.nii.gz"], {0, 1})
