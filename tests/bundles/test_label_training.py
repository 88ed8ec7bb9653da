"""Test that MONAI Label's training goes on from the weights of a package, as its ``BundleTrainTask`` calls MONAI.

MONAI Label 0.8.5 reads ``train.json``, puts a ``CheckpointLoader`` before its handlers and overrides six entries.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from ..conftest import BUNDLES
from ..workflows import bundles, weights_in
from .packed import parser_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config


def studies_of(cohort: Path, folder: Path, modalities: int) -> list[dict[str, str]]:
    """Write a folder of studies as MONAI Label has it: one file for each case, and its label; return the data list."""
    (folder / "labels" / "final").mkdir(parents=True)
    cases = []
    for label in sorted((cohort / "labels").glob("*.nii.gz"))[:3]:
        name = label.name.removesuffix(".nii.gz")
        volumes = [nib.load(file) for file in sorted((cohort / "images").glob(f"{name}*"))]
        assert len(volumes) == modalities
        voxels = np.stack([np.asarray(volume.dataobj) for volume in volumes], axis=-1)
        case = {"image": folder / label.name, "label": folder / "labels" / "final" / label.name}
        nib.save(nib.Nifti1Image(voxels if modalities > 1 else voxels[..., 0], volumes[0].affine), case["image"])
        nib.save(nib.load(label), case["label"])
        cases.append({key: str(path) for key, path in case.items()})
    return cases


def train_as_label_does(package: Path, cases: list[dict[str, str]], epochs: int = 2, **options: Any) -> None:
    config = ConfigParser()
    config.read_config(str(package / "configs" / "train.json"))
    handlers = config.get("train#handlers", [])
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(package / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    overrides = {
        "bundle_root": str(package),
        "train#trainer#max_epochs": epochs,
        "train#dataset#data": cases[:-1],
        "device": "cpu",
        "train#handlers": [loader, *handlers],
        "validate#dataset#data": cases[-1:],
        **options,
    }
    monai.bundle.run(
        run_id="run",
        init_id=None,
        final_id=None,
        meta_file=str(package / "configs" / "metadata.json"),
        config_file=str(package / "configs" / "train.json"),
        **overrides,
    )


def test_training_goes_on_and_keeps_the_weights_before(package: Path, cohort: Callable, tmp_path: Path) -> None:
    bundle = next(b for b in BUNDLES if b.name == package.name)
    inference = json.loads((package / "configs" / "inference.json").read_text())
    cases = studies_of(cohort(bundle), tmp_path / "studies", len(inference["modalities"]))
    models = package / "models"
    before = weights_in(models)

    train_as_label_does(package, cases)
    after = weights_in(models)
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed
    kept = weights_in(models / "previous_1")
    assert all(torch.equal(kept[key], before[key]) for key in before)
    record = json.loads((models / "run.json").read_text())
    assert record["init_weights"]["file"] == "model.pt"
    assert len(record["train_cases"]) == 2
    parser_of(package).get_parsed_content("network_def").load_state_dict(after)

    train_as_label_does(package, cases, epochs=1)
    assert all(torch.equal(weights_in(models / "previous_2")[key], after[key]) for key in after)
    assert {path.name for path in models.glob("*.pt")} == {"model.pt"}  # MONAI Label offers all of them as weights


@bundles
def test_a_loader_may_need_the_stages(workflow: Callable, bundle: Path, tmp_path: Path) -> None:
    """Expect no circle: the stages begin from the weights of the loader."""
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(tmp_path / "start.pt"),
        "load_dict": {"model": "$@stages[-1].network"},
    }
    flow = workflow(bundle, "train")
    torch.save(flow.parser.get_parsed_content("stages")[-1].network.state_dict(), tmp_path / "start.pt")
    parser = workflow(bundle, "train", **{"train::handlers": [loader]}).parser
    assert parser.get_parsed_content("pretrained") == str(tmp_path / "start.pt")
    (handler,) = parser.get_parsed_content("train::handlers")
    assert handler.load_dict["model"] is parser.get_parsed_content("stages")[-1].network


@bundles
def test_a_handler_may_need_the_evaluator(workflow: Callable, bundle: Path) -> None:
    handlers = [{"_target_": "ValidationHandler", "interval": 1, "validator": "@validate::evaluator"}]
    parser = workflow(bundle, "train", **{"train::handlers": handlers}).parser
    evaluator = parser.get_parsed_content("train::trainer").evaluator
    assert parser.get_parsed_content("train::handlers")[0].validator is evaluator
    assert parser.get_parsed_content("pretrained") is None
