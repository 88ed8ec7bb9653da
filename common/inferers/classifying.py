"""Infer by sliding windows with networks that segment a volume and classify it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..layers import append_class, split_class
from .windows import Tiles, WindowInferer

VOTES = ("foreground", "volume")


class ClassifyingWindowInferer(WindowInferer):
    """Run a network that returns segmentation channels, followed by class logits, over a volume.

    :class:`WindowInferer` averages the segmentation channels. The class logits are constant over a window, and their
    softmax is the window's vote. The votes together give the class probabilities of the case. A window that reaches
    into the padding around the image has the same vote as any other.

    A voxel is foreground if the largest of several segmentation channels is not the first. A single channel is a
    probability, and the voxel is foreground from 0.5 on; so are several channels without a background.

    Args:
        roi_size: window size ``(x, y, z)``, in voxels.
        num_classes: number of class logits, the last channels of the network's output. A network without other
            channels has no foreground. With 0, the result is that of :class:`WindowInferer`.
        vote: ``"foreground"`` averages over the windows with predicted foreground, or over all computed windows if
            there are none. ``"volume"`` weights each window by its predicted foreground voxels, or equally if there are
            none.
        background: whether the first of several segmentation channels is the background.
        options: options of :class:`WindowInferer`; ``fill`` applies to the segmentation channels.

    Returns:
        from the call, tensor ``(B, C + num_classes, x, y, z)``: C segmentation channels, then the probabilities of the
        case, constant over the volume. They are NaN if no window of the case was computed.

    Raises:
        InputError: ``vote`` is unknown.
        ValueError: from the call, the network returns fewer channels than classes.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        num_classes: int,
        vote: str = "foreground",
        background: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(roi_size, **options)
        if vote not in VOTES:
            raise InputError(f"--vote {vote}: expected {' or '.join(VOTES)}")
        self.num_classes = num_classes
        self.vote = vote
        self.background = background

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        if not self.num_classes:
            return super()._infer(tiles, network, *args, **kwargs)
        ballot = _Ballot(network, self.num_classes, self.background)
        segmentation = super()._infer(tiles, ballot, *args, **kwargs)
        probabilities = ballot.count([place[0] for place in tiles.filled], len(tiles.image), self.vote)
        return append_class(segmentation, probabilities)


class _Ballot:
    """Return the network's segmentation channels, and keep the votes of the windows, on their device."""

    def __init__(self, network: Callable[..., Any], num_classes: int, background: bool) -> None:
        self.network = network
        self.background = background
        self.num_classes = num_classes
        self.votes: list[Tensor] = []  # probabilities (windows, classes), one tensor for each batch
        self.voxels: list[Tensor] = []  # numbers of foreground voxels (windows,), one tensor for each batch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.network(*args, **kwargs)
        if not isinstance(outputs, Tensor) or outputs.dim() != 5:
            return outputs  # the inferer raises
        channels = outputs.shape[1] - self.num_classes
        if channels < 0:
            raise ValueError(
                f"the network returned {list(outputs.shape)}, expected {self.num_classes} class logits in its channels"
            )
        segmentation, logits = split_class(outputs, self.num_classes)
        self.votes.append(logits.float().softmax(1))
        several = channels > 1 and self.background
        found = segmentation[:, 1:].amax(1) > segmentation[:, 0] if several else (segmentation >= 0.5).any(1)
        self.voxels.append(found.sum((1, 2, 3)))
        return segmentation

    def count(self, cases: Sequence[int], num_cases: int, vote: str) -> Tensor:
        """Return the class probabilities ``(num_cases, classes)``.

        Args:
            cases: index of the case of each window, in the order in which the windows were computed.
            num_cases: number of cases in the batch.
            vote: as for :class:`ClassifyingWindowInferer`.
        """
        votes, voxels = torch.cat(self.votes)[: len(cases)], torch.cat(self.voxels)[: len(cases)]
        owners = torch.tensor(cases, dtype=torch.long, device=votes.device)
        own = (owners == torch.arange(num_cases, device=votes.device)[:, None]).float()  # (cases, windows)
        weights = own * (voxels if vote == "volume" else voxels > 0)
        weights = torch.where(weights.any(1, keepdim=True), weights, own)[..., None]
        return (weights * votes).sum(1) / weights.sum(1)
