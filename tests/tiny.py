"""Define how each method describes its bundle to the tests: a narrow network and a tiny cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.phantoms import PhantomRecipe

BUNDLES = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True)
class Body:
    """Describe the simple bodies that a bundle's preprocessing must find.

    Args:
        radii: the half axes of an ellipsoid, in mm.
        background, tissue, target: intensities outside the body, in it, and in the ball that is to be segmented.
        noisy: whether the background has noise.
        lungs: the intensity of two lungs, or None for a body without them.
    """

    radii: tuple[float, float, float]
    background: float
    tissue: float
    target: float
    noisy: bool = False
    lungs: float | None = None


@dataclass(frozen=True, kw_only=True)
class TinyBundle:
    """Describe a bundle that runs in seconds.

    Args:
        bundle: its folder.
        overlay: settings on top of its configs.
        phantom: the recipe of the cases.
        busy_network: builds the network with weights that give label maps with every class, neither empty nor full.
        body: the body in the scans for the tests of geometry.
        epochs: of the whole training.
        weights: names of the files of weights that a training writes.
        single_stage: configs of a training in one stage.
        only_in_train: beginnings of the settings that only ``train.json`` has.
        sample_types: types of the image and of the label of a training sample.
        sample_axes: shape of a training sample before its channels.
        label_values: values of the labels of training samples.
        crops: whether preprocessing cuts a part of the scan away.
        cache_on: the device where a cached training case can be sampled; ``meta`` is a device without memory.
    """

    bundle: Path
    overlay: Mapping[str, Any]
    phantom: PhantomRecipe
    busy_network: Callable[[], torch.nn.Module]
    body: Body
    epochs: int
    weights: frozenset[str] = frozenset({"model.pt"})
    single_stage: tuple[str, ...] = ("train",)
    only_in_train: tuple[str, ...] = ()
    sample_types: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32)
    sample_axes: tuple[int, ...] = ()
    label_values: frozenset[int] = frozenset({0, 1})
    crops: bool = True
    cache_on: str = "cpu"
