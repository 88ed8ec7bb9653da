"""Several networks of one form as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MeanEnsemble(nn.Module):
    """The mean of what several networks return, such as those of a cross-validation.

    Args:
        networks: each returns one tensor of the same shape; of those with a ``dense`` form, it is the mean of the
            probabilities of each task.

    Raises:
        ValueError: there are no networks, or one of them stands twice in the list.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(networks) == 0 or len({id(network) for network in networks}) < len(networks):
            raise ValueError(f"networks: expected one or more, each with its own weights, found {len(networks)}")
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """The mean of the outputs for an image ``(B, C, x, y, z)``."""
        total = image
        for i, network in enumerate(self.networks):
            output = network(image)
            assert isinstance(output, Tensor)  # and not the form for training
            total = output if i == 0 else total + output
        return total / len(self.networks)


def mean_ensemble(build: Callable[[], nn.Module], count: int) -> MeanEnsemble:
    """Return an ensemble of networks of one kind.

    Args:
        build: returns a new network.
        count: number of networks.
    """
    return MeanEnsemble([build() for _ in range(count)])
