"""Iterative learning, the update of MultiR-Net (Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn


def iterative_update(engine: SupervisedTrainer, batch: dict[str, Any]) -> dict[str, Any]:
    """An ``iteration_update`` that shows a batch to the network several times, each time with what it found before.

    The network gets the image and ``previous``: None in the first pass, then the probability of the pass before,
    without gradient. Its attribute ``iterations`` is the number of passes after the first. Its output ``seg`` is a
    logit. Each pass ends with a step of the optimiser, and fires the events of a forward, a loss and a backward.

    Args:
        engine: whose ``prepare_batch``, inferer, network, loss and optimiser are used, with mixed precision if it is
            set so.
        batch: of the engine's loader.

    Returns:
        ``image``, ``label``, ``pred`` and ``loss``, as MONAI's trainer has them; the last two are the last pass's.
    """
    image, targets = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    engine.state.output = output = {"image": image, "label": targets}
    network = engine.network
    network.train()
    bare = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    previous = None
    for _ in range(int(bare.iterations) + 1):
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with torch.autocast("cuda", enabled=engine.scaler is not None, **engine.amp_kwargs):
            output["pred"] = engine.inferer(image, network, previous)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            output["loss"] = engine.loss_function(output["pred"], targets).mean()
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        if engine.scaler is None:
            output["loss"].backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            engine.optimizer.step()
        else:
            engine.scaler.scale(output["loss"]).backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            engine.scaler.step(engine.optimizer)
            engine.scaler.update()
        previous = output["pred"]["seg"].detach().float().sigmoid()
    engine.fire_event(IterationEvents.MODEL_COMPLETED)
    return output
