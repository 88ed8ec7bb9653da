"""The losses of MPU-Net: Tversky loss and cross-entropy, summed over the scales of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from monai.losses import TverskyLoss
from monai.networks import one_hot
from torch import Tensor, nn

from ...errors import InputError


class TverskyCrossEntropyLoss(nn.Module):
    """``Tversky + ce_weight * cross-entropy`` of probabilities, in float32; the loss of one map of MPU-Net (eq. 19).

    Over the voxels of a sample, for each class, background included::

        Tversky = 1 - TP / (TP + alpha FP + beta FN + smooth), the mean over classes and samples
        cross-entropy = -mean(log of p where the voxel is of the class, of 1 - p elsewhere)

    The defaults put more on a voxel that is missed than on one too many. ``smooth`` stands below the fraction line
    only, as in the authors' released code, so that the Tversky loss of a perfect prediction is above 0 by
    ``smooth / (TP + smooth)``. The paper gives no values for these constants; they are the code's.

    Args:
        alpha, beta: weights of false positives and of false negatives.
        ce_weight: weight of the cross-entropy.
        smooth: keeps the quotient finite for a class that is nowhere.
        ce_on_sigmoid: take the cross-entropy of ``sigmoid(p)``, as the released code does by mistake. A perfect
            prediction of two classes then still costs 0.503.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        ce_weight: float = 1.0,
        smooth: float = 1.0,
        ce_on_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.tversky = TverskyLoss(alpha=alpha, beta=beta, smooth_nr=0.0, smooth_dr=smooth)
        self.ce_weight = ce_weight
        self.ce_on_sigmoid = ce_on_sigmoid

    def forward(self, probabilities: Tensor, label: Tensor) -> Tensor:
        """A scalar.

        Args:
            probabilities: ``(B, K, x, y, z)``, not logits.
            label: ``(B, 1, x, y, z)``, class indices of any type.

        Raises:
            InputError: other shapes, or fewer than 2 channels.
        """
        if probabilities.shape[1] < 2 or label.shape != (len(probabilities), 1, *probabilities.shape[2:]):
            raise InputError(
                f"probabilities of shape {list(probabilities.shape)} with a label of shape {list(label.shape)}: "
                "expected (B, 2 or more, x, y, z) and (B, 1, x, y, z)"
            )
        probabilities = probabilities.float()
        truth = one_hot(label, probabilities.shape[1])
        return self.tversky(probabilities, truth) + self.ce_weight * self._cross_entropy(probabilities, truth)

    def _cross_entropy(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        if self.ce_on_sigmoid:
            return F.binary_cross_entropy_with_logits(probabilities, truth)
        # PyTorch refuses its binary_cross_entropy inside autocast, whatever the type of its input
        given_to_truth = torch.where(truth > 0, probabilities, 1 - probabilities)
        return -given_to_truth.clamp_min(1e-7).log().mean()


class DeepSupervisionLoss(nn.Module):
    """``loss(seg) + w * sum of loss(aux)`` over the outputs ``aux_...``, whose weight fades with the epochs.

    ``w = weight * decay ** ((epoch - 1) // every)``. The defaults are those of MPU-Net's released code: 0.4 in the
    epochs 1 to 30, 0.32 in 31 to 60. Without an ``aux_...`` output it is the loss of ``seg``.

    Args:
        loss: of a map and a label ``(B, 1, x, y, z)``, to a scalar.
        weight: of each auxiliary map in the first epochs.
        decay: factor on that weight.
        every: epochs from one such factor to the next.
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
        """The epoch of the next calls, from 1, which is also that of a new object."""
        self.aux_weight = self.weight * self.decay ** ((epoch - 1) // self.every)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """A scalar in float32, of the maps ``seg`` and ``aux_...`` and of the label ``seg``."""
        total, label = self.loss(outputs["seg"].float(), targets["seg"]), targets["seg"]
        aux = [self.loss(output.float(), label) for name, output in outputs.items() if name.startswith("aux_")]
        return total + self.aux_weight * torch.stack(aux).sum() if aux else total
