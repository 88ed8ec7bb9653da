"""Make a trainer without a bundle."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.inferers import SimpleInferer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from common.engines import Stage, StagedTrainer, TrainingFolder

CPU = torch.device("cpu")


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., StagedTrainer]:
    """Make a trainer that validates by the mean of the network's output; lower is better."""

    def make(
        stages: list[Stage],
        batches: Any,
        validation: torch.Tensor,
        ckpt_dir: Path = tmp_path / "models",
        resume: bool = False,
        device: torch.device = CPU,
        **options: Any,
    ) -> StagedTrainer:
        cases = [{"image": image, "label": image[:1]} for image in validation]
        evaluator = SupervisedEvaluator(
            device=device,
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
                "folder": TrainingFolder(ckpt_dir, resume),
                "train_data_loader": batches,
                "loss_function": torch.nn.MSELoss(),
                **options,
            }
        )

    return make


def run_until(engine: StagedTrainer, interrupt: int | None) -> None:
    """Run to the end, or interrupt the training in the update with this number."""
    if interrupt is None:
        engine.run()
        return

    def stop() -> None:
        raise KeyboardInterrupt

    engine.add_event_handler(Events.ITERATION_STARTED(once=interrupt), stop)
    with pytest.raises(KeyboardInterrupt):
        engine.run()


def curves(ckpt_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points (epoch, value) of each curve for TensorBoard by name."""
    events = EventAccumulator(str(ckpt_dir / "tensorboard"))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def in_two_processes(function: Callable, *args: Any) -> None:
    """Call ``function(rank, *args)`` in two processes of one group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_join, (function, args, port), nprocs=2, start_method="fork")


def _join(rank: int, function: Callable, args: tuple, port: int) -> None:
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # 1x1x1 weights
    os.environ["LOCAL_RANK"] = str(rank)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    function(rank, *args)
    torch.distributed.destroy_process_group()
