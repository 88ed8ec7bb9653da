"""Use the shipped weights on the real scans beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser, create_workflow

from common.files import sha256
from common.packaging import pack_bundle, verify_package
from common.record import digest_of, read_record
from common.reporting import mean_scores, read_scores
from common.rules import setting_of

from ...tiny import BUNDLES
from .tiny import MMFNET

HIPPOCAMPUS = BUNDLES / "hippocampus_mri_mmfnet"
SAMPLE = HIPPOCAMPUS / "sample"
LABELS = {"anterior": 1, "posterior": 2}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((HIPPOCAMPUS / "configs" / f"{name}.json").read_text())
    return config


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run configs of the bundle from another folder; returns the output folder."""
    monkeypatch.chdir(tmp_path)

    def run(*names: str, **options: Any) -> Path:
        files = [str(HIPPOCAMPUS / "configs" / f"{name}.json") for name in names]
        places = {"bundle_root": HIPPOCAMPUS, "dataset_dir": SAMPLE, "output_dir": tmp_path / "out"}
        workflow = create_workflow(
            config_file=files, workflow_type="train", **{key: str(path) for key, path in places.items()} | options
        )
        workflow.run()
        workflow.finalize()
        return tmp_path / "out"

    return run


@pytest.mark.slow
def test_the_shipped_weights_segment_real_scans(ran: Callable[..., Path]) -> None:
    masks = sorted(ran("inference", limit=4).glob("*_seg.nii.gz"))
    assert len(masks) == 4
    for path in masks:
        mask, truth = nib.load(path), nib.load(SAMPLE / "labelsTr" / path.name.replace("_seg", ""))
        np.testing.assert_allclose(mask.affine, truth.affine, atol=1e-4)
        one, other = np.asarray(mask.dataobj), np.asarray(truth.dataobj)
        for value in LABELS.values():
            dice = 2 * ((one == value) & (other == value)).sum() / ((one == value).sum() + (other == value).sum())
            assert dice > 0.75, path


@pytest.mark.slow
def test_the_sample_scores_what_the_metadata_say(ran: Callable[..., Path]) -> None:
    """The shipped weights have seen none of the cases, else the evaluation refuses them."""
    found = mean_scores(read_scores(ran("train", "evaluate", precision="float32") / "scores.csv"))
    stated = config_of("metadata")["eval_metrics"]
    assert {name: round(found[name], 2) for name in stated} == pytest.approx(
        {name: round(value, 2) for name, value in stated.items()}, abs=0.011
    )


def test_the_record_is_of_other_cases_than_the_sample() -> None:
    record = read_record(HIPPOCAMPUS / "models" / "run.json")
    seen = {case["image"] for case in (*record.train_cases, *record.validation_cases)}
    listing = json.loads((SAMPLE / "dataset.json").read_text())
    images = {digest_of(str(SAMPLE / case["image"])) for case in listing["test"]}
    assert len(images) == 24 and not images & seen
    assert images == {case["image"] for case in record.test_cases}


def test_the_weights_are_small_and_the_data_have_a_licence() -> None:
    assert os.path.getsize(HIPPOCAMPUS / "models" / "model.pt") < 10e6
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*.nii.gz")) < 2.5e6
    for file in (SAMPLE / "LICENSE.txt", HIPPOCAMPUS / "docs" / "data_license.txt"):
        assert "CC BY-SA 4.0" in file.read_text() and "Vanderbilt" in file.read_text()


@pytest.mark.parametrize("name", ["train", "inference"])
def test_it_is_the_bundle_of_the_method_with_other_settings(name: str) -> None:
    """A setting that the two share by name and reference is the same; the plan changed the others."""
    own, published = config_of(name), json.loads((MMFNET / "configs" / f"{name}.json").read_text())
    assert own.keys() <= published.keys()
    planned = {"modalities", "labels", "label_map", "spacing", "normalize", "region", "clip", "crop", "augment",
               "roi_size", "overlap", "network_def", "single_modality_network", "optimizer", "lr_scheduler",
               "learning_rate", "cross_entropy", "self_transfer", "patience", "amp", "segments", "batch_size",
               "max_epochs", "updates_per_epoch", "val_interval", "recorded"}  # fmt: skip
    assert {key for key in own if own[key] != published[key]} <= planned
    references = set(ConfigParser(own).ref_resolver.match_refs_pattern(json.dumps(own)))
    assert {setting_of(reference) for reference in references} <= own.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rival", "size"),
    [("unet", {"channels": [4, 4, 8, 8]}), ("segresnet", {"init_filters": 8}), ("dynunet", {"width": 4})],
)
def test_a_rival_trains_on_the_sample(ran: Callable[..., Path], tmp_path: Path, rival: str, size: dict) -> None:
    cases = [
        {key: str(SAMPLE / case[key]) for key in ("image", "label")}
        for case in json.loads((SAMPLE / "dataset.json").read_text())["test"][:5]
    ]
    listing = {"training": cases[:2], "validation": cases[2:3], "test": cases[3:]}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    options: dict[str, Any] = {f"network_def::network::{key}": value for key, value in size.items()}
    options |= {"dataset_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "models"), "roi_size": [24, 24, 16]}
    ran("train", f"rivals/{rival}", **options, max_epochs=1, updates_per_epoch=2, val_interval=1)
    scores = read_scores(ran("train", "evaluate", f"rivals/{rival}", **options) / "scores.csv")
    assert [[*row][1:3] for row in scores] == [["Dice anterior", "Dice posterior"]] * 2
    options["output_dir"] = str(tmp_path / "masks")
    assert len([*ran("inference", f"rivals/{rival}", **options, limit=1).parent.glob("masks/*_seg.nii.gz")]) == 1
    assert json.loads((HIPPOCAMPUS / f"configs/rivals/{rival}.json").read_text()) == json.loads(
        (MMFNET / f"configs/rivals/{rival}.json").read_text()
    )


@pytest.mark.usefixtures("warm_packing")
def test_its_package_passes_verify(tmp_path: Path) -> None:
    archive = pack_bundle(HIPPOCAMPUS, None, tmp_path / "dist")
    verify_package(archive, True)
    weights = tmp_path / "dist" / HIPPOCAMPUS.name / "models" / "model.pt"
    assert sha256(weights) == sha256(HIPPOCAMPUS / "models" / "model.pt")
