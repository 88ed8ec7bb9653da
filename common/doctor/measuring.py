"""Measure a few updates of a training, and a part of a validation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from ..engines import Stage, StagedTrainer
from ..engines.batches import ImageAndLabel
from ..engines.stages import trained_parameters
from ..errors import InputError
from ..layers import training_form_of

UPDATES = 4  # measured updates of a network; the first, which is slower, does not count
BUDGET = 30.0  # s, after which no further update of a network is measured
LARGE = 1_000_000  # voxels of a batch, above which an update may be slow
GRAIN = 32  # voxels; a part of a patch has a multiple of them along x and y, since networks halve the size five times
WINDOW_BUDGET = 10.0  # s, after which further windows of a validation are not computed

Clock = Callable[[], float]


def batch_maker(stage: Stage) -> Callable[..., tuple]:
    """Return the callable that makes the inputs and targets of a stage, as in its last epoch."""
    if stage.prepare_batch is None:
        return ImageAndLabel(stage.channels)
    return functools.partial(stage.prepare_batch, epoch=stage.max_epochs)


class Sample(NamedTuple):
    """Hold a trainer with one case in each list.

    - ``trainer``: trainer of the config, which is not run.
    - ``batches``: loader of some batches of the training case.
    - ``update``: ``iteration_update`` of the trainer, or None.
    - ``preparing``: time in s of the transforms of the case that are not random.
    """

    trainer: StagedTrainer
    batches: DataLoader
    update: Callable | None
    preparing: float


def sample_training(parser: ConfigParser, batch_size: int, now: Clock) -> Sample:
    """Build the trainer of a config with the first case of each list; nothing is written.

    Args:
        parser: training config with ``dataset_dir``; its lists, cache, workers and handlers are changed.
        batch_size: number of patches in a batch.
        now: callable () -> time in s.
    """
    settings: dict[str, Any] = {
        "train::dataset::data::limit": 1,
        "validate::cases::limit": 1,
        "train::dataset::cache_rate": 1.0,
        "num_workers": 0,
        "train::handlers": [],
        "validate::handlers": [],
        "train::folder::record": None,
        "pretrained": None,
    }
    for key, value in settings.items():
        parser[key] = value
    started = now()
    dataset = parser.get_parsed_content("train::dataset")
    preparing = now() - started
    trainer = parser.get_parsed_content("train::trainer")
    iteration = "train::trainer::iteration_update"
    update = parser.get_parsed_content(iteration) if iteration in parser else None
    batches = DataLoader(dataset, batch_size=batch_size, sampler=[(0, n) for n in range(UPDATES * batch_size)])
    return Sample(trainer, batches, update, preparing)


def measure_updates(sample: Sample, stage: Stage, now: Clock) -> tuple[float, float]:
    """Return the times in s of an update and of the random transforms of its batch.

    Args:
        sample: trainer of the stage.
        stage: stage that trains; its network and the loss are changed.
        now: callable () -> time in s.
    """
    return mean_step(_steps(sample, stage, sample.batches, now))


def measure_part(sample: Sample, stage: Stage, now: Clock) -> tuple[float, float] | None:
    """Return the times of :func:`measure_updates` from two updates on a part of each patch; None for small patches.

    The part has about half of the patch along x and y. The time of the update grows in proportion to the voxels.
    """
    image = next(iter(sample.batches))["image"]
    size = [min(n, math.ceil(n / 2 / GRAIN) * GRAIN) for n in image.shape[2:4]]
    share = math.prod(size) / math.prod(image.shape[2:4])
    if image.shape[0] * image.shape[2:].numel() < LARGE or share == 1:
        return None
    computing, sampling = mean_step(_steps(sample, stage, PartialBatches(sample.batches, size), now))
    return computing / share, sampling


class PartialBatches:
    """Iterate over two batches of patches that are cut along x and y.

    Args:
        batches: batches, dictionaries; each tensor ``(B, C, x, y, z)`` is cut.
        size: size (x, y) of the part, in voxels.
    """

    def __init__(self, batches: Iterable[dict[str, Any]], size: Sequence[int]) -> None:
        self.batches = batches
        self.size = size

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[dict[str, Any]]:
        x, y = self.size
        for batch in islice(self.batches, len(self)):
            yield {k: v[:, :, :x, :y] if isinstance(v, Tensor) and v.dim() == 5 else v for k, v in batch.items()}


def _steps(sample: Sample, stage: Stage, batches: Iterable[dict[str, Any]], now: Clock) -> list[list[float]]:
    """Return for each update the times of :func:`mean_step`."""
    trainer = sample.trainer
    device, loss = trainer.state.device, trainer.loss_function
    stage.network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    parameters = []
    if isinstance(loss, nn.Module):
        loss.to(device)
        parameters = trained_parameters(loss)
    if hasattr(loss, "set_epoch"):
        loss.set_epoch(1)
    engine = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=batches,
        network=training_form_of(stage.network),
        optimizer=stage.start_optimizer(parameters)[0],
        loss_function=loss,
        inferer=trainer.inferer,
        prepare_batch=batch_maker(stage),
        iteration_update=sample.update,
        amp=trainer.amp,
        decollate=False,
        optim_set_to_none=True,
    )
    marks: list[float] = []

    def mark() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        marks.append(now())

    def stop() -> None:
        if marks[-1] - marks[0] > BUDGET:
            engine.terminate()

    for event in (Events.GET_BATCH_STARTED, Events.ITERATION_STARTED, Events.ITERATION_COMPLETED):
        engine.add_event_handler(event, mark)
    engine.add_event_handler(Events.ITERATION_COMPLETED, stop)
    engine.run()
    return [marks[n : n + 3] for n in range(0, len(marks) - 2, 3)]


def mean_step(steps: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the mean times in s of an update and of loading its batch, without the first if there are more.

    Args:
        steps: for each update, the times at which loading began, the update began and the update ended.
    """
    counted = steps[1:] or steps
    computing = sum(ended - began for _, began, ended in counted) / len(counted)
    return computing, sum(began - loading for loading, began, _ in counted) / len(counted)


def measure_validation(stage: Stage, trainer: StagedTrainer, now: Clock) -> float:
    """Return the time in s of the validation of the sample case."""
    evaluator = trainer.evaluator
    evaluator.network = windows = SampledWindows(stage.network.to(trainer.state.device), now)
    evaluator.prepare_batch = ImageAndLabel(stage.channels)
    started = now()
    evaluator.run(1)
    return now() - started + windows.saved


class SampledWindows(nn.Module):
    """Run a network on windows until a time is spent; then return an earlier output.

    Args:
        network: network that returns one tensor.
        now: callable () -> time in s.
        budget: time in s.
    """

    def __init__(self, network: nn.Module, now: Clock, budget: float = WINDOW_BUDGET) -> None:
        super().__init__()
        self.network = network
        self.now = now
        self.budget = budget
        self.spent = 0.0  # s
        self.computed = self.skipped = 0  # windows
        self.output: Tensor | None = None

    @property
    def saved(self) -> float:
        """Return the time in s that the skipped windows would have taken."""
        return self.skipped * self.spent / self.computed if self.computed else 0.0

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.output is not None and self.spent > self.budget and self.output.shape[2:] == x.shape[2:]:
            self.skipped += len(x)
            return self.output[:1].repeat(len(x), *[1] * (self.output.dim() - 1))
        started = self.now()
        output = self.network(x, *args, **kwargs)
        if not isinstance(output, Tensor):
            raise InputError(f"the network returned {type(output).__name__} in validation, expected one tensor")
        if output.device.type == "cuda":
            torch.cuda.synchronize(output.device)
        self.spent += self.now() - started
        self.computed += len(x)
        self.output = output
        return output
