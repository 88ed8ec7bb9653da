"""Estimates against what is really made and held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from common.data import VolumeReader
from common.data.volumes import coverage
from common.doctor.bundle import read_config
from common.doctor.headers import Header, read_header
from common.doctor.memory import Prepared, Preprocessing, cache_bytes, inference_memory, network_memory

from ..conftest import BUNDLES

OBLIQUE = np.array([[1.0, 0, 0.3, 5], [0, -1, 0, 2], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [np.diag([-1.0, 1.0, 4.0, 1.0]), OBLIQUE], ids=["axes", "sheared"])
def test_the_grid_is_that_of_the_transforms(bundle: Path, write_nifti: Callable, affine: np.ndarray) -> None:
    paths = [
        str(write_nifti(f"{name}.nii.gz", np.random.default_rng(0).random((13, 10, 6), np.float32), affine))
        for name in ("T1", "T2")
    ]
    config = read_config(bundle, "inference")
    real = Compose(config.get_parsed_content("preprocessing").transforms)({"image": paths})["image"]
    prepared = Preprocessing(config, "preprocessing")(read_header(paths[0]), 2)
    assert (prepared.channels, *prepared.shape) == tuple(real.shape)


def test_steps_of_an_expression(bundle: Path) -> None:
    config = read_config(bundle, "train")
    config["normalize"] = [
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [20, 4, 4]},
        {"_target_": "common.methods.mmfnet.SelectChannelsd", "keys": "image", "channels": [1]},
        {"_target_": "common.methods.omnet.CropBraind", "keys": "image"},
        {"_target_": "common.methods.omnet.FindPatchCentresd", "keys": "label"},
        {"_target_": "RandSpatialCropd", "keys": "image", "roi_size": [2, 2, 2]},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [99, 99, 99]},
    ]
    preprocessing = Preprocessing(config, "train#preprocessing")
    assert preprocessing(Header(Path(), (8, 9, 10), 2, np.eye(4)), 2) == Prepared((20, 9, 10), 1)
    assert preprocessing.crops == ["CropBraind"] and preprocessing.index_bytes == 4


@pytest.mark.parametrize("real", BUNDLES, ids=lambda path: path.name)
def test_every_step_of_the_bundles_is_known(real: Path) -> None:
    """A step that is renamed or new needs an entry in the tables, or the estimate would leave it out."""
    for name, key in (("train", "train"), ("train", "validate"), ("inference", "")):
        key = f"{key}#preprocessing".lstrip("#")
        assert Preprocessing(read_config(real, name), key).unknown == []


def test_an_unknown_step_is_named(bundle: Path) -> None:
    config = read_config(bundle, "inference")
    config["preprocessing"]["transforms"].append({"_target_": "monai.transforms.BorderPadd", "keys": "image"})
    assert Preprocessing(config, "preprocessing").unknown == ["BorderPadd"]


def test_crop_to_a_size(bundle: Path) -> None:
    config = read_config(bundle, "inference")
    crop = {"_target_": "common.methods.mmfnet.CropBodyd", "keys": "image", "roi_size": "@spacing", "margin": [1, 2, 0]}
    config["spacing"] = [6, 8, 4]
    config["preprocessing"]["transforms"] = [crop]
    assert Preprocessing(config, "preprocessing")(Header(Path(), (20, 20, 9), 1, np.eye(4)), 1).shape == (8, 12, 9)


def test_bytes_of_a_cached_case() -> None:
    image, label = torch.zeros(3, 5, 6, 7, dtype=torch.float16), torch.zeros(1, 5, 6, 7, dtype=torch.uint8)
    assert cache_bytes(Prepared((5, 6, 7), 3)) == image.nbytes + label.nbytes


def test_layers_are_what_is_alive_at_once() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 1, bias=False), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1))
    voxels, weights = 2 * 6 * 6 * 6, 4 * (4 + 8 + 2)
    channels, most = network_memory(network, (2, 1, 6, 6, 6))
    # the input is made before; of the rest, the most is the convolution's four channels and those of the ReLU
    assert channels == 2
    assert most - weights in (4 * voxels * (1 + 4 + 4), 4 * voxels * (4 + 4))


def test_inference_counts_what_goes_on_side_by_side() -> None:
    memory = inference_memory(
        Header(Path(), (10, 10, 10), 1, np.eye(4)), 2, Prepared((10, 10, 5), 2), 3, 1000, copies=True
    )
    assert memory.reading == 4 * 2 * 2500 and memory.computing == 4 * 500 * 11
    assert memory.finishing == 4 * 500 * 5 + 3000
    plain = inference_memory(Header(Path(), (10, 10, 10), 1, np.eye(4)), 2, Prepared((10, 10, 5), 2), 3, 1000)
    assert plain.computing == 4 * 500 * 6
    one, several = (memory.of_main_memory(n, "cpu") for n in (1, 3))
    assert several - one == sum(memory) - max(memory.reading, memory.computing + memory.layers, memory.finishing)
    assert memory.of_main_memory(3, "cuda") - memory.of_main_memory(1, "cuda") == 0
    assert memory.of_gpu(2) == memory.computing + memory.layers + memory.finishing


def test_header_is_that_of_the_reader(write_nifti: Callable) -> None:
    array = np.random.default_rng(0).random((5, 6, 7, 2), np.float32)
    header = read_header(write_nifti("four.nii.gz", array, OBLIQUE))
    volume, meta = VolumeReader(["a", "b"]).get_data([header.path])
    assert (header.channels, *header.shape) == volume.shape
    np.testing.assert_allclose(header.affine, meta["affine"])


def test_coverage() -> None:
    shape, moved = (16, 16, 16), np.eye(4)
    moved[1, 3] = 4
    assert coverage(shape, np.eye(4), shape, np.eye(4)) == 1
    assert coverage(shape, moved, shape, np.eye(4)) == 0.75
    assert coverage((32, 32, 32), np.eye(4), shape, np.eye(4)) == 1
