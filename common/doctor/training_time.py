"""Estimate the time of a training on this machine from a few real updates."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser

from ..data.intensity_statistics import SOFT_TISSUE
from ..engines import Stage, StagedTrainer
from ..engines.epoch_clock import count_validations, duration
from ..layers import training_form_of
from ..memory import device_memory, size
from .bundle import read_config, why
from .findings import Findings
from .measuring import BUDGET, Clock, batch_maker, measure_part, measure_updates, measure_validation, sample_training
from .memory import PROCESS, update_memory

SLOW_UPDATE = 60.0  # s
TOO_LONG = 14 * 86400.0  # s
PARTS = "an update is slow: its time is that of a part of the patch, in proportion to the voxels"
LESS = "fewer epochs or updates, a smaller --roi_size or a narrower network"


class StageTime(NamedTuple):
    """Hold the length of a stage and the measured times of its network.

    Args:
        epochs: number of epochs.
        validations: number of validations in them.
        update: time in s of an update with its data.
        validation: time in s of a validation of all cases.
    """

    epochs: int
    validations: int
    update: float
    validation: float


class Plan(NamedTuple):
    """Hold the numbers of a training that the estimate multiplies its times with.

    Args:
        updates: number of updates in an epoch.
        batch_size: number of samples in an update.
        workers: number of processes that prepare samples.
        cache_rate: share of the cases that the cache holds.
        train_cases, validation_cases: numbers of cases.
    """

    updates: int
    batch_size: int
    workers: int
    cache_rate: float
    train_cases: int
    validation_cases: int

    def update_time(self, computing: float, sampling: float, preparing: float) -> float:
        """Return the time in s of an update with its data.

        Args:
            computing: time in s of forward pass, backward pass and step.
            sampling: time in s of the random transforms of a batch.
            preparing: time in s of the other transforms of a case, which a case outside the cache needs again.
        """
        data = sampling + (1 - self.cache_rate) * self.batch_size * preparing
        return max(computing, data / self.workers) if self.workers else computing + data


def total_time(stages: Sequence[StageTime], updates: int, preparation: float) -> float:
    """Return the time in s of a whole training.

    Args:
        stages: stages of the training.
        updates: number of updates in an epoch.
        preparation: time in s before the first epoch.
    """
    return preparation + sum(s.epochs * updates * s.update + s.validations * s.validation for s in stages)


def estimate_training(
    findings: Findings,
    folder: Path,
    dataset_dir: Path,
    fold: int | None = None,
    overlay: str | Path | None = None,
    now: Clock = time.perf_counter,
) -> list[str]:
    """Measure a few updates and a part of a validation, and estimate the time of an epoch and of the training.

    The first case of each list is the sample. An update that does not fit the free memory is not made. Nothing is
    written.

    Args:
        findings: gets a note if the training would take more than 14 days, or does not fit the memory.
        folder: folder of the bundle.
        dataset_dir: folder of the data list.
        fold: cross-validation fold, as for a training.
        overlay: config file on top of the bundle's configs, as in a run.
        now: callable () -> time in s.

    Returns:
        lines to show; none if the bundle has no trainer.
    """
    try:
        config = functools.partial(_config, folder, dataset_dir, fold, overlay)
        if "train::trainer" not in (lists := config()):
            return []
        return _estimate(findings, lists, config(), now)
    except Exception as error:  # a part of a config that only the user knows
        return [f"training: not measured ({why(error)})"]


def _config(folder: Path, dataset_dir: Path, fold: int | None, overlay: str | Path | None) -> ConfigParser:
    parser = read_config(folder, "train", overlay, dataset_dir)
    settings: dict[str, Any] = {
        "fold": fold if fold is not None else parser.get("fold"),
        "intensity_statistics": SOFT_TISSUE,  # no time depends on them, and the real ones take a pass over all cases
    }
    for key, value in settings.items():
        if key in parser:
            parser[key] = value
    return parser


def _plan(lists: ConfigParser) -> Plan:
    rate = float(lists.get_parsed_content("cache_rate"))
    lists["train::dataset::cache_rate"] = 0.0
    read = lists.get_parsed_content
    counts = (len(read("train::dataset::data")), len(read("validate::cases")))
    return Plan(int(read("updates_per_epoch")), int(read("batch_size")), int(read("num_workers")), rate, *counts)


def _estimate(findings: Findings, lists: ConfigParser, sample: ConfigParser, now: Clock) -> list[str]:
    plan = _plan(lists)
    sample["updates_per_epoch"] = plan.updates
    training = sample_training(sample, plan.batch_size, now)
    trainer, preparing = training.trainer, training.preparing
    on_parts = False
    networks: dict[Any, tuple[float, float]] = {}  # times of an update and of a validation by kind of network
    for stage in reversed(trainer.stages):  # the later stages of a network train most of it
        if (kind := _kind(stage)) not in networks:
            if (need := _lacking(stage, trainer, next(iter(training.batches)))) is not None:
                findings.note("training", f"{need}; use a machine with more memory, or {LESS}")
                return [f"training: not measured, {need}"]
            times = measure_part(training, stage, now)
            if times is None or times[0] <= BUDGET:
                times = measure_updates(training, stage, now)
            else:
                on_parts = True
            computing, sampling = times
            validating = measure_validation(stage, trainer, now) if plan.validation_cases else 0.0
            networks[kind] = plan.update_time(computing, sampling, preparing), validating * plan.validation_cases
    stages, planned = [], 0
    for stage in trainer.stages:
        epochs = min(stage.max_epochs, trainer.max_epochs - planned)
        planned += epochs
        validations = count_validations(0, epochs, trainer.val_interval) if plan.validation_cases else 0
        stages.append(StageTime(epochs, validations, *networks[_kind(stage)]))
    patient = plan.validation_cases > 0 and any(stage.patience is not None for stage in trainer.stages)
    at_most = patient or any(hasattr(stage.start_optimizer()[1], "is_finished") for stage in trainer.stages)
    preparation = preparing * (plan.cache_rate * plan.train_cases + plan.validation_cases)
    lines = describe(findings, stages, plan, preparation, at_most, trainer.state.device)
    return [*lines, PARTS] if on_parts else lines


def describe(
    findings: Findings,
    stages: Sequence[StageTime],
    plan: Plan,
    preparation: float,
    at_most: bool = False,
    device: torch.device | str = "cpu",
) -> list[str]:
    """Return the lines of an estimate, and note a training that takes too long on this machine.

    Args:
        findings: gets the note.
        stages: stages of the training.
        plan: numbers of the training.
        preparation: time in s before the first epoch.
        at_most: whether the training may end before its last epoch.
        device: device of the training.
    """
    device = torch.device(device)
    epochs, total = sum(stage.epochs for stage in stages), total_time(stages, plan.updates, preparation)
    update = sum(stage.epochs * stage.update for stage in stages) / epochs
    threads = torch.get_num_threads()
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} thread{'s' * (threads > 1)}"
    most = "at most " if at_most else ""
    per_epoch = duration((total - preparation) / epochs)
    lines = [
        f"training: {duration(update)} per update, {plan.updates} updates per epoch: {per_epoch} per epoch, "
        f"{epochs} epochs: {most}{duration(total)} on this machine ({device.type}, {on})"
    ]
    if validations := sum(stage.validations for stage in stages):
        each = sum(stage.validations * stage.validation for stage in stages) / validations
        lines.append(f"of it each of {validations} validations: {duration(each)}, {plan.validation_cases} cases")
    lines.append(f"of it preparing the cases first: {duration(preparation)}")
    if update > SLOW_UPDATE:
        findings.note("training", f"one update takes {duration(update)}, so few were measured; use {LESS}")
    if total > TOO_LONG:
        faster = "another GPU" if device.type == "cuda" else "a GPU"
        findings.note(
            "training", f"the training would take {most}{duration(total)} on this machine; use {faster}, {LESS}"
        )
    return lines


def _kind(stage: Stage) -> tuple:
    count = sum(parameter.numel() for parameter in stage.network.parameters())
    return type(stage.network), count, None if stage.channels is None else len(stage.channels)


def _lacking(stage: Stage, trainer: StagedTrainer, batch: dict[str, Any]) -> str | None:
    """Return a text if an update does not fit the free memory; None if it does, or if this is not known."""
    image, _, *others = batch_maker(stage)(batch)
    args, kwargs = others or ((), {})
    try:
        need = update_memory(training_form_of(stage.network), image, *args, **kwargs)
    except Exception:  # layers that depend on values
        return None
    device = torch.device(trainer.state.device)
    memory = device_memory(device)
    need += int(PROCESS) if device.type == "cpu" else 0
    if memory is None or need <= memory.free:
        return None
    return f"an update takes about {size(need)}, but {size(memory.free)} of {size(memory.total)} memory are free"
