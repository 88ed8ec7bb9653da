"""Test the size of a case after preprocessing, from its header alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose, Flipd, MapTransform, RandomizableTrait, SpatialPadd

from common.doctor.bundle import read_config
from common.doctor.headers import Header, read_header
from common.doctor.preprocessing import Prepared, Preprocessing, straight_grid

from ..conftest import BUNDLES
from ..workflows import TINY

STRAIGHT = np.diag([-1.0, 1.0, 4.0, 1.0])
SAGITTAL = np.array([[0.0, 0, 4, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
SHEARED = np.array([[1.0, 0, 0.3, 5], [0, -1, 0, 2], [0, 0, 3, 0], [0, 0, 0, 1]])


class Half(MapTransform):
    """Keep every second voxel along x, and say so."""

    def shape_after(self, shape: tuple, spacing: tuple) -> tuple[tuple, tuple]:
        return ((shape[0] + 1) // 2, *shape[1:]), (2 * spacing[0], *spacing[1:])

    def __call__(self, data: Any) -> Any:
        return {**data, **{key: data[key][:, ::2] for key in self.keys}}


class First(MapTransform):
    """Keep the first channel, and say so."""

    bytes_per_voxel = 4

    def channels_after(self, channels: int) -> int:
        return 1

    def __call__(self, data: Any) -> Any:
        return {**data, **{key: data[key][:1] for key in self.keys}}


class Crop(MapTransform):
    """Crop to a part that the voxels decide, at most the whole."""

    def shape_after(self, shape: tuple, spacing: tuple) -> tuple[tuple, tuple]:
        return shape, spacing

    def __call__(self, data: Any) -> Any:
        return data


def with_steps(bundle: Path, *steps: dict, name: str = "inference") -> Any:
    config = read_config(bundle, name)
    config["preprocessing"]["transforms"] = [*config["preprocessing"]["transforms"], *steps]
    return config


@pytest.mark.parametrize("affine", [STRAIGHT, SAGITTAL], ids=["axial", "sagittal"])
def test_shape_is_that_of_the_transforms(bundle: Path, write_nifti: Callable, affine: np.ndarray) -> None:
    paths = [
        str(write_nifti(f"{name}.nii.gz", np.random.default_rng(0).random((13, 10, 6), np.float32), affine))
        for name in ("T1", "T2")
    ]
    config = read_config(bundle, "inference")
    real = Compose(config.get_parsed_content("preprocessing").transforms)({"image": paths})["image"]
    prepared = Preprocessing(config, "preprocessing")(read_header(paths[0]), 2)
    assert (prepared.channels, *prepared.shape) == tuple(real.shape) and prepared.crops == ()


def test_shape_of_a_sheared_scan_is_an_upper_bound(bundle: Path, write_nifti: Callable) -> None:
    scan = np.random.default_rng(0).random((13, 10, 6), np.float32)
    paths = [str(write_nifti(f"{name}.nii.gz", scan, SHEARED)) for name in ("T1", "T2")]
    config = read_config(bundle, "inference")
    real = Compose(config.get_parsed_content("preprocessing").transforms)({"image": paths})["image"]
    shape = Preprocessing(config, "preprocessing")(read_header(paths[0]), 2).shape
    assert all(n <= most <= n + 1 for n, most in zip(real.shape[1:], shape))


def test_straight_grid_lies_along_the_axes_of_the_patient() -> None:
    assert straight_grid(Header(Path(), (13, 10, 6), 1, SAGITTAL)) == ((6, 13, 10), (4.0, 1.0, 1.0))


def test_steps_of_an_expression_count_until_the_first_random_one(bundle: Path) -> None:
    config = read_config(bundle, "train")
    config["train::window"] = {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [1, 1, 12]}
    config["normalize"] = [
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [20, 4, 4]},
        {"_target_": f"{__name__}.First", "keys": "image"},
    ]
    config["augment"] = [
        {"_target_": "RandSpatialCropd", "keys": "image", "roi_size": [2, 2, 2]},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [99, 99, 99]},
    ]
    config["train::preprocessing::transforms"] = "$@load + @normalize + [@train::window] + @augment"
    preprocessing = Preprocessing(config, "train::preprocessing")
    assert preprocessing(Header(Path(), (8, 9, 10), 2, np.eye(4)), 2) == Prepared((20, 9, 12), 1)
    assert preprocessing.bytes_per_voxel == 4


def test_disabled_step_does_not_count(bundle: Path) -> None:
    pad = {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [99, 99, 99], "_disabled_": True}
    config = with_steps(bundle, pad)
    assert max(Preprocessing(config, "preprocessing")(Header(Path(), (8, 9, 10), 2, np.eye(4)), 2).shape) < 99


def test_crop_to_the_content_makes_an_upper_bound(bundle: Path) -> None:
    config = with_steps(bundle, {"_target_": f"{__name__}.Crop", "keys": "image"})
    assert Preprocessing(config, "preprocessing")(Header(Path(), (9, 9, 9), 2, np.eye(4)), 2).crops == ("Crop",)


@pytest.mark.parametrize("kind", [Flipd, Half, SpatialPadd])
def test_step_of_another_project_needs_its_shape(bundle: Path, kind: type) -> None:
    step = {"_target_": f"{kind.__module__}.{kind.__name__}", "keys": "image"}
    options = {"spatial_size": [9, 9, 9]} if kind is SpatialPadd else {}
    unknown = Preprocessing(with_steps(bundle, {**step, **options}), "preprocessing").unknown
    assert unknown == (["Flipd"] if kind is Flipd else [])


@pytest.mark.parametrize("real", BUNDLES, ids=lambda path: path.name)
def test_no_step_of_a_bundle_changes_a_size_silently(real: Path, cohort: Callable, tmp_path: Path) -> None:
    """Run each preprocessing on a phantom: the real shape must be the estimate, or below it after a crop."""
    overlay = tmp_path / "tiny.json"
    overlay.write_text(json.dumps(TINY[real.name]))
    lists = json.loads((cohort(real) / "dataset.json").read_text())
    for name, key in (
        ("train", "train::preprocessing"),
        ("train", "validate::preprocessing"),
        ("inference", "preprocessing"),
    ):
        config = read_config(real, name, overlay, cohort(real))
        preprocessing = Preprocessing(config, key)
        assert preprocessing.unknown == []
        case = {
            entry: lists["training"][0][entry] for entry in ("image", "label", "class") if entry in lists["training"][0]
        }
        files = [case["image"]] if isinstance(case["image"], str) else case["image"]
        case |= {"image": [str(cohort(real) / file) for file in files], "label": str(cohort(real) / case["label"])}
        if name == "inference":
            del case["label"]
        channels = len(config.get_parsed_content("modalities"))
        prepared = preprocessing(read_header(case["image"][0]), channels)
        data: Any = case
        for step in config.get_parsed_content(key).flatten().transforms:  # a Compose counts as random
            if isinstance(step, RandomizableTrait):
                break
            data = step(data) if step is not None else data
        real_shape = tuple(data["image"].shape)
        assert real_shape[0] == prepared.channels
        assert all(n <= most for n, most in zip(real_shape[1:], prepared.shape))
        assert prepared.crops or real_shape[1:] == prepared.shape
