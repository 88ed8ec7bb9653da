"""Compare the data pipeline, the cache and the trainer with those of a Model Zoo-style configuration."""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, TensorBoardStatsHandler, from_engine
from monai.inferers import SimpleInferer
from monai.losses import DiceLoss
from tqdm import trange

from common.engines import Stage, StagedTrainer
from common.engines.training_folder import TrainingFolder

from .measure import Cost, Figures, Row, Stopwatch, interleaved, measure, row
from .volumes import ensure_brain
from .weights import CONFIGS

SAMPLES = 10  # number of samples for each repeat
ITERATIONS = 2  # number of iterations that are timed as one block
BATCH = 2  # number of windows
LEARNING_RATE = 1e-4


def train_rows(work: Path, device: torch.device, repeats: int, window: int = 96) -> list[Row]:
    """Return the rows of the table.

    Args:
        work: folder that keeps the volume.
        device: device of the network; the data pipeline runs on the CPU.
        repeats: number of measurements of each time.
        window: number of voxels along each axis of a training window.
    """
    return [*pipeline_rows(*ensure_brain(work), repeats), *trainer_rows(device, repeats, window)]


def pipeline_rows(image: Path, label: Path, repeats: int) -> list[Row]:
    """Compare a random window of a cached case of four channels, without collation, and the bytes of the case."""
    zoo, ours = (_dataset(CONFIGS / f"{name}_train.json", image, label) for name in ("zoo", "ours"))
    seeds = itertools.count()
    calls = {"zoo": lambda: zoo[0], "ours": lambda: ours[0, next(seeds)]}
    costs = interleaved(calls, repeats * SAMPLES, torch.device("cpu"), title="samples")
    figures = Figures(costs, torch.device("cpu"))
    figures.print("data pipeline, per sample")

    zoo_case, our_case = zoo._cache[0], ours._cache[0]
    wanted, found = zoo_case["image"], _on_grid_of(zoo_case, our_case, "image")
    error = ((found - wanted).abs() / wanted.abs().clamp(min=1e-3)).max()
    different = int((_on_grid_of(zoo_case, our_case, "label") != zoo_case["label"]).sum())
    gates = [
        row("cached case: largest relative error of the image", float(error), "<= 1e-3"),
        row("cached case: voxels with another label", different, "<= 0"),
    ]
    valid = all(gate.met for gate in gates)
    ratio = _bytes(zoo_case) / _bytes(our_case)
    return [
        *gates,
        row("cached case: bytes, zoo / ours", ratio, ">= 6", valid),
        *figures.ratio(
            "data pipeline per sample, CacheDataset / ours", ("zoo", "all"), ("ours", "all"), ">= 12", valid
        ),
    ]


def trainer_rows(device: torch.device, repeats: int, window: int) -> list[Row]:
    """Compare an iteration of our trainer, with the handlers of a bundle, with the bare iteration on the same batch."""
    milliseconds, ratios = [], []
    for size in (32, window):  # a large window's variation would hide the milliseconds that the small one shows
        figures = Figures(_trainer_costs(device, repeats, size), device)
        figures.print(f"{ITERATIONS} iterations, {BATCH} windows of {size}^3")
        extra = 1000 * (figures.seconds("trainer") - figures.seconds("bare")) / ITERATIONS
        milliseconds.append(
            row(
                f"trainer iteration - bare iteration, {BATCH} x {size}^3, ms", extra, None if size == window else "<= 3"
            )
        )
        ratios = figures.ratio(
            f"trainer iteration / bare iteration, {BATCH} x {size}^3", ("trainer", "all"), ("bare", "all"), "<= 1.01"
        )
    return [*milliseconds, *ratios]


def _trainer_costs(device: torch.device, repeats: int, size: int) -> dict[str, list[Cost]]:
    config = ConfigParser()
    config.read_config(CONFIGS / "zoo_ct.json")
    torch.manual_seed(0)
    network = config.get_parsed_content("network_def").to(device, memory_format=torch.channels_last_3d)
    image = torch.rand(BATCH, 1, size, size, size)
    batch = {"image": image, "label": (image > 0.5).float()}
    loss_function = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def bare() -> None:
        network.train()
        for _ in range(ITERATIONS):
            inputs = batch["image"].to(device, memory_format=torch.channels_last_3d)
            labels = batch["label"].to(device)
            optimizer.zero_grad()
            output = network(inputs)
            loss = loss_function(output, labels)
            loss.backward()
            optimizer.step()

    def trainer() -> Cost:
        metric = IgniteMetricHandler(loss_fn=loss_function, output_transform=from_engine(["pred", "label"]))
        evaluator = SupervisedEvaluator(
            device, [{k: v[..., :32, :32, :32] for k, v in batch.items()}], network, key_val_metric={"loss": metric}
        )
        block = TimedIterations(device)
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
            StagedTrainer(
                stages=[Stage("all", network, functools.partial(torch.optim.Adam, lr=LEARNING_RATE), max_epochs=1)],
                evaluator=evaluator,
                folder=TrainingFolder(folder),
                train_data_loader=[batch] * ITERATIONS,
                loss_function=loss_function,
                inferer=SimpleInferer(),
                train_handlers=[
                    ProgressBar(file=nowhere),
                    TensorBoardStatsHandler(log_dir=folder, iteration_log=False, output_transform=lambda output: None),
                    block,
                ],
            ).run()
        return block.cost

    bare()  # initialises the libraries
    trainer()
    costs: dict[str, list[Cost]] = {"bare": [], "trainer": []}
    for _ in trange(repeats, desc=f"iterations, {size}^3", ncols=100):
        costs["bare"].append(measure(bare, device))
        costs["trainer"].append(trainer())
    return costs


class TimedIterations:
    """Measure the iterations of a run of one epoch, from the first request for a batch to the last update."""

    cost: Cost

    def __init__(self, device: torch.device) -> None:
        self.watch = Stopwatch(device)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.watch.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=ITERATIONS), self._stop)

    def _stop(self) -> None:
        self.cost = self.watch.stop()


def _dataset(config: Path, image: Path, label: Path) -> Any:
    parser = ConfigParser()
    parser.read_config(config)
    parser.update({"image": str(image), "label": str(label)})
    return parser.get_parsed_content("dataset")


def _on_grid_of(zoo_case: Mapping[str, Any], our_case: Mapping[str, Any], key: str) -> torch.Tensor:
    """Return our cached volume, which may be cropped, on the grid of the zoo's; 0 outside the crop."""
    whole, part = zoo_case[key], our_case[key]
    start = np.linalg.solve(whole.affine.numpy(), part.affine.numpy()[:, 3])[:3].round().astype(int)
    result = torch.zeros_like(whole.as_tensor())
    box = tuple(slice(s, s + n) for s, n in zip(start, part.shape[1:]))
    result[(slice(None), *box)] = part.as_tensor().to(result.dtype)
    return result


def _bytes(case: Mapping[str, Any]) -> int:
    """Return the bytes of all tensors and arrays of a cached case."""
    return sum(value.nbytes for value in case.values() if isinstance(value, (torch.Tensor, np.ndarray)))
