"""Compute the losses of MultiR-Net: focal Tversky loss, and its sum with the class loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from monai.losses import TverskyLoss
from torch import Tensor, nn

from ...layers import label_masks
from ...layers.checks import check_option


class FocalTverskyLoss(nn.Module):
    """Compute ``(1 - TI) ** exponent`` of logits with the Tversky index of a label, in float32.

    Of several labels, the loss is the mean.

    ``TI = (TP + 1e-5) / (TP + alpha FN + beta FP + 1e-5)`` (eq. 6 and 7), with sums over the batch. A sample without
    foreground has an index of its own that hardly changes with the prediction; in the batch, its false positives count.
    A label that no sample of the batch has keeps that index, and so nearly no gradient, unless ``absent`` is "mean".
    Here ``alpha`` weights the false **negatives**; MONAI's ``alpha`` weights the false positives.

    The paper prints the exponent as ``1 / gamma`` with ``gamma`` in [1, 3] and trains with "0.9". Here 0.9 is the
    exponent itself, so the printed ``gamma`` is 1.11; a ``gamma`` of 0.9 would lie outside that range.

    Args:
        exponent: power of ``1 - TI``; below 1, the loss is steep only near a perfect prediction.
        alpha, beta: weights of false negatives and of false positives.
        absent: what takes the place of ``1 - TI`` for a label that no sample of the batch has: ``"index"``, the same
            formula, or ``"mean"``, the mean probability of the label over the batch.

    Raises:
        ValueError: ``absent`` has another value.
    """

    def __init__(self, exponent: float = 0.9, alpha: float = 0.7, beta: float = 0.3, *, absent: str = "index") -> None:
        super().__init__()
        check_option("absent", absent, ("index", "mean"))
        self.absent = absent
        self.tversky = TverskyLoss(sigmoid=True, alpha=beta, beta=alpha, batch=True, reduction="none")
        self.exponent = exponent

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of logits ``(B, K, x, y, z)`` and masks of that shape, 1 in the label, as a scalar."""
        loss = self.tversky(logits.float(), masks.float())
        if self.absent == "mean":
            over = [0, *range(2, masks.ndim)]
            loss = torch.where(masks.amax(over) > 0, loss, logits.float().sigmoid().mean(over))
        return loss.clamp_min(1e-7).pow(self.exponent).mean()  # at 0 the power has no finite derivative


class SegmentationClassLoss(nn.Module):
    """Compute ``class_weight * cross-entropy + (1 - class_weight) * seg_loss``, the loss of MultiR-Net.

    Without an output or a target ``class`` the loss is ``seg_loss`` alone. The paper gives ``class_weight`` no value.

    Args:
        seg_loss: callable (logits ``(B, K, x, y, z)``, masks of that shape, one for each label) -> scalar loss, such as
            ``DiceLoss(sigmoid=True, batch=True)``.
        class_weight: weight of the cross-entropy, 0 to 1.
    """

    def __init__(self, seg_loss: Callable[[Tensor, Tensor], Tensor], class_weight: float = 0.5) -> None:
        super().__init__()
        self.seg_loss = seg_loss
        self.class_weight = class_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, a scalar in float32.

        Args:
            outputs: ``seg``, logits ``(B, K, x, y, z)``, and ``class``, logits ``(B, classes)``.
            targets: ``seg``, a label map ``(B, 1, x, y, z)`` with the values 0 to K, and ``class``, indices ``(B,)``,
                which cases without a class lack.

        Raises:
            InputError: logits and label map have different sizes, or a value has no map.
        """
        logits = outputs["seg"].float()
        loss = self.seg_loss(logits, label_masks(targets["seg"], logits))
        if "class" not in outputs or "class" not in targets:
            return loss
        return (
            self.class_weight * F.cross_entropy(outputs["class"].float(), targets["class"].long())
            + (1 - self.class_weight) * loss
        )
