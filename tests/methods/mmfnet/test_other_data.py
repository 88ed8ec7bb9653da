"""Train, evaluate, infer and pack with one overlay: three labels, two modalities, odd spacings, LPS and RAS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.methods.mmfnet import MMFNet
from common.packaging import pack_bundle, verify_package
from common.reporting import read_scores

from ...workflows import assert_label_maps, config_of
from .tiny import MMFNET

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config

LABELS = {"left": 1, "middle": 2, "right": 5}
BOTH = ["image", "label"]
PLAN = {  # what `plan` adds to the recipe of the bundle
    "modalities": ["FLAIR", "DWI"], "labels": LABELS, "regions": {}, "label_map": {}, "segments": {},
    "check": [{"_target_": "common.transforms.CheckMRId", "keys": "image"}],
    "normalize": [
        {"_target_": "common.transforms.ResampleAxesd", "keys": BOTH, "pixdim": [1.5, 1.5, 2.0],
         "mode": ["bilinear", "nearest"], "allow_missing_keys": True},
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    ],
    "augment": [
        {"_target_": "CastToTyped", "keys": BOTH, "dtype": "float32"},
        {"_target_": "RandSpatialCropd", "keys": BOTH, "roi_size": "@roi_size", "random_size": False},
        {"_target_": "RandAffined", "keys": BOTH, "prob": 0.7, "rotate_range": 0.2, "mode": ["bilinear", "nearest"]},
        {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.2, "std": 0.1},
    ],
    "optimizer": {"_target_": "torch.optim.AdamW", "_mode_": "callable", "lr": "@learning_rate"},
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_mode_": "callable",
                     "T_max": "@max_epochs"},
    "roi_size": [16, 24, 16], "batch_size": 2, "updates_per_epoch": 2, "max_epochs": 2, "val_interval": 2,
    "learning_rate": 0.002, "amp": False,
}  # fmt: skip
NARROW = {"network_def::channels": [2, 4, 4], "network_def::reduction": 2}


def write_task(folder: Path, modalities: list[str]) -> Path:
    """Write a Decathlon folder of boxes that are three labels; the axes and the spacing differ from case to case."""
    names = [f"P{number}" for number in range(5)]
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        label = np.zeros((21, 19, 13), np.uint8)
        for start, value in zip((2, 8, 14), LABELS.values()):
            label[start : start + 5, 5:14, 3:10] = value
        image = rng.normal(300, 20, (*label.shape, len(modalities))) + 100.0 * label[..., None]
        affine = np.diag([1.3, 1.7, 2.3 + 0.1 * number, 1.0])
        for part, volume in (("images", image.astype(np.int16)), ("labels", label)):
            scan = nib.Nifti1Image(volume.squeeze(), affine)
            if number % 2:
                scan = scan.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
            nib.save(scan, folder / part / f"{name}.nii.gz")
    cases = [{"case": name, "image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in names]
    listing = {
        "modality": {str(number): name for number, name in enumerate(modalities)},
        "labels": {"0": "background", **{str(value): name for name, value in LABELS.items()}},
        "training": cases[:2], "validation": cases[2:3], "test": cases[3:],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def write_overlay(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**config_of(MMFNET, "plan")["overlay"], **PLAN, **NARROW, **changes}))
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ConfigWorkflow]:
    """Run configs of the bundle below an overlay, in another working directory."""
    monkeypatch.chdir(tmp_path)

    def run_configs(overlay: Path, *names: str) -> ConfigWorkflow:
        flow = ConfigWorkflow(
            config_file=[*(str(MMFNET / "configs" / f"{name}.json") for name in names), str(overlay)],
            meta_file=str(MMFNET / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="infer" if names[0] == "inference" else "train",
            bundle_root=str(MMFNET),
            dataset_dir=str(tmp_path / "data"),
            ckpt_dir=str(tmp_path / "models"),
            output_dir=str(tmp_path / "out"),
        )
        flow.initialize()
        flow.run()
        return flow

    return run_configs


@pytest.mark.usefixtures("warm_packing")
@pytest.mark.parametrize("modalities", [["FLAIR", "DWI"], ["bold"]], ids=["two modalities", "one modality"])
def test_one_overlay_serves_a_task_of_three_labels(run: Callable, tmp_path: Path, modalities: list[str]) -> None:
    data = write_task(tmp_path / "data", modalities)
    overlay = write_overlay(tmp_path / "plan.json", modalities=modalities)
    flow = run(overlay, "train")
    assert [stage.name for stage in flow.trainer.stages] == ["from scratch"]
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert len({key.split(".")[1] for key in weights if key.startswith("encoders.")}) == len(modalities)
    assert weights["head.weight"].shape[0] == 3
    assert {f"Dice {name}" for name in LABELS} <= flow.trainer.state.metrics.keys()

    run(overlay, "train", "evaluate")
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert [row["case"] for row in rows] == ["P3", "P4"]
    scores = {f"{score} {name}" for score in ("Dice", "HD95", "ASSD") for name in LABELS}
    assert set(rows[0]) == {"case", "AP", "Dice loss", *scores}

    for path in (tmp_path / "out").iterdir():
        path.unlink()
    run(overlay, "inference")
    assert_label_maps(tmp_path / "out", data / "labels", ["P3.nii.gz", "P4.nii.gz"], {0, 1, 2, 5})

    if len(modalities) == 1:
        return
    archive = pack_bundle(MMFNET, tmp_path / "models" / "model.pt", tmp_path / "dist", overlay)
    assert verify_package(archive) == f"{MMFNET.name} 0.1.0"
    about = json.loads((tmp_path / "dist" / MMFNET.name / "configs" / "metadata.json").read_text())
    formats = about["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == {str(n): name for n, name in enumerate(modalities)}
    assert [formats[part][name]["num_channels"] for part, name in (("inputs", "image"), ("outputs", "pred"))] == [2, 3]
    written = formats["post_processed_outputs"]["pred"]["channel_def"]
    assert {name: int(value) for value, name in written.items() if name in LABELS} == LABELS


@pytest.mark.usefixtures("warm_packing")
def test_a_package_of_one_modality_passes_its_trial(tmp_path: Path) -> None:
    """The preprocessing is the published one."""
    torch.save(MMFNet(1, channels=(2, 4), reduction=2).state_dict(), tmp_path / "model.pt")
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({**NARROW, "modalities": ["CET1"], "network_def::channels": [2, 4]}))
    pack_bundle(MMFNET, tmp_path / "model.pt", tmp_path / "dist", overlay)
    about = json.loads((tmp_path / "dist" / MMFNET.name / "configs" / "metadata.json").read_text())
    image = about["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["channel_def"], image["modality"]) == (1, {"0": "CET1"}, "MR")
