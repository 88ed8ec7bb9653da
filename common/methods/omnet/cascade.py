"""Inference by three networks, the second and third only where those before found something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...inferers.windows import Tiles, WindowInferer, places_in_mask
from ...tensors import dilate


class CascadeInferer(WindowInferer):
    """Windows through a model cascade, whose networks each have a task, coarse to fine.

    The first network sees all windows; the second those that meet the coarse tumour or its surroundings; the third
    those that meet the core, there, of what the second says. :class:`FuseTasksd` makes the same of
    it as if all saw everything. A network for which no window is left computes one, which does not count.

    Args:
        roi_size, sw_batch_size, overlap, mode, precision, empty, keep: as for :class:`WindowInferer`; where a network
            computes no window, the probability of its class 0 is 1.
        gated: False computes all windows by all networks.
        tumour: classes of the coarse task that are tumour, where they have more than half of the probability.
        core: classes of the second task that are the core.
        margin: voxels around the coarse tumour, along all axes and diagonals, that the second task decides.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.25,
        mode: str = "constant",
        precision: str = "auto",
        empty: Sequence[float] | float | None = None,
        keep: Sequence[int] | None = None,
        gated: bool = True,
        tumour: Sequence[int] = (1, 2, 3),
        core: Sequence[int] = (1, 3),
        margin: int = 5,
    ) -> None:
        super().__init__(roi_size, sw_batch_size, overlap, mode, precision, empty, keep=keep)
        self.gated = gated
        self.tumour = list(tumour)
        self.core = list(core)
        self.margin = margin

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities of the three tasks, one after the other.

        ``network`` has the three networks, which return logits, as a ``ModuleDict`` in its attribute ``nets``.
        """
        nets = getattr(network, "nets", {})
        if len(nets) != 3:
            raise ValueError(f"{type(network).__name__} is no cascade: expected three networks in its attribute 'nets'")
        outputs: list[Tensor] = []
        places = tiles.filled
        for task, net in enumerate(nets.values()):
            if self.gated and task == 1:
                region = dilate(outputs[0][:, self.tumour].sum(1) > 0.5, self.margin)
                places = places_in_mask(places, region)
            elif self.gated and task == 2:
                found = outputs[1].argmax(1)
                core = torch.isin(found, torch.tensor(self.core, device=found.device))
                places = places_in_mask(places, core & region)
            output = self._compute(tiles, places, 0.0, _Probabilities(net), *args, **kwargs)
            output[:, :1] += output.sum(1, keepdim=True) == 0  # where no window was computed
            outputs.append(output)
        return torch.cat(outputs, 1)


class _Probabilities:
    def __init__(self, network: Callable[..., Tensor]) -> None:
        self.network = network

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.softmax(self.network(*args, **kwargs).float(), 1)
