"""Compare the configs of MMFNet's bundle with the paper, and train each ablation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.engines import Stage
from common.methods.mmfnet import ClipChannelsd, MMFNet, clipping_ranges

from ...workflows import config_of, parameters, parser_of
from .tiny import MMFNET

SELF_TRANSFER = ["T1", "T2", "CET1", "warm-up", "fine-tuning"]
SCRATCH = ["from scratch"]
ABLATIONS: dict[str, tuple[int, list[str]]] = {  # parameters of the network, stages of the training
    "base": (1_530_043, SCRATCH),
    "base_self_transfer": (1_530_043, SELF_TRANSFER),
    "full_t1_cet1": (1_163_375, ["T1", "CET1", "warm-up", "fine-tuning"]),
    "full_t1_t2": (1_163_375, ["T1", "T2", "warm-up", "fine-tuning"]),
    "full_t2_cet1": (1_163_375, ["T2", "CET1", "warm-up", "fine-tuning"]),
    "multi_encoder": (1_700_313, SCRATCH),
    "multi_mlp": (1_538_593, SCRATCH),
    "multi_mlp_self_transfer": (1_538_593, SELF_TRANSFER),
    "multi_mlp_std": (1_547_251, SCRATCH),
    "multi_mlp_std_channel": (1_547_143, SCRATCH),
    "multi_mlp_std_spatial": (1_538_701, SCRATCH),
    "single_encoder": (3_681_897, SCRATCH),
    "single_modality_cet1": (679_273, SCRATCH),
    "single_modality_t1": (679_273, SCRATCH),
    "single_modality_t2": (679_273, SCRATCH),
}


def test_every_ablation_is_in_the_table() -> None:
    assert {file.stem for file in (MMFNET / "configs" / "ablations").iterdir()} == set(ABLATIONS)


def rate_of(stage: Stage) -> float:
    return stage.start_optimizer()[0].param_groups[0]["lr"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_papers(name: str) -> None:
    """Compare network and stages with the rows of Tables I and II; the counts follow from sections III-A and III-B."""
    count, stages = ABLATIONS[name]
    parser = parser_of(MMFNET, "train", f"ablations/{name}")
    network, built = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == count
    assert [stage.name for stage in built] == stages
    assert built[-1].network is network
    assert built[-1].weights == "model.pt"
    used = [parser["modalities"][channel] for channel in parser.get_parsed_content("channels")]
    assert network.in_channels == len(used)
    if stages == SCRATCH:
        assert (rate_of(built[0]), built[0].max_epochs, built[0].patience) == (1e-3, 100, 10)
        if name.startswith("single_modality"):
            assert used == [name.rpartition("_")[2].upper()]
    else:
        assert [(s.name, s.channels, s.weights, parameters(s.network)) for s in built[:-2]] == [
            (modality, [channel], f"single_{modality}.pt", 679_273) for channel, modality in enumerate(used)
        ]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    flow = workflow(MMFNET, "train", f"ablations/{name}", max_epochs=2, updates_per_epoch=1)
    network: MMFNet = flow.parser.get_parsed_content("network_def")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    for key in ("head.weight", "encoders.0.blocks.0.0.conv.weight"):
        assert not torch.equal(after[key], before[key]), key

    workflow(MMFNET, "train", "evaluate", f"ablations/{name}").run()
    assert (tmp_path / "out" / "scores.csv").exists()
    workflow(MMFNET, "inference", f"ablations/{name}").run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


def test_the_defaults_are_the_papers() -> None:
    """Compare network with section III, data with IV-A, training with IV-C, loss with eq. 1 to 3."""
    parser = parser_of(MMFNET, "train")
    assert parameters(parser.get_parsed_content("network_def")) == 1_547_251
    settings = {
        "modalities": ["T1", "T2", "CET1"],
        "spacing": [0.5, 0.5, -1],
        "roi_size": [256, 256, 16],
        "window_step": 4,
        "max_offset": [32, 32, 4],
        "batch_size": 8,
        "updates_per_epoch": 75,
    }
    assert {key: parser[key] for key in settings} == settings
    inference = parser_of(MMFNET, "inference")
    assert inference.get().keys() > {"modalities", "channels", "spacing", "roi_size", "window_step"}
    for config in (parser, inference):
        (clip,) = (step for step in config.get_parsed_content("clip") if isinstance(step, ClipChannelsd))
        assert clip.ranges.tolist() == [[-2, 1], [-3, 2], [-2, 3.5]]
    loss, dice = parser.get_parsed_content("loss"), parser.get_parsed_content("loss").dice
    assert (dice.smooth_nr, dice.smooth_dr, dice.batch, dice.sigmoid, loss.cross_entropy) == (1, 1, True, False, 0)
    assert parser.get_parsed_content("case_loss").dice.batch is False


def test_the_stages_are_the_papers() -> None:
    """Compare with sections III-C and IV-C, and fig. 5."""
    stages: list[Stage] = parser_of(MMFNET, "train").get_parsed_content("stages")
    assert [(s.name, rate_of(s), s.max_epochs, s.patience, s.weights) for s in stages] == [
        ("T1", 1e-3, 100, 10, "single_T1.pt"),
        ("T2", 1e-3, 100, 10, "single_T2.pt"),
        ("CET1", 1e-3, 100, 10, "single_CET1.pt"),
        ("warm-up", 1e-3, 5, None, None),
        ("fine-tuning", 1e-4, 95, 10, "model.pt"),
    ]


def test_the_augmentation_is_the_papers() -> None:
    """Compare with section IV-A."""
    (window,) = parser_of(MMFNET, "train").get_parsed_content("augment")
    assert (window.roi_size, window.step) == ((256, 256, 16), 4)
    assert window.max_offset == (32, 32, 4)  # the margin shortens none
    assert (window.max_angle, window.flip_axis) == (5.0, 1)
    angle, half = math.radians(window.max_angle), 255 / 2
    reach = half * (math.sin(angle) + math.cos(angle) - 1)  # of a corner of the rotated window
    assert window.margin[0] == window.margin[1] >= 32 + reach


@pytest.mark.parametrize(("name", "id"), [("train", "validate::inferer"), ("inference", "inferer")])
def test_windows_overlap_as_in_the_paper(name: str, id: str) -> None:
    """Compare with section IV-A: windows of 16 slices, every 4 slices."""
    inferer = parser_of(MMFNET, name).get_parsed_content(id)
    assert list(inferer.roi_size) == [256, 256, 16]
    assert list(inferer.overlap) == [0, 0, 0.75]
    assert inferer.mode == "constant"


def test_value_range_in_the_metadata_is_the_clipping() -> None:
    ranges = clipping_ranges(config_of(MMFNET, "inference")["modalities"])
    image = config_of(MMFNET, "metadata")["network_data_format"]["inputs"]["image"]
    assert image["value_range"] == [min(low for low, _ in ranges), max(high for _, high in ranges)]
