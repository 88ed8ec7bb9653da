"""The Jaccard loss with a focal loss: overlap of a small structure, and its voxels one by one."""

from __future__ import annotations

import torch
from monai.losses import FocalLoss
from torch import Tensor, nn

from ..errors import InputError


class JaccardFocalLoss(nn.Module):
    """``Jaccard + eta * focal`` of logits, in float32; the segmentation loss of MA-MTLN (eq. 9 to 11).

    For two channels ``p = sigmoid(z1 - z0)``, which is the softmax, and ``q`` is 1 in the foreground::

        Jaccard = 1 - (sum q p + smooth) / (sum q^2 + sum p^2 - sum q p + smooth)
        focal   = -mean(alpha q (1 - p)^gamma log p + (1 - alpha) (1 - q) p^gamma log(1 - p))

    The sums run over a sample, and the mean of the batch is taken. With more channels, such as liver and tumour, ``p``
    of a foreground class is still its softmax, ``z1 - z0`` its logarithmic odds against all others, and the loss is
    the mean over the foreground classes, each against the rest.

    **Open question.** In print ``alpha`` is the weight of the foreground, 0.2, though a focal loss is brought in for
    its few voxels. The authors' released code weighs the foreground with 0.8 and the background with 0.2, which their
    grid of ``alpha`` and ``gamma`` neither proves nor refutes. The default is the printed equation; ``alpha=0.8`` is
    the code's order. That code also sums the focal loss over the voxels, takes no squares in the Jaccard loss and
    leaves the 1 out, under which a learned weight of the task has no optimum; none of these is followed.

    MONAI's ``DiceLoss(jaccard=True, squared_pred=True)`` is the same Jaccard loss, but takes ``sum q p`` as a
    difference of sums over all voxels, in which a small structure is lost to rounding.

    Args:
        alpha: weight of the foreground in the focal loss; ``1 - alpha`` is that of the background.
        gamma: exponent of the focal loss; 0 makes it a weighted cross-entropy.
        eta: weight of the focal loss.
        smooth: keeps the quotient finite where neither prediction nor label holds foreground.
    """

    def __init__(self, alpha: float = 0.2, gamma: float = 1.0, eta: float = 0.1, smooth: float = 1e-5) -> None:
        super().__init__()
        self.focal = FocalLoss(alpha=alpha, gamma=gamma)
        self.eta = eta
        self.smooth = smooth

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """A scalar.

        Args:
            logits: ``(B, C, x, y, z)``, background first.
            label: ``(B, 1, x, y, z)``, class indices of any type.

        Raises:
            InputError: other shapes, or fewer than 2 channels.
        """
        if logits.shape[1] < 2 or label.shape != (len(logits), 1, *logits.shape[2:]):
            raise InputError(
                f"logits of shape {list(logits.shape)} with a label of shape {list(label.shape)}: "
                "expected (B, 2 or more, x, y, z) and (B, 1, x, y, z)"
            )
        logits = logits.float()
        losses = []
        for k in range(1, logits.shape[1]):
            log_odds, truth = _log_odds(logits, k), (label == k).float()
            losses.append(self._jaccard(log_odds, truth) + self.eta * self.focal(log_odds, truth))
        return torch.stack(losses).mean()

    def _jaccard(self, log_odds: Tensor, truth: Tensor) -> Tensor:
        p, dims = log_odds.sigmoid(), list(range(1, truth.ndim))
        overlap = (truth * p).sum(dims)
        union = truth.sum(dims) + (p * p).sum(dims) - overlap  # the truth is its own square
        return (1 - (overlap + self.smooth) / (union + self.smooth)).mean()


def _log_odds(logits: Tensor, k: int) -> Tensor:
    """Of class ``k`` against all others, ``(B, 1, x, y, z)``; its sigmoid is the softmax of that class."""
    one, others = logits[:, k : k + 1], torch.cat([logits[:, :k], logits[:, k + 1 :]], dim=1)
    return one - (others if others.shape[1] == 1 else others.logsumexp(1, keepdim=True))
