"""The losses of MultiR-Net: focal Tversky loss, and its sum with the cross-entropy of the class."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from monai.losses import TverskyLoss
from torch import Tensor, nn


class FocalTverskyLoss(nn.Module):
    """``(1 - TI) ** exponent`` with the Tversky index of one foreground class, of logits, in float32.

    ``TI = (TP + 1e-5) / (TP + alpha FN + beta FP + 1e-5)``, summed over the batch: a sample without foreground, whose
    own index hardly changes with the prediction, still counts by its false positives. Of MultiR-Net (eq. 6 and 7),
    where ``alpha`` is on the false **negatives**; MONAI's ``alpha`` is on the false positives.

    The paper prints the exponent as ``1 / gamma`` with ``gamma`` in [1, 3] and trains with "0.9". Here 0.9 is the
    exponent itself, so the printed ``gamma`` is 1.11; as ``gamma`` it would lie outside that range.

    Args:
        exponent: below 1, the loss falls steeply only near a perfect prediction.
        alpha, beta: weights of false negatives and of false positives.
    """

    def __init__(self, exponent: float = 0.9, alpha: float = 0.7, beta: float = 0.3) -> None:
        super().__init__()
        self.tversky = TverskyLoss(sigmoid=True, alpha=beta, beta=alpha, batch=True, reduction="none")
        self.exponent = exponent

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """A scalar, of logits ``(B, 1, x, y, z)`` and a label of that shape, 1 in the foreground and 0 elsewhere."""
        loss = self.tversky(logits.float(), label.float())
        return loss.clamp_min(1e-7).pow(self.exponent).mean()  # at 0 the power has no finite derivative


class SegmentationClassLoss(nn.Module):
    """``class_weight * cross-entropy + (1 - class_weight) * seg_loss``; MultiR-Net's, which gives no value of it.

    Without an output ``class`` it is ``seg_loss`` alone.

    Args:
        seg_loss: of a map and a label ``(B, 1, x, y, z)``, to a scalar, such as ``DiceLoss(sigmoid=True, batch=True)``.
        class_weight: 0 to 1.
    """

    def __init__(self, seg_loss: Callable[[Tensor, Tensor], Tensor], class_weight: float = 0.5) -> None:
        super().__init__()
        self.seg_loss = seg_loss
        self.class_weight = class_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """A scalar in float32.

        Args:
            outputs: ``seg``, and ``class``: logits ``(B, classes)``.
            targets: ``seg``, a label ``(B, 1, x, y, z)``, and ``class``: indices ``(B,)``.
        """
        loss = self.seg_loss(outputs["seg"].float(), targets["seg"])
        if "class" not in outputs:
            return loss
        return (
            self.class_weight * F.cross_entropy(outputs["class"].float(), targets["class"].long())
            + (1 - self.class_weight) * loss
        )
