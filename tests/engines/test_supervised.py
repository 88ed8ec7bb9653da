"""Test a training in one stage: settings, batches and resuming."""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ignite.metrics import Average
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose, CopyItemsd
from torch import Tensor, nn

from common.engines import Plateau, StagedTrainer, TrainingFolder, supervised
from common.engines.batches import LabelAndClass
from common.engines.training_folder import STATE_FILE
from common.layers import TwoForms

from ..trainers import assert_same, run_until

CPU = torch.device("cpu")


class Both(TwoForms):
    """Return logits of a segmentation and of two classes, with dropout."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__(dense)
        self.body = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.Dropout(), nn.PReLU())
        self.seg, self.head = nn.Conv3d(4, 1, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        seg, logits = self.seg(features), self.head(features.mean((2, 3, 4)))
        if not self.dense:
            return {"seg": seg, "class": logits}
        return torch.cat([seg, logits[:, :, None, None, None].expand(-1, -1, *seg.shape[2:])], 1)


class Weighed(nn.Module):
    """Weight two losses with trained parameters; the weight of the second grows with the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        seg = F.binary_cross_entropy_with_logits(outputs["seg"], targets["seg"])
        losses = torch.stack([seg, self.epoch / 2 * F.cross_entropy(outputs["class"], targets["class"])])
        return (0.5 * (-self.log_variance).exp() * losses + 0.5 * self.log_variance).sum()


IMAGES = torch.linspace(-1, 1, 4 * 8).reshape(4, 1, 2, 2, 2)
CASES = [{"image": image, "label": (image > 0).to(torch.uint8), "class": n % 2} for n, image in enumerate(IMAGES)]


# The stage.


def test_one_stage_with_the_settings_given() -> None:
    network, optimizer = nn.Conv3d(1, 1, 1), functools.partial(torch.optim.Adam, lr=0.5, amsgrad=True)
    (stage,) = supervised(network, optimizer, 7, Plateau, patience=3)
    assert (stage.name, stage.network, stage.max_epochs, stage.weights) == ("training", network, 7, "model.pt")
    assert (stage.optimizer, stage.lr_scheduler, stage.patience) == (optimizer, Plateau, 3)
    built, scheduler = stage.start_optimizer()
    (group,) = built.param_groups
    assert type(built) is torch.optim.Adam and type(scheduler) is Plateau and len(group["params"]) == 2
    assert (group["lr"], group["amsgrad"]) == (0.5, True)


# The batch.


@pytest.mark.parametrize("classes", [torch.tensor([1, 0], dtype=torch.uint8), torch.tensor([1, 0]), [1, 0]])
def test_targets_of_label_and_class(classes: Any) -> None:
    image = MetaTensor(torch.randn(2, 3, 4, 5, 6, dtype=torch.float16))
    label = MetaTensor(torch.randint(0, 3, (2, 1, 4, 5, 6), dtype=torch.uint8))
    batch = {"image": image, "label": label, "class": classes}
    x, targets = LabelAndClass()(batch, CPU, True, epoch=1)
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(x, image.as_tensor().float())
    assert list(targets) == ["seg", "class"]
    assert targets["seg"].dtype == torch.float32 and torch.equal(targets["seg"], label.as_tensor().float())
    assert targets["class"].dtype == torch.int64 and targets["class"].tolist() == [1, 0]
    assert list(LabelAndClass()({"image": image, "label": label}, CPU, epoch=1)[1]) == ["seg"]


# Training.


def accuracy(output: list[dict]) -> float:
    """Compare the class of the largest logit, which a transform split off, with the class of the case."""
    return statistics.fmean(float(int(case["logits"].argmax()) == case["truth"]) for case in output)


class Classifyd:
    def __call__(self, data: dict) -> dict:
        return {**data, "pred": data["pred"][:1], "logits": data["pred"][1:, 0, 0, 0]}


def trained(folder: Path, interrupt: int | None = None, max_epochs: int = 5, resume: bool = False) -> StagedTrainer:
    torch.manual_seed(0)
    network = Both()
    evaluator = SupervisedEvaluator(
        device=CPU,
        val_data_loader=DataLoader(CASES, batch_size=2),
        network=network,
        inferer=SimpleInferer(),
        postprocessing=Compose([Classifyd(), CopyItemsd("class", names="truth")]),
        key_val_metric={"accuracy": Average(output_transform=accuracy)},
    )
    optimizer = functools.partial(torch.optim.Adam, lr=0.05, weight_decay=0.01, amsgrad=True)
    plateau = functools.partial(Plateau, factor=0.5, patience=0, threshold=9.0, smoothing=0.5, lowest=1e-3)
    engine = StagedTrainer(
        supervised(network, optimizer, max_epochs, plateau),
        evaluator,
        TrainingFolder(folder, resume),
        DataLoader(CASES, batch_size=2),
        Weighed(),
    )
    run_until(engine, interrupt)
    return engine


@pytest.mark.parametrize("interrupt", [2, 3, 5, 9])
def test_the_training_goes_on_as_if_uninterrupted(tmp_path: Path, interrupt: int) -> None:
    trained(tmp_path / "whole")
    trained(tmp_path / "parts", interrupt)
    torch.rand(5)
    engine = trained(tmp_path / "parts", resume=True)
    for file in (STATE_FILE, "model.pt"):
        whole, parts = (torch.load(tmp_path / folder / file, weights_only=True) for folder in ("whole", "parts"))
        assert_same(parts, whole)
    assert engine.optimizer.param_groups[0]["lr"] == 0.05 * 0.5**4
    assert engine.loss_function.log_variance.abs().min() > 1e-3


def test_the_validation_knows_the_class_of_each_case(tmp_path: Path) -> None:
    engine = trained(tmp_path, max_epochs=1)
    with torch.no_grad():
        logits = engine.stage.network.eval()(IMAGES)[:, 1:, 0, 0, 0]
    right = (logits.argmax(1) == torch.tensor([0, 1, 0, 1])).float().mean()
    assert engine.evaluator.state.metrics["accuracy"] == pytest.approx(float(right))
    with torch.no_grad():
        engine.stage.network.head.weight.zero_()
        engine.stage.network.head.bias.copy_(torch.tensor([0.0, 1.0]))
    CASES.append({**CASES[1]})
    try:
        engine.evaluator.data_loader = DataLoader(CASES, batch_size=1)
        engine.evaluator.state.epoch_length = 5
        engine.evaluator.run()
    finally:
        CASES.pop()
    assert engine.evaluator.state.metrics["accuracy"] == pytest.approx(3 / 5)
