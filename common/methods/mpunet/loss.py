"""Compute the losses of MPU-Net: Tversky loss and cross-entropy, summed over the scales of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from monai.losses import TverskyLoss
from monai.networks import one_hot
from torch import Tensor, nn

from ...layers import binary_cross_entropy
from ...layers.checks import check_maps_and_label


class TverskyCrossEntropyLoss(nn.Module):
    """Compute ``Tversky + ce_weight * cross-entropy`` of probabilities, in float32, for one map of MPU-Net (eq. 19).

    The sums run over the voxels of a sample, for each class, background included::

        Tversky = 1 - TP / (TP + alpha FP + beta FN + smooth), the mean over classes and samples
        cross-entropy = -mean(log of p where the voxel is of the class, of 1 - p elsewhere)

    The defaults weight a missed voxel more than a false alarm. ``smooth`` is in the denominator only, as in the
    authors' released code, so the Tversky loss of a perfect prediction is ``smooth / (TP + smooth)``. The paper gives
    no values for these constants; the defaults come from the code.

    Args:
        alpha, beta: weights of false positives and of false negatives.
        ce_weight: weight of the cross-entropy.
        smooth: constant that keeps the quotient finite for a class without voxels.
        ce_on_sigmoid: whether to take the cross-entropy of ``sigmoid(p)``, as the released code does by mistake. A
            perfect prediction of two classes then still costs 0.503.
        include_background: whether the Tversky loss has a term for the background.
        batch: whether the sums of the Tversky loss run over the voxels of the batch in place of a sample.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        ce_weight: float = 1.0,
        smooth: float = 1.0,
        ce_on_sigmoid: bool = False,
        include_background: bool = True,
        batch: bool = False,
    ) -> None:
        super().__init__()
        self.tversky = TverskyLoss(
            include_background, alpha=alpha, beta=beta, smooth_nr=0.0, smooth_dr=smooth, batch=batch
        )
        self.ce_weight = ce_weight
        self.ce_on_sigmoid = ce_on_sigmoid

    def forward(self, probabilities: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            probabilities: ``(B, K, x, y, z)``, not logits.
            label: ``(B, 1, x, y, z)``, class indices of any type.

        Raises:
            InputError: the shapes differ from these, or there are fewer than 2 channels.
        """
        check_maps_and_label(probabilities, label, "probabilities")
        probabilities = probabilities.float()
        truth = one_hot(label, probabilities.shape[1])
        return self.tversky(probabilities, truth) + self.ce_weight * self._cross_entropy(probabilities, truth)

    def _cross_entropy(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        if self.ce_on_sigmoid:
            return F.binary_cross_entropy_with_logits(probabilities, truth)
        return binary_cross_entropy(probabilities, truth)


class DeepSupervisionLoss(nn.Module):
    """Compute ``loss(seg) + w * sum of loss(aux)`` over the outputs ``aux_...``, with a weight that falls by epochs.

    ``w = weight * decay ** ((epoch - 1) // every)``. The defaults come from MPU-Net's released code: 0.4 in epochs 1 to
    30, 0.32 in epochs 31 to 60. Without an ``aux_...`` output the loss is ``loss(seg)``.

    Args:
        loss: callable (map, label ``(B, 1, x, y, z)``) -> scalar loss.
        weight: weight of each auxiliary map in the first epochs.
        decay: factor on the weight.
        every: number of epochs from one such factor to the next.
    """

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Tensor], weight: float = 0.4, decay: float = 0.8, every: int = 30
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.decay = decay
        self.every = every
        self.aux_weight = weight

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next calls, from 1; a new loss starts in epoch 1."""
        self.aux_weight = self.weight * self.decay ** ((epoch - 1) // self.every)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of the maps ``seg`` and ``aux_...`` with the label ``seg``, a scalar in float32."""
        total, label = self.loss(outputs["seg"].float(), targets["seg"]), targets["seg"]
        aux = [self.loss(output.float(), label) for name, output in outputs.items() if name.startswith("aux_")]
        return total + self.aux_weight * torch.stack(aux).sum() if aux else total
