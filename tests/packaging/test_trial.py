"""Test the synthetic case of a package's trial, and the metadata of its network's input."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.packaging.modalities import described_input, kind_of_scan
from common.packaging.trial import write_case
from common.transforms import CheckHounsfieldd, CheckMRId

from ..workflows import BUNDLES, PHANTOMS, bundles, config_of

CHECKS = {"CT": CheckHounsfieldd, "MR": CheckMRId}


def changed(config: dict[str, Any], modalities: list[str], kind: str) -> dict[str, Any]:
    """Return an ``inference.json`` with the modalities, check and grid of a plan."""
    check = [{"_target_": f"some_package.transforms.{CHECKS[kind].__name__}", "keys": "image"}]
    resample = {"_target_": "some_package.transforms.ResampleAxesd", "keys": "image", "pixdim": [1, 1, 1.5]}
    return {**config, "modalities": modalities, "check": check, "normalize": [resample], "roi_size": [40, 56, 40]}


def written(bundle: Path, config: dict[str, Any], path: Path) -> nib.Nifti1Image:
    write_case(PHANTOMS[bundle.name], config, path)
    return nib.load(path)


@bundles
def test_case_of_own_modalities_is_the_phantom(bundle: Path, tmp_path: Path) -> None:
    config = config_of(bundle, "inference")
    scan = written(bundle, config, tmp_path / "case.nii.gz")
    phantom = PHANTOMS[bundle.name]
    drawn = phantom(np.random.default_rng(0), phantom.classes[0] if phantom.classes else None)
    channels = np.asarray(scan.dataobj).reshape(*scan.shape[:3], -1)
    for number, name in enumerate(config["modalities"]):
        np.testing.assert_array_equal(channels[..., number], drawn.images[name])
    np.testing.assert_allclose(scan.affine, drawn.affine, atol=1e-4)


def test_case_shrinks_for_an_own_grid_by_reference(tmp_path: Path) -> None:
    bundle = next(b for b in BUNDLES if {"normalize", "spacing"} <= {*config_of(b, "inference")})
    config = config_of(bundle, "inference") | {"roi_size": [16, 16, 8], "spacing": [1.0, 1.0, 1.0]}
    for own_transforms, fits in ((True, True), (False, False)):
        write_case(PHANTOMS[bundle.name], config, tmp_path / "case.nii.gz", own_transforms)
        scan = nib.load(tmp_path / "case.nii.gz")
        size = np.multiply(scan.shape[:3], scan.header.get_zooms()[:3])
        assert bool((size <= 1.5 * np.array([16, 16, 8]) + 1e-3).all()) is fits


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("modalities", [["a"], ["a", "b", "c", "d"]], ids=["one", "four"])
@bundles
def test_case_follows_other_modalities(bundle: Path, modalities: list[str], kind: str, tmp_path: Path) -> None:
    config = changed(config_of(bundle, "inference"), modalities, kind)
    scan = written(bundle, config, tmp_path / "case.nii.gz")
    channels = np.asarray(scan.dataobj).reshape(*scan.shape[:3], -1)
    assert channels.shape[-1] == len(modalities)
    image = torch.as_tensor(np.moveaxis(channels, -1, 0).astype(np.float32))
    CHECKS[kind]("image")({"image": MetaTensor(image, meta={"filename_or_obj": "case.nii.gz"})})
    size = np.multiply(scan.shape[:3], scan.header.get_zooms()[:3]) / (1, 1, 1.5)
    assert (size <= 1.5 * np.array(config["roi_size"]) + 1e-3).all()


@bundles
def test_metadata_of_the_own_input_stay(bundle: Path) -> None:
    config, metadata = config_of(bundle, "inference"), config_of(bundle, "metadata")
    assert described_input(metadata, config, copy.deepcopy(config)) == metadata
    assert kind_of_scan(config) == metadata["network_data_format"]["inputs"]["image"]["modality"]


@bundles
def test_metadata_follow_other_modalities(bundle: Path) -> None:
    config, metadata = config_of(bundle, "inference"), config_of(bundle, "metadata")
    after = changed(config, ["a", "b"], "MR")
    image = described_input(metadata, config, after)["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["channel_def"], image["modality"]) == (2, {"0": "a", "1": "b"}, "MR")
    assert image["format"] == "magnitude"
    assert image["value_range"] == []  # unknown
    assert metadata == config_of(bundle, "metadata")
    after["check"] = []
    assert described_input(metadata, config, after)["network_data_format"]["inputs"]["image"]["modality"] == "n/a"


def test_selected_channels_are_those_of_the_network() -> None:
    (bundle,) = (bundle for bundle in BUNDLES if "channels" in config_of(bundle, "inference"))
    config, metadata = config_of(bundle, "inference"), config_of(bundle, "metadata")
    image = described_input(metadata, config, {**config, "channels": [2]})["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["channel_def"]) == (1, {"0": config["modalities"][2]})
    assert (
        image["value_range"]
        == json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"][
            "value_range"
        ]
    )
