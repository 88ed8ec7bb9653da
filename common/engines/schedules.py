"""Lower the learning rate in a way that ``torch.optim.lr_scheduler`` does not have."""

from __future__ import annotations

from typing import SupportsFloat

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import InputError


class Plateau(ReduceLROnPlateau):
    """Lower the learning rate when the smoothed training loss stops falling, and end the training with it.

    The smoothed loss is an exponential moving average over the epochs, which begins with the loss of the first one.

    Args:
        optimizer: optimiser with the learning rate of the first epoch.
        factor: factor on the learning rate, between 0 and 1.
        patience: number of epochs without a new lowest smoothed loss before the learning rate is lowered.
        threshold: smallest decrease of the lowest smoothed loss that counts, in units of the loss.
        smoothing: weight of the previous average in the new one, from 0 to below 1; 0 takes the loss as it is.
        lowest: learning rate of the first parameter group below which the training ends.

    Raises:
        InputError: a value is out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.2,
        patience: int = 10,
        threshold: float = 1e-3,
        smoothing: float = 0.93,
        lowest: float = 1e-9,
    ) -> None:
        if not (0 < factor < 1 and 0 <= smoothing < 1):
            raise InputError(
                f"plateau with factor {factor} and smoothing {smoothing}: expected a factor above 0 and a smoothing "
                "from 0, both below 1"
            )
        if min(patience, threshold, lowest) < 0:
            raise InputError(
                f"plateau with patience {patience}, threshold {threshold} and lowest {lowest}: expected no negative "
                "number"
            )
        super().__init__(
            optimizer,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode="abs",
            eps=0.0,  # the default stops lowering at 1e-8
        )
        self.smoothing = smoothing
        self.lowest = lowest
        self.mean_loss: float | None = None

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Lower the learning rate if the smoothed training loss stops falling."""
        loss = float(metrics)
        before = loss if self.mean_loss is None else self.mean_loss
        self.mean_loss = self.smoothing * before + (1 - self.smoothing) * loss
        super().step(self.mean_loss)

    @property
    def is_finished(self) -> bool:
        """Return whether the learning rate is below ``lowest``."""
        return self.optimizer.param_groups[0]["lr"] < self.lowest
