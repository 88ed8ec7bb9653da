"""Train MultiR-Net by iterative learning (Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn


def iterative_update(engine: SupervisedTrainer, batch: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
    """Train on a batch several times, each time with the network's result of the previous pass.

    This is an ``iteration_update`` of MONAI's trainer. The network gets the image and ``previous``: None in the first
    pass, then the probability of the pass before, without gradient. The network's attribute ``iterations`` is the
    number of passes after the first, and its output ``seg`` holds logits. Each pass ends with a step of the optimiser
    and fires the events of a forward pass, a loss and a backward pass.

    Args:
        engine: trainer with ``prepare_batch``, inferer, network, loss and optimiser; it may use mixed precision.
        batch: batch of the trainer's loader.

    Returns:
        ``image``, ``label``, ``pred`` and ``loss``, as MONAI's trainer returns them: for the batch, or in a list for
        each sample. ``pred`` and ``loss`` belong to the last pass.
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
    return engine.state.output
