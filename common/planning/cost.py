"""Measure the time and the memory of an update of a training."""

from __future__ import annotations

import time

import torch
from monai.bundle import ConfigParser

from ..doctor.measuring import measure_updates, sample_training
from ..doctor.memory import update_memory
from ..layers import training_form_of
from .choices import Cost


def update_cost(parser: ConfigParser, patch: list[int], batch: int, most: int) -> Cost:
    """Return the time and the memory of an update of the last stage.

    The memory is counted on shapes alone, in float32. The time is that of real updates with patches of one case, the
    random transforms included.

    Args:
        parser: training config with ``dataset_dir``; see :func:`common.doctor.measuring.sample_training`.
        patch: size ``(x, y, z)`` in voxels.
        batch: patches of an update.
        most: bytes that an update may take. One that needs more is not made, and its time is 0.
    """
    parser.ref_resolver.reset()
    network = training_form_of(parser.get_parsed_content("network_def"))
    shape = (batch, len(parser.get_parsed_content("modalities")), *patch)
    memory = update_memory(network, torch.empty(shape, device="meta"))
    if memory > most:
        return Cost(0.0, memory)
    sample = sample_training(parser, batch, time.perf_counter)
    return Cost(sum(measure_updates(sample, sample.trainer.stages[-1], time.perf_counter)), memory)
