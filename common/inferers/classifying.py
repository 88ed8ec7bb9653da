"""Inference by windows of networks that segment the volume and tell its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..layers import split_class
from .windows import Tiles, WindowInferer

VOTES = ("foreground", "volume")


class ClassifyingWindowInferer(WindowInferer):
    """Windows through a network that returns segmentation channels and, after them, class logits.

    Segmentation channels are averaged as :class:`WindowInferer` does. Of the class logits, which are constant over a
    window, the softmax of each window is a vote; the votes that count make the probabilities of the case. A window at
    the border counts like any other, with the zeros around the image. Foreground is where the largest of several
    segmentation channels is not the first, or where the only one, a probability, is at least 0.5.

    Args:
        roi_size: window ``(x, y, z)``, in voxels.
        num_classes: the last channels of the network's output; a network that returns no others has no foreground. Of
            0, as in a variant without classes, all is as in :class:`WindowInferer`.
        vote: ``"foreground"``: the mean over the windows that hold predicted foreground, or else over all that were
            computed. ``"volume"``: the mean weighted by each window's predicted foreground voxels, or else plain.
        options: as for :class:`WindowInferer`; ``fill`` is of the segmentation channels.

    Returns:
        from the call, ``(B, C + num_classes, x, y, z)``: the C segmentation channels, then the probabilities of the
        case, constant; NaN where no window of the case was computed.

    Raises:
        InputError: another vote.
        ValueError: from the call, a network that returns fewer channels than classes.
    """

    def __init__(self, roi_size: Sequence[int], num_classes: int, vote: str = "foreground", **options: Any) -> None:
        super().__init__(roi_size, **options)
        if vote not in VOTES:
            raise InputError(f"--vote {vote}: expected {' or '.join(VOTES)}")
        self.num_classes = num_classes
        self.vote = vote

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        if not self.num_classes:
            return super()._infer(tiles, network, *args, **kwargs)
        ballot = _Ballot(network, self.num_classes)
        segmentation = super()._infer(tiles, ballot, *args, **kwargs)
        probabilities = ballot.count([place[0] for place in tiles.filled], len(tiles.image), self.vote)
        constant = probabilities[:, :, None, None, None].expand(-1, -1, *segmentation.shape[2:])
        return torch.cat([segmentation, constant], 1)


class _Ballot:
    """The network's segmentation channels; what its windows say of the class is kept, on their device."""

    def __init__(self, network: Callable[..., Any], num_classes: int) -> None:
        self.network = network
        self.num_classes = num_classes
        self.votes: list[Tensor] = []  # (windows, classes) of each batch
        self.voxels: list[Tensor] = []  # of foreground, (windows,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.network(*args, **kwargs)
        if not isinstance(outputs, Tensor) or outputs.dim() != 5:
            return outputs  # which the inferer refuses
        channels = outputs.shape[1] - self.num_classes
        if channels < 0:
            raise ValueError(f"the network returned {list(outputs.shape)}, expected {self.num_classes} class logits")
        segmentation, logits = split_class(outputs, self.num_classes)
        self.votes.append(logits.float().softmax(1))
        several = channels > 1
        found = segmentation[:, 1:].amax(1) > segmentation[:, 0] if several else (segmentation >= 0.5).any(1)
        self.voxels.append(found.sum((1, 2, 3)))
        return segmentation

    def count(self, cases: Sequence[int], num_cases: int, vote: str) -> Tensor:
        """Probabilities ``(num_cases, classes)`` from the windows of these cases, in their order."""
        votes, voxels = torch.cat(self.votes)[: len(cases)], torch.cat(self.voxels)[: len(cases)]
        owners = torch.tensor(cases, dtype=torch.long, device=votes.device)
        own = (owners == torch.arange(num_cases, device=votes.device)[:, None]).float()  # (cases, windows)
        weights = own * (voxels if vote == "volume" else voxels > 0)
        weights = torch.where(weights.any(1, keepdim=True), weights, own)[..., None]
        return (weights * votes).sum(1) / weights.sum(1)
