"""Check that a known object comes back in place after each bundle's preprocessing and inverse resampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd, LoadImaged
from scipy.spatial.transform import Rotation

from common.transforms import ReturnToScand

from ..tiny import Body
from ..workflows import BUNDLES, METHOD, MODALITIES, bundles

pytestmark = pytest.mark.slow

AFFINES = 40  # random scans for each bundle, which has its own
BALL, CENTRE = 24.0, np.array([4.0, -7.0, 5.0])  # the object, in mm


def random_scan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw the affine of a scan as a float32 header has it, the middle of the body in mm, and the shape of the scan."""
    steps = rng.permutation(np.array([5.3, 6.4, 7.7]) + rng.uniform(-0.4, 0.4, 3))
    shape = np.ceil(250 / steps).astype(int)
    angles = rng.uniform(-20, 20, 3) * (rng.random(3) < 0.6)
    turns = np.array(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    shear = np.eye(3)
    shear[rng.integers(2), 2] = rng.choice([0, 0, 2e-4, 0.2])
    matrix = turns @ np.diag(rng.choice([-1, 1], 3)) @ shear @ np.diag(steps)
    order = rng.permutation(3)
    matrix, shape, cut = matrix[:, order], shape[order], rng.integers(0, 3, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, rng.uniform(-200, 200, 3)
    middle = affine[:3, :3] @ ((shape - 1) / 2) + affine[:3, 3]
    affine[:3, 3] += matrix @ cut
    shape = shape - cut - rng.integers(0, 3, 3)
    return affine.astype(np.float32).astype(np.float64), middle, shape.tolist()


def distances(shape: Any, affine: Any, point: np.ndarray) -> np.ndarray:
    """Return ``(3, x, y, z)``: the offset of each voxel from a point, in mm."""
    voxels = np.indices(shape).reshape(3, -1)
    affine = np.asarray(affine)
    return (affine[:3, :3] @ voxels + affine[:3, 3:] - point[:, None]).reshape(3, *shape)


def to_ball(shape: Any, affine: Any, middle: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel from the surface of the object in mm, negative inside."""
    return np.linalg.norm(distances(shape, affine, middle + CENTRE), axis=0) - BALL


def scan(bundle: Path, rng: np.random.Generator) -> tuple[MetaTensor, np.ndarray]:
    """Make a scan of the bundle's body with the object in it, with an edge about a voxel wide."""
    body: Body = METHOD[bundle].body
    affine, middle, shape = random_scan(rng)
    apart = distances(shape, affine, middle)
    radius = ((apart / np.reshape(body.radii, (3, 1, 1, 1))) ** 2).sum(0)
    inside = radius < 1
    noise = rng.normal(0, 8, (len(MODALITIES[bundle]), *shape))
    values = np.where(inside, body.tissue + noise, body.background + (noise if body.noisy else 0))
    if body.background == -1000:  # the fat below the skin of a CT
        values[:, inside & (radius > 0.8)] -= 130
    if body.lungs is not None:
        for side in (-62, 62):
            lung = ((apart - np.reshape([side, 5, 0], (3, 1, 1, 1))) / np.reshape([25, 45, 60], (3, 1, 1, 1))) ** 2
            values[:, lung.sum(0) < 1] = body.lungs
    ball = np.clip(0.5 - to_ball(shape, affine, middle) / 10, 0, 1)
    values = values + ball * (body.target - body.tissue)
    meta = {"original_affine": affine.copy(), "spatial_shape": np.array(shape), "filename_or_obj": "P1.nii.gz"}
    return MetaTensor(torch.from_numpy(values).float(), affine=affine, meta=meta), middle


def preprocessing(files: list[str], bundle: Path) -> list[Callable]:
    """Build the steps of inference after reading."""
    parser = ConfigParser()
    parser.read_config(files)
    parser["bundle_root"] = str(bundle)
    steps = parser.get_parsed_content("preprocessing").transforms
    return [step for step in steps if not isinstance(step, (LoadImaged, EnsureChannelFirstd))]


@bundles
def test_an_object_comes_back_within_half_a_voxel(bundle: Path, config_files: Callable) -> None:
    rng = np.random.default_rng([11, BUNDLES.index(bundle)])
    steps = preprocessing(config_files(bundle, "inference"), bundle)
    for _ in range(AFFINES):
        image, middle = scan(bundle, rng)
        shape, affine = image.shape[1:], image.affine.numpy().copy()
        data: dict[str, Any] = {"image": image}
        for step in steps:
            data = step(data)
        seen = data["image"].as_tensor()[-1].float().numpy()
        apart = to_ball(seen.shape, data["image"].affine, middle)
        level = (np.median(seen[apart < -8]) + np.median(seen[(apart > 8) & (apart < 16)])) / 2
        scores = torch.from_numpy(seen - level)[None]
        back = ReturnToScand("pred", threshold=0)({**data, "pred": scores})["pred"]
        assert back.shape == (1, *shape)
        np.testing.assert_allclose(back.affine, affine, atol=1e-9)
        largest = max(data["image"].pixdim.max().item(), image.pixdim.max().item())
        apart = to_ball(shape, affine, middle)
        found, near = back[0].numpy() > 0, np.abs(apart) < 20
        wrong = near & (found != (apart < 0))
        assert np.abs(apart[wrong]).max(initial=0) <= largest / 2
        expected, there = (distances(shape, affine, middle)[:, near & mask].mean(1) for mask in (apart < 0, found))
        assert np.linalg.norm(expected - there) <= largest / 4


@pytest.mark.parametrize("bundle", [b for b in BUNDLES if not METHOD[b].crops], ids=lambda bundle: bundle.name)
def test_without_a_crop_no_voxel_of_the_scan_is_lost(bundle: Path, config_files: Callable) -> None:
    """Predict background in the padding alone: none of it reaches the scan."""
    rng = np.random.default_rng([12, BUNDLES.index(bundle)])
    steps = preprocessing(config_files(bundle, "inference"), bundle)
    for _ in range(AFFINES):
        image, _ = scan(bundle, rng)
        data: dict[str, Any] = {"image": image}
        for step in steps:
            data = step(data)
        seen = data["image"]
        corners = np.array([[0, 0, 0, 1], [*(seen.meta["resampled_shape"] - 1), 1]])
        ends = (np.linalg.solve(seen.affine, seen.meta["resampled_affine"]) @ corners.T)[:3].round().astype(int)
        scores = torch.zeros(seen.shape)
        scores[(0, *(slice(a, b + 1) for a, b in ends))] = 1
        assert ReturnToScand("pred")({**data, "pred": scores})["pred"].all()
