"""Test that the defaults and the ablations of MultiR-Net's bundle are the paper's."""

from __future__ import annotations

import pytest
import torch
from monai.losses import TverskyLoss

from common.methods.multirnet import FocalTverskyLoss, iterative_update

from ...workflows import parameters, parser_of
from .settings import ABLATIONS, CLASSES, SCORES
from .tiny import MULTIRNET


def test_the_defaults_are_the_papers() -> None:
    """Compare with the paper: loss and passes 3.3 and 3.4, scores 3.5, data 4.1, training 4.2."""
    parser = parser_of(MULTIRNET, "train")
    network, (stage,) = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == 48_689_576 and network.dense and network.iterations == 2
    assert (stage.max_epochs, stage.lr_scheduler, stage.weights, stage.patience) == (500, None, "model.pt", 100)
    optimizer, _ = stage.start_optimizer()
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 0)
    settings = {
        "batch_size": 4,
        "updates_per_epoch": 36,  # 144 cases, three of four folds of the paper's 192
        "spacing": [1.0, 1.0, 1.0],
        "hounsfield_range": [-1000, 400],
        "roi_size": [96, 96, 32],
        "jitter": [8, 8, 4],
        "classes": CLASSES,
        "task": "both",
        "iterations": 2,
    }
    assert {key: parser[key] for key in settings} == settings
    loss = parser.get_parsed_content("loss")
    assert loss.class_weight == 0.5 and loss.seg_loss.exponent == 0.9
    assert (loss.seg_loss.tversky.alpha, loss.seg_loss.tversky.beta) == (0.3, 0.7)  # MONAI's beta is of misses
    assert parser.get_parsed_content("train::trainer::iteration_update") is iterative_update
    scores = parser_of(MULTIRNET, "train", "evaluate").get_parsed_content("scores")
    assert scores.scores == tuple(SCORES) and scores.tolerance == 1
    inferer = parser.get_parsed_content("inferer")
    assert (inferer.overlap, inferer.vote, inferer.num_classes) == (0.5, "volume", 3)


def test_every_ablation_is_in_the_table() -> None:
    assert {file.stem for file in (MULTIRNET / "configs" / "ablations").iterdir()} == set(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_papers(name: str) -> None:
    """Compare the parts that are left out with section 4.5 and Fig. 12 of the paper."""
    count, iterations, seg_loss = ABLATIONS[name]
    parser = parser_of(MULTIRNET, "train", f"ablations/{name}")
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    assert (parameters(network), network.iterations) == (count, iterations)
    assert type(loss.seg_loss) is seg_loss
    if isinstance(loss.seg_loss, TverskyLoss):  # the focal one without its power
        logits, label = torch.randn(2, 1, 4, 4, 4), (torch.rand(2, 1, 4, 4, 4) > 0.7).float()
        focal = float(FocalTverskyLoss(exponent=1.0)(logits, label))
        assert float(loss.seg_loss(logits, label)) == pytest.approx(focal)
    erases = [block.erases for block in network.segmentation.decoder]
    assert set(erases) == {name != "no_reverse_attention"}
    assert network.segmentation.mean_sigmoid == (name == "mean_sigmoid")
    assert network.separate == (name == "separate_statistics")


def test_the_rate_falls_on_a_plateau_of_100_epochs() -> None:
    (stage,) = parser_of(MULTIRNET, "train", "ablations/reduce_on_plateau").get_parsed_content("stages")
    optimizer, scheduler = stage.start_optimizer()
    for _ in range(101):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 3e-4 and stage.patience == 200
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-5)


def test_the_explained_layer_is_the_last_of_the_decoder() -> None:
    parser = parser_of(MULTIRNET, "inference", "explain")
    name = parser.get_parsed_content("target_layers")
    assert name == "segmentation.decoder"  # of a list, the last one is explained
    assert len(parser.get_parsed_content("network_def").get_submodule(name)) == 4
    network = parser.get_parsed_content("network_def")
    assert network.get_submodule("segmentation.decoder.3") is network.segmentation.decoder[-1]
