"""Use several networks as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

SMALLEST = torch.finfo(torch.float32).tiny  # a probability that was rounded to 0 has a finite logarithm


class MeanEnsemble(nn.Module):
    """Average the probabilities of several networks, such as those of a cross-validation.

    Channels of probabilities are averaged. Each group of logits becomes probabilities by a softmax over its channels,
    these are averaged, and the ensemble returns the logarithm of the mean. The softmax of this logarithm is the mean.
    So whatever takes the output of one network also takes that of the ensemble.

    Args:
        networks: networks in their inference form; each returns one tensor of the same shape.
        logits: sizes of the groups of logits. They are the last channels of the output, and all channels before them
            are probabilities. A size of 0 counts as no group.

    Raises:
        ValueError: the list of networks is empty, or it holds the same network twice.
    """

    __constants__ = ("logits", "smallest")  # TorchScript unrolls the loop over the groups

    def __init__(self, networks: Sequence[nn.Module], logits: Sequence[int] = ()) -> None:
        super().__init__()
        if len(networks) == 0 or len({id(network) for network in networks}) < len(networks):
            raise ValueError(f"networks: expected one or more, each with its own weights, found {len(networks)}")
        self.networks = nn.ModuleList(networks)
        self.logits = tuple(size for size in logits if size)
        self.smallest = SMALLEST

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of the probabilities for an image ``(B, C, x, y, z)``; its logarithm for logits."""
        total = image
        for i, network in enumerate(self.networks):
            output = network(image)
            assert isinstance(output, Tensor)  # the inference form
            output = self.probabilities(output)
            total = output if i == 0 else total + output
        mean = total / len(self.networks)
        if len(self.logits) == 0:
            return mean
        first = self.first_logit(mean)
        return torch.cat([mean[:, :first], mean[:, first:].clamp_min(self.smallest).log()], 1)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the output of one network ``(B, C, x, y, z)`` with probabilities in place of logits."""
        if len(self.logits) == 0:
            return output
        first = self.first_logit(output)
        parts = [output[:, :first]]
        for size in self.logits:
            parts.append(torch.softmax(output[:, first : first + size], 1))
            first += size
        return torch.cat(parts, 1)

    def first_logit(self, output: Tensor) -> int:
        """Return the number of channels before the logits.

        Raises:
            ValueError: the output has fewer channels than logits.
        """
        first = output.shape[1]
        for size in self.logits:
            first -= size
        if first < 0:
            raise ValueError(f"output of {output.shape[1]} channels, expected {output.shape[1] - first} logits or more")
        return first


def mean_ensemble(build: Callable[[], nn.Module], count: int, logits: Sequence[int] = ()) -> MeanEnsemble:
    """Return an ensemble of networks of one kind.

    Args:
        build: returns a new network.
        count: number of networks.
        logits: as for :class:`MeanEnsemble`.
    """
    return MeanEnsemble([build() for _ in range(count)], logits)
