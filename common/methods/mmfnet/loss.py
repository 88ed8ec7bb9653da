"""Compare the probability map of each label with its mask (eq. 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ...layers import binary_cross_entropy, label_masks


class LabelMapsLoss(nn.Module):
    """Compute ``dice + cross_entropy * BCE`` of one probability map for each label, in float32.

    The paper has one label and the Dice loss alone. ``BCE`` is the binary cross-entropy, the mean over maps and voxels.

    Args:
        dice: callable (probabilities, masks) -> scalar loss, such as MONAI's ``DiceLoss``; both ``(B, K, x, y, z)``.
        cross_entropy: float, weight of the binary cross-entropy.
    """

    def __init__(self, dice: Callable[[Tensor, Tensor], Tensor], cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.dice = dice
        self.cross_entropy = cross_entropy

    def forward(self, probabilities: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            probabilities: ``(B, K, x, y, z)``, a map for each label, not logits.
            label: ``(B, 1, x, y, z)``, 0 for the background and 1 to K for the labels.

        Raises:
            InputError: the shapes differ from these, or a label has no map.
        """
        masks = label_masks(label, probabilities)
        loss = self.dice(probabilities, masks)
        if self.cross_entropy:
            loss = loss + self.cross_entropy * binary_cross_entropy(probabilities, masks)
        return loss
