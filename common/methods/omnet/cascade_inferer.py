"""Infer with the model cascade, each later network only where the networks before it found something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...inferers.windows import Tiles, WindowInferer, places_in_mask
from ...tensors import dilate
from .classes import CORE, TUMOUR


class CascadeInferer(WindowInferer):
    """Infer sliding windows with a model cascade of three networks, coarse to fine.

    The first network computes all windows. The second computes the windows that meet the coarse tumour with its
    margin. The third computes the windows that meet the core, which the second network found in that region.
    :class:`FuseTasksd` returns the same label map as if each network had computed all windows. A network without any
    window computes one, and its result is not used.

    Args:
        roi_size, sw_batch_size, overlap, mode, precision, empty, keep: as for :class:`WindowInferer`; where a network
            computes no window, the probability of its class 0 is 1.
        gated: whether later networks skip windows; False computes all windows with all networks.
        tumour: classes of the coarse task that are tumour; they need more than half of the probability together.
        core: classes of the tumour task that are the core.
        margin: voxels around the coarse tumour, along all axes and diagonals, in which the tumour task decides.

    Raises:
        ValueError: the network has no attribute ``nets`` with three networks.
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
        tumour: Sequence[int] = TUMOUR,
        core: Sequence[int] = CORE,
        margin: int = 5,
    ) -> None:
        super().__init__(roi_size, sw_batch_size, overlap, mode, precision, empty, keep=keep)
        self.gated = gated
        self.tumour = list(tumour)
        self.core = list(core)
        self.margin = margin

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the probabilities of the three tasks, joined along the channels.

        The attribute ``nets`` of ``network`` is a ``ModuleDict`` of the three networks, which return logits.
        """
        nets = getattr(network, "nets", {})
        if len(nets) != 3:
            raise ValueError(
                f"{type(network).__name__} is not a cascade: found {len(nets)} networks in its attribute 'nets'; "
                "expected 3, as a Cascade has"
            )
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
            output[:, :1] += output.sum(1, keepdim=True) == 0  # class 0 where no window was computed
            outputs.append(output)
        return torch.cat(outputs, 1)


class _Probabilities:
    """Apply a network, then the softmax over its classes."""

    def __init__(self, network: Callable[..., Tensor]) -> None:
        self.network = network

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.softmax(self.network(*args, **kwargs).float(), 1)
