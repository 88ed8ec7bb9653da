"""A trainer without a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.inferers import SimpleInferer

from common.engines import Stage, StagedTrainer


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., StagedTrainer]:
    """Build one that validates by the mean of the network's output, the lower the better."""

    def make(stages: list[Stage], batches: Any, validation: torch.Tensor, **options: Any) -> StagedTrainer:
        cases = [{"image": image, "label": image[:1]} for image in validation]
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(cases, batch_size=1),
            network=stages[0].network,
            inferer=SimpleInferer(),
            key_val_metric={
                "mean": IgniteMetricHandler(
                    loss_fn=lambda pred, label: pred.mean(), output_transform=from_engine(["pred", "label"])
                )
            },
            metric_cmp_fn=lambda value, best: value < best,
        )
        return StagedTrainer(
            **{
                "stages": stages,
                "evaluator": evaluator,
                "ckpt_dir": tmp_path / "models",
                "device": torch.device("cpu"),
                "max_epochs": sum(stage.max_epochs for stage in stages),
                "train_data_loader": batches,
                "loss_function": torch.nn.MSELoss(),
                **options,
            }
        )

    return make


def run_until(engine: StagedTrainer, interrupt: int | None) -> None:
    """Run to the end, or interrupt this update."""
    iterate = engine._process_function

    def interrupted(*args: Any) -> Any:
        if engine.state.iteration == interrupt:
            raise KeyboardInterrupt
        return iterate(*args)

    engine._process_function = interrupted
    if interrupt is None:
        engine.run()
    else:
        with pytest.raises(KeyboardInterrupt):
            engine.run()
