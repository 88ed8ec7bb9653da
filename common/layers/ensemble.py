"""Use several networks as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MeanEnsemble(nn.Module):
    """Average the outputs of several networks, such as those of a cross-validation.

    Args:
        networks: networks in their inference form; each returns one tensor of the same shape, of probabilities.

    Raises:
        ValueError: the list is empty, or it holds the same network twice.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(networks) == 0 or len({id(network) for network in networks}) < len(networks):
            raise ValueError(f"networks: expected one or more, each with its own weights, found {len(networks)}")
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of the outputs for an image ``(B, C, x, y, z)``."""
        total = image
        for i, network in enumerate(self.networks):
            output = network(image)
            assert isinstance(output, Tensor)  # the inference form
            total = output if i == 0 else total + output
        return total / len(self.networks)


def mean_ensemble(build: Callable[[], nn.Module], count: int) -> MeanEnsemble:
    """Return an ensemble of networks of one kind.

    Args:
        build: returns a new network.
        count: number of networks.
    """
    return MeanEnsemble([build() for _ in range(count)])
