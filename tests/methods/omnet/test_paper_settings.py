"""Compare the configs of OM-Net's bundle with the paper, and train each variant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data.folds import split_by_fold

from ...workflows import parameters, parser_of, rates_of
from .tiny import OMNET

VARIANTS: dict[str, tuple[int, tuple[int, int, int], bool]] = {  # parameters, curriculum, transfer between streams
    "cascade": (41_470_380, (0, 0, 20), False),
    "omnet": (13_879_212, (1, 1, 18), True),
    "omnet_0": (13_879_212, (0, 0, 20), False),
    "omnet_cga_minus": (13_823_991, (1, 1, 18), True),
    "omnet_d": (13_879_212, (0, 0, 20), True),
    "omnet_se": (13_880_088, (1, 1, 18), True),
}


def assert_is_the_papers(
    parser: ConfigParser, count: int, curriculum: tuple[int, ...], transfer: bool
) -> torch.nn.Module:
    network, (stage,) = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == count
    assert network.dense
    assert (stage.network, stage.weights, stage.max_epochs, stage.patience) == (network, "model.pt", 20, None)
    batch = stage.prepare_batch
    assert (batch.ends, batch.transfer) == (list(np.cumsum(curriculum)), transfer)
    rates = rates_of(stage, 20)
    assert [rates[epoch - 1] for epoch in (1, 4, 5, 8, 9, 20)] == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 1e-3 / 2**4]
    assert stage.find_unused_parameters is (any(curriculum[:2]) or batch.enhancing_every > 1)
    return network


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_the_papers(name: str) -> None:
    """Compare parameters, curriculum and transfer with section III-B and the rows of Table I."""
    parser = parser_of(OMNET, "train", f"ablations/{name}")
    network = assert_is_the_papers(parser, *VARIANTS[name])
    assert list(network.nets if name == "cascade" else network.heads) == ["coarse", "tumour", "enhancing"]  # type: ignore[arg-type]
    assert parser["enhancing_every"] == (2 if name == "cascade" else 1)
    if name == "omnet_cga_minus":
        assert network.guided and not network.heads["tumour"].spatial_weights  # type: ignore[index, union-attr]


def test_patches_of_each_network_of_the_cascade() -> None:
    """Section IV-C: about 400,000, 400,000 and 200,000 patches, and 20 epochs of each network."""
    parser = parser_of(OMNET, "train", "ablations/cascade")
    (stage,) = parser.get_parsed_content("stages")
    tasks = [stage.prepare_batch.tasks_in(1, update) for update in range(1, parser["updates_per_epoch"] + 1)]
    updates = [sum(number > task for number in tasks) for task in range(3)]
    assert updates == [20_000, 20_000, 10_000]
    assert [count * parser["batch_size"] for count in updates] == [400_000, 400_000, 200_000]
    assert [count * stage.max_epochs for count in updates] == [400_000, 400_000, 200_000]  # updates of each network


def test_the_defaults_are_the_papers() -> None:
    """Compare data with section IV, training with III-B and IV-C."""
    parser = parser_of(OMNET, "train")
    network = assert_is_the_papers(parser, 13_823_991, (1, 1, 18), True)
    assert network.heads["tumour"].spatial_weights  # type: ignore[index, union-attr]
    dropout = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropout == {0.5}
    optimizer, _ = parser.get_parsed_content("stages")[0].start_optimizer()
    assert {group["momentum"] for group in optimizer.param_groups} == {0.99}
    settings = {
        "modalities": ["FLAIR", "T1", "CET1", "T2"],
        "labels": {"necrosis and non-enhancing tumour": 1, "oedema": 2, "enhancing tumour": 4},
        "spacing": [1, 1, 1],
        "roi_size": [32, 32, 16],
        "batch_size": 20,
        "updates_per_epoch": 20_000,
    }
    assert {key: parser[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("folds", "fold", "validation_share", "cases"),
    [
        (11, 10, 0, (260, 0, 25)),  # Table I: 285 = 10 * 26 + 25
        (10, 0, 0, (256, 0, 29)),  # the ensemble: 285 = 5 * 29 + 5 * 28
        (10, 9, 0, (257, 0, 28)),
        (10, 0, 0.25, (192, 64, 29)),  # a quarter of 256 validates
    ],
)
def test_cases_of_the_paper(folds: int, fold: int, validation_share: float, cases: tuple[int, int, int]) -> None:
    """Compare with section V-A: 260 cases for training and 25 for a test, of the 285 of BraTS 2018."""
    items = [{"case": f"{index:03d}", "fold": index % folds, "order": index} for index in range(285)]
    lists = split_by_fold(Path("dataset.json"), {"training": items}, fold, validation_share)
    assert tuple(len(lists[section]) for section in ("training", "validation", "test")) == cases


def test_without_validation_the_last_epoch_is_kept(workflow: Callable, tmp_path: Path) -> None:
    """Check too that the third network of a cascade makes updates 1 and 3 of the 3 in each of 2 epochs."""
    options = {"validation_share": 0, "curriculum": [0, 0, 2], "updates_per_epoch": 3}
    flow = workflow(OMNET, "train", "ablations/cascade", **options)
    flow.run()
    models = tmp_path / "models"
    state = torch.load(models / "training_state.pt", weights_only=True)
    assert (state["epoch"], state["weights_epoch"]) == (2, 2)
    weights = torch.load(models / "model.pt", weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in state["network"].items())
    counts = [weights[f"nets.{task}.head.0.adn.N.num_batches_tracked"] for task in ("coarse", "tumour", "enhancing")]
    assert [int(count) for count in counts] == [6, 6, 4]
    workflow(OMNET, "inference", "ablations/cascade", levels=1).run()  # another number of tasks than the training's
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


@pytest.mark.parametrize("overlay", [(), ("ablations/cascade",)], ids=["one pass", "cascade"])
def test_windows_keep_their_centres(overlay: tuple[str, ...]) -> None:
    """Check that a window has the size of a training patch, and that a voxel outside the brain gets class 0."""
    parsers = [parser_of(OMNET, name, *overlay) for name in ("train", "inference")]
    inferers = [
        parsers[0].get_parsed_content("validate::inferer"),
        parsers[1].get_parsed_content("inferer"),
    ]
    for inferer in inferers:
        assert list(inferer.roi_size) == parsers[0]["roi_size"]
        assert list(inferer.keep) == [24, 24, 10]
        assert list(inferer.empty) == [0, 0]
        if not overlay:
            assert [inferer.fill.index(1), *np.flatnonzero(inferer.fill)] == [0, 0, 5, 10]  # class 0 of each task
        else:
            assert inferer.gated


def test_every_ablation_is_in_the_table() -> None:
    assert {file.stem for file in (OMNET / "configs" / "ablations").iterdir()} == set(VARIANTS)


def test_an_ensemble_has_a_network_for_each_file() -> None:
    parser = parser_of(OMNET, "inference", "ensemble")
    parser["ckpt_dir"] = "models"
    assert parser.get_parsed_content("weights") == [f"models/fold{fold}/model.pt" for fold in range(10)]
    parser = parser_of(OMNET, "inference", "ensemble")
    parser["weights"] = ["a.pt", "b.pt"]
    ensemble = parser.get_parsed_content("network_def")
    assert [parameters(network) for network in ensemble.networks] == [13_823_991] * 2
    assert all(network.dense for network in ensemble.networks)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    curriculum = [min(epochs, 1) for epochs in VARIANTS[name][1]]
    width = {"network_def::channels": [16, 2]} if name == "omnet_se" else {}  # two hidden units
    flow = workflow(OMNET, "train", f"ablations/{name}", curriculum=curriculum, updates_per_epoch=1, **width)
    before = {key: value.clone() for key, value in flow.network_def.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    first = ("nets.coarse.backbone" if name == "cascade" else "backbone") + ".encoder.0.0.conv.weight"
    assert first in changed
    for task in ("coarse", "tumour", "enhancing"):
        head = f"nets.{task}.head" if name == "cascade" else f"heads.{task}"
        assert any(key.startswith(head) and key.endswith("weight") for key in changed), task

    if name == "cascade":
        workflow(OMNET, "train", "evaluate", f"ablations/{name}").run()
        assert (tmp_path / "out" / "scores.csv").exists()
    workflow(OMNET, "inference", f"ablations/{name}", **width).run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2
