"""Write a small bundle with one convolution, and a data set for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

READER = {"_target_": "common.data.VolumeReader", "channels": "@modalities"}
LABEL_READER = {"_target_": "common.data.VolumeReader", "channels": ["label"], "allow_constant": True}
NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 3, "kernel_size": 1}
BOTH = ["image", "label"]


def _resample(keys: Any, mode: Any = "bilinear") -> dict:
    return {"_target_": "common.transforms.ResampleAxesd", "keys": keys, "pixdim": "@spacing", "mode": mode}


INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "",
    "device": "$torch.device('cpu')",
    "modalities": ["T1", "T2"],
    "spacing": [2.0, 2.0, -1],
    "network_def": NETWORK,
    "inferer": {"_target_": "common.inferers.WindowInferer", "roi_size": [8, 8, 4], "sw_batch_size": 2},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "reader": READER},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            _resample("image"),
        ],
    },
}
TRAIN: dict[str, Any] = {
    **{key: INFERENCE[key] for key in ("bundle_root", "dataset_dir", "device", "modalities", "spacing")},
    "cache_rate": 1.0,
    "cache_device": "@device",
    "load": [
        {"_target_": "LoadImaged", "keys": "image", "reader": READER},
        {"_target_": "LoadImaged", "keys": "label", "reader": LABEL_READER},
        {"_target_": "EnsureChannelFirstd", "keys": BOTH},
        {"_target_": "common.transforms.CheckLabeld", "keys": "label", "num_classes": 2},
        {"_target_": "common.transforms.ClassIndexd", "classes": ["no", "yes"]},
    ],
    "normalize": [_resample(BOTH, ["bilinear", "nearest"])],
    "train": {"preprocessing": {"_target_": "Compose", "transforms": "$@load + @normalize"}},
    "validate": {"preprocessing": {"_target_": "Compose", "transforms": "$@load + @normalize"}},
}
METADATA = {"name": "Two of three", "version": "0.1.0", "monai_version": "0.0.1", "required_packages_version": {}}


def write_bundle(folder: Path, modalities: Sequence[str] = ("T1", "T2"), channels: int = 2) -> Path:
    """Write the configs of the small bundle; return its folder."""
    (folder / "configs").mkdir(parents=True)
    own = {"modalities": list(modalities), "network_def": {**NETWORK, "in_channels": channels}}
    configs = {"inference": {**INFERENCE, **own}, "train": {**TRAIN, "modalities": list(modalities)}}
    for name, content in {**configs, "metadata": METADATA}.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def listing(tmp_path: Path, write_nifti: Callable) -> dict[str, Any]:
    """Write three good cases to ``tmp_path/data``; return their data list, which a test changes and writes."""
    rng = np.random.default_rng(0)
    sections: dict[str, Any] = {"modality": {"0": "T1", "1": "T2"}}
    for section in ("training", "validation", "test"):
        for modality in ("T1", "T2"):
            write_nifti(f"data/{section}_{modality}.nii.gz", rng.random((12, 10, 6), np.float32))
        write_nifti(f"data/{section}_gtv.nii.gz", rng.integers(0, 3, (12, 10, 6)).astype(np.uint8))
        images = [f"{section}_T1.nii.gz", f"{section}_T2.nii.gz"]
        case = {"case": section[0], "image": images, "label": f"{section}_gtv.nii.gz", "class": "yes"}
        sections[section] = [case]
    return sections
