"""Use each overlay of a rival as users do: after train.json, after evaluate.json, after inference.json, and to pack."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from common.layers import TwoForms
from common.packaging import pack_bundle, verify_package
from common.reporting import read_scores

from ..workflows import BUNDLES, MODALITIES, PLAIN, TINY, assert_label_maps, config_of, parser_of

pytestmark = pytest.mark.slow

OVERLAYS = [(bundle, file.stem) for bundle in BUNDLES for file in sorted(bundle.glob("configs/rivals/*.json"))]
WITH_RIVALS = list(dict.fromkeys(bundle for bundle, _ in OVERLAYS))
# A package takes longest, so each bundle has one: every rival, with every wrapper.
PACKED = list(zip(WITH_RIVALS, itertools.cycle(("dynunet", "unet", "segresnet"))))
NARROW = {
    "unet": {"channels": [4, 8], "strides": [2], "num_res_units": 1},
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "dynunet": {"width": 4, "patch_size": [32, 32, 16]},
}


def narrow(bundle: Path, rival: str) -> dict[str, Any]:
    """Return the settings of a bundle's tiny form and of a narrow rival."""
    own = {key: value for key, value in TINY[bundle.name].items() if "network" not in key}
    return own | {f"network_def::network::{key}": value for key, value in NARROW[rival].items()}


def in_unit_range(maps: torch.Tensor) -> bool:
    return 0 <= maps.min() <= maps.max() <= 1


def test_the_three_rivals_are_those_of_each_bundle_of_masks() -> None:
    assert all({name for b, name in OVERLAYS if b == bundle} == NARROW.keys() for bundle in WITH_RIVALS)
    assert len(WITH_RIVALS) >= 4


@pytest.mark.parametrize(("bundle", "rival"), OVERLAYS, ids=lambda value: getattr(value, "name", value))
def test_overlay_gives_the_loss_what_it_takes(bundle: Path, rival: str) -> None:
    parsers = [parser_of(bundle, config, f"rivals/{rival}") for config in ("train", "inference")]
    for parser in parsers:
        for key, value in narrow(bundle, rival).items():
            if "::" in key or key in parser.get(""):
                parser[key] = value
    train, inference = (parser.get_parsed_content("network_def") for parser in parsers)
    loss = parsers[0].get_parsed_content("loss")
    image = torch.randn(2, len(MODALITIES[bundle]), 32, 32, 16)
    label = (torch.rand(2, 1, 32, 32, 16) > 0.8).float()

    trained = train.training_form() if isinstance(train, TwoForms) else train
    outputs = trained(image)
    value = loss(outputs, {"seg": label}) if isinstance(outputs, dict) else loss(outputs, label)
    value.backward()
    assert value.isfinite() and all(p.grad is not None for p in train.parameters())
    inference.load_state_dict(train.state_dict())
    own = parser_of(bundle, "inference").get_parsed_content("network_def").eval()
    with torch.no_grad():
        result, other = inference.eval()(image), own(image)
    maps = parsers[1].get_parsed_content("labels")
    assert result.shape[1] in (len(maps), 1 + len(maps)) and result.shape[1] <= other.shape[1]
    channels = other[:, : result.shape[1]]  # the others are classes of the case
    assert in_unit_range(result) == in_unit_range(channels)  # probabilities or logits
    assert torch.allclose(result.sum(1), torch.ones(())) == torch.allclose(channels.sum(1), torch.ones(()))


def test_only_deep_supervision_adds_outputs() -> None:
    network = parser_of(PLAIN, "train", "rivals/dynunet").get("network_def::network")
    assert "deep_supervision" not in network
    parser = ConfigParser({**config_of(PLAIN, "train"), **config_of(PLAIN, "rivals/dynunet"), "roi_size": [64, 64, 16]})
    rival = parser.get_parsed_content("network_def").training_form()
    assert list(rival(torch.zeros(1, 1, 64, 64, 16))) == ["seg", "aux_1", "aux_2"]


@pytest.mark.parametrize(("bundle", "rival"), OVERLAYS, ids=lambda value: getattr(value, "name", value))
def test_rival_trains_and_is_evaluated_and_infers(
    workflow: Callable, cohort: Callable, tmp_path: Path, bundle: Path, rival: str
) -> None:
    options = {**narrow(bundle, rival), "max_epochs": 1}
    workflow(bundle, "train", f"rivals/{rival}", tiny=False, **options).run()
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(key.startswith("network.") for key in saved)
    known = config_of(bundle, "inference").keys()
    shared = {key: value for key, value in options.items() if "::" in key or key in known}
    workflow(bundle, "train", "evaluate", f"rivals/{rival}", tiny=False, **options).run()
    cases = read_scores(tmp_path / "out" / "scores.csv")
    workflow(bundle, "inference", f"rivals/{rival}", tiny=False, **shared, output_dir=str(tmp_path / "masks")).run()
    names = [f"{row['case']}.nii.gz" for row in cases]
    assert_label_maps(tmp_path / "masks", cohort(bundle) / "labels", names, {0, 1})


@pytest.mark.usefixtures("warm_packing")
@pytest.mark.parametrize(("bundle", "rival"), PACKED, ids=lambda value: getattr(value, "name", value))
def test_package_of_trained_rivals_brings_network_and_code(
    workflow: Callable, tmp_path: Path, bundle: Path, rival: str
) -> None:
    """The record holds the levels of the training's patch; the package is tried on another patch."""
    options = {**narrow(bundle, rival), "max_epochs": 1}
    options.pop("network_def::network::patch_size", None)
    workflow(bundle, "train", f"rivals/{rival}", tiny=False, **options).run()
    archive = pack_bundle(bundle, tmp_path / "models" / "model.pt", tmp_path / "dist")
    verify_package(archive)
    folder = tmp_path / "dist" / bundle.name
    (file,) = folder.glob("*/rivals/rival.py")
    network = json.loads((folder / "configs" / "inference.json").read_text())["network_def"]
    assert network["_target_"].startswith(f"{file.parents[1].name}.rivals.")
    assert rival != "dynunet" or network["network"]["patch_size"] == options["roi_size"]
