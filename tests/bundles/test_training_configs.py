"""Test the parts of train.json and its overlays, and overlays with other optimisers and schedulers."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ReferenceResolver
from torch.optim.lr_scheduler import CosineAnnealingLR

from common.engines import StagedTrainer

from ..conftest import BUNDLES
from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..workflows import parser_of, rates_of

TRAINING = ("train.json", "multi_gpu_train.json", "demo.json", "ablations/*.json", "tasks/*.json")
FILES = [file for bundle in BUNDLES for name in TRAINING for file in sorted((bundle / "configs").glob(name))]
# references become names; then an expression has these nodes only
GRAMMAR = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Call),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.IfExp),
)


def texts(config: Any) -> Iterator[str]:
    """Return every text of a config but the import statements."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key.lstrip("+") != "imports":
                yield from texts(value)
    elif isinstance(config, list):
        for value in config:
            yield from texts(value)
    elif isinstance(config, str):
        yield config


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[-2]}/{file.name}")
def test_expressions_are_short_and_simple(file: Path) -> None:
    for text in texts(json.loads(file.read_text())):
        if text.startswith("$"):
            assert len(text) <= 80, text
            tree = ast.parse(ReferenceResolver.id_matcher.sub("reference", text[1:]), mode="eval")
            assert all(isinstance(node, GRAMMAR) for node in ast.walk(tree)), text


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_train_json_is_short(bundle: Path) -> None:
    content = (bundle / "configs" / "train.json").read_text()
    assert content.count("\n") <= 120
    assert content.count('"$') <= 25


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_names_of_monai_are_there(bundle: Path) -> None:
    config = json.loads((bundle / "configs" / "train.json").read_text())
    assert config.keys() >= {"network_def", "loss", "optimizer", "lr_scheduler", "train", "validate"}
    assert config["train"].keys() >= {"preprocessing", "dataset", "dataloader", "inferer", "handlers", "trainer"}
    assert config["validate"].keys() >= {"preprocessing", "dataset", "inferer", "key_metric", "handlers", "evaluator"}


def test_multi_gpu_train_is_the_same_in_all_bundles() -> None:
    assert len({(bundle / "configs" / "multi_gpu_train.json").read_bytes() for bundle in BUNDLES}) == 1


HALVING = [bundle for bundle in BUNDLES if '"halve_every"' in (bundle / "configs" / "train.json").read_text()]


@pytest.mark.parametrize("bundle", HALVING, ids=lambda bundle: bundle.name)
def test_halve_every_4_halves_first_in_epoch_5(bundle: Path) -> None:
    parser = parser_of(bundle, "train")
    parser["halve_every"], parser["learning_rate"] = 4, 1.0
    (stage,) = parser.get_parsed_content("stages")
    assert rates_of(stage, 9) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_the_seed_reaches_all_that_draws(bundle: Path) -> None:
    config = json.loads((bundle / "configs" / "train.json").read_text())
    seeded = [config["train"]["trainer"], config["train"]["dataloader"], config["initialize"][-1], config["record"]]
    assert [part["seed"] for part in seeded] == 4 * ["@seed"]


OVERLAY = {
    "optimizer": {"_target_": "torch.optim.SGD", "_mode_": "callable", "lr": "@learning_rate", "momentum": 0.9},
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_mode_": "callable", "T_max": 4},
}


@pytest.mark.parametrize("bundle", [MMFNET, MPUNET], ids=lambda bundle: bundle.name)
def test_an_overlay_chooses_optimizer_and_scheduler(workflow: Callable, bundle: Path) -> None:
    flow = workflow(bundle, "train", learning_rate=0.25, fine_tuning_rate=0.125, max_epochs=3, **OVERLAY)
    trainer: StagedTrainer = flow.trainer
    rates: dict[str, list[float]] = {}

    def note() -> None:
        assert type(trainer.optimizer) is torch.optim.SGD and type(trainer.lr_scheduler) is CosineAnnealingLR
        (group,) = trainer.optimizer.param_groups
        assert group["momentum"] == 0.9
        rates.setdefault(trainer.stage.name, []).append(group["lr"])

    trainer.add_event_handler(Events.EPOCH_STARTED, note)
    flow.run()
    cosine = [1.0, (1 + 0.5**0.5) / 2, 0.5]  # (1 + cos(pi * epoch / 4)) / 2
    stages = {"T1": 3, "T2": 3, "CET1": 3, "warm-up": 1, "fine-tuning": 2} if bundle == MMFNET else {"training": 3}
    assert {name: len(found) for name, found in rates.items()} == stages
    for name, found in rates.items():
        first = 0.125 if name == "fine-tuning" else 0.25
        assert found == pytest.approx([first * factor for factor in cosine[: len(found)]])
