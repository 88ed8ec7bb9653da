"""Compute the losses of MA-MTLN: Jaccard and focal loss, and their weighted sum with the class loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from monai.losses import FocalLoss
from torch import Tensor, nn

from ...errors import InputError
from ...layers.checks import check_maps_and_label

_STAGE_WEIGHTS = {"aux_va": 0.8, "aux_asa": 0.9, "seg": 1.0}


class JaccardFocalLoss(nn.Module):
    """Compute ``Jaccard + eta * focal`` of logits, in float32; the segmentation loss of MA-MTLN (eq. 9 to 11).

    For two channels ``p = sigmoid(z1 - z0)``, which is the softmax, and ``q`` is 1 in the foreground::

        Jaccard = 1 - (sum q p + smooth) / (sum q^2 + sum p^2 - sum q p + smooth)
        focal   = -mean(alpha q (1 - p)^gamma log p + (1 - alpha) (1 - q) p^gamma log(1 - p))

    The sums run over a sample, and the loss is the mean over the batch. With more channels, such as liver and tumour,
    ``p`` of a foreground class is still its softmax, and ``z1 - z0`` its log odds against all others. The loss is the
    mean over the foreground classes, each against the rest.

    **Open question.** The paper prints ``alpha`` 0.2 as the weight of the foreground, although a focal loss is meant
    for its few voxels. The authors' released code weights the foreground with 0.8 and the background with 0.2. Their
    grid of ``alpha`` and ``gamma`` decides for neither. The default is the printed equation; ``alpha=0.8`` is the order
    of the code. The code also sums the focal loss over the voxels and takes no squares in the Jaccard loss. It leaves
    the 1 out, so that a learned task weight has no optimum. This class follows none of these;
    :class:`ReleasedJaccardFocalLoss` follows the first three.

    MONAI's ``DiceLoss(jaccard=True, squared_pred=True)`` computes the same Jaccard loss, but takes ``sum q p`` as a
    difference of sums over all voxels, where rounding loses a small structure.

    Args:
        alpha: weight of the foreground in the focal loss; the background has ``1 - alpha``.
        gamma: exponent of the focal loss; 0 makes it a weighted cross-entropy.
        eta: weight of the focal loss.
        smooth: constant that keeps the quotient finite if neither prediction nor label has foreground.
    """

    def __init__(self, alpha: float = 0.2, gamma: float = 1.0, eta: float = 0.1, smooth: float = 1e-5) -> None:
        super().__init__()
        self.focal = FocalLoss(alpha=alpha, gamma=gamma)
        self.eta = eta
        self.smooth = smooth

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: ``(B, C, x, y, z)``, background first.
            label: ``(B, 1, x, y, z)``, class indices of any type.

        Raises:
            InputError: the shapes differ from these, or there are fewer than 2 channels.
        """
        check_maps_and_label(logits, label, "logits")
        logits = logits.float()
        losses = []
        for k in range(1, logits.shape[1]):
            log_odds, truth = _log_odds(logits, k), (label == k).float()
            losses.append(self._jaccard(log_odds, truth) + self.eta * self._focal(log_odds, truth))
        return torch.stack(losses).mean()

    def _focal(self, log_odds: Tensor, truth: Tensor) -> Tensor:
        return self.focal(log_odds, truth)

    def _jaccard(self, log_odds: Tensor, truth: Tensor) -> Tensor:
        p, dims = log_odds.sigmoid(), list(range(1, truth.ndim))
        overlap = (truth * p).sum(dims)
        union = truth.sum(dims) + (p * p).sum(dims) - overlap  # a binary label equals its square
        return (1 - (overlap + self.smooth) / (union + self.smooth)).mean()


class ReleasedJaccardFocalLoss(JaccardFocalLoss):
    """Compute the segmentation loss of the authors' released code.

    It differs from :class:`JaccardFocalLoss` in these points::

        Jaccard = 1 - (sum q p + smooth) / (sum q + sum p - sum q p + smooth)
        focal   = -sum(alpha q (1 - p)^gamma log p + (1 - alpha) (1 - q) p^gamma log(1 - p))

    The sum of the focal loss runs over all voxels of the batch, and the factors to the power of ``gamma`` have no
    gradient. The release returns the loss less 1, with the same gradient. ``alpha`` has the value 0.8 there.

    Args:
        alpha, gamma, eta, smooth: as for :class:`JaccardFocalLoss`.
    """

    def __init__(self, alpha: float = 0.8, gamma: float = 1.0, eta: float = 0.1, smooth: float = 1e-5) -> None:
        super().__init__(alpha, gamma, eta, smooth)
        self.alpha, self.gamma = alpha, gamma

    def _focal(self, log_odds: Tensor, truth: Tensor) -> Tensor:
        cross_entropy = F.binary_cross_entropy_with_logits(log_odds, truth, reduction="none")
        wrong = (log_odds.detach().sigmoid() - truth).abs()  # 1 less the probability of the true class
        weight = torch.where(truth > 0, self.alpha, 1 - self.alpha)
        return (weight * wrong**self.gamma * cross_entropy).sum()

    def _jaccard(self, log_odds: Tensor, truth: Tensor) -> Tensor:
        p, dims = log_odds.sigmoid(), list(range(1, truth.ndim))
        overlap = (truth * p).sum(dims)
        union = truth.sum(dims) + p.sum(dims) - overlap
        return (1 - (overlap + self.smooth) / (union + self.smooth)).mean()


def _log_odds(logits: Tensor, k: int) -> Tensor:
    """Return the log odds of class ``k`` against all others, ``(B, 1, x, y, z)``; their sigmoid is its softmax."""
    one, others = logits[:, k : k + 1], torch.cat([logits[:, :k], logits[:, k + 1 :]], dim=1)
    return one - (others if others.shape[1] == 1 else others.logsumexp(1, keepdim=True))


class UncertaintyWeightedLoss(nn.Module):
    """Compute the sum of segmentation and class loss with learned task weights; MA-MTLN's (eq. 12 to 14).

    The segmentation loss is the sum of ``seg_loss`` over the stages, each times its weight (eq. 12), and the class loss
    is the cross-entropy (eq. 13). Each task ``i`` has a parameter ``s_i``, the logarithm of its variance ``a_i^2`` in
    eq. 14, which becomes the sum of ``0.5 exp(-s_i) L_i + 0.5 s_i``. The optimum is ``s_i = log L_i``. ``s_i`` starts
    at 0 and stays above ``lowest``, since nothing else would stop it if a loss reaches 0.

    The optimiser must train ``log_variances`` without weight decay. With one task, or with equal weights, there are no
    such parameters, and with one task no factor 0.5 either.

    Args:
        seg_loss: callable (map, label ``(B, 1, x, y, z)``) -> scalar loss.
        stage_weights: weight of each output that is a segmentation; the network may leave some out.
        task: ``seg``, ``class`` or ``both``, as the network has it.
        weighting: ``uncertainty``, or ``equal`` for ``0.5 L_seg + 0.5 L_class``, as in most tables of the paper.
        lowest: lower bound of ``s_i``.

    Raises:
        InputError: the task or the weighting is unknown.
    """

    log_variances: nn.Parameter | None

    def __init__(
        self,
        seg_loss: Callable[[Tensor, Tensor], Tensor],
        stage_weights: Mapping[str, float] = _STAGE_WEIGHTS,
        task: str = "both",
        weighting: str = "uncertainty",
        lowest: float = -10.0,
    ) -> None:
        super().__init__()
        if task not in ("seg", "class", "both"):
            raise InputError(f"task {task!r}: expected 'seg', 'class' or 'both'")
        if weighting not in ("uncertainty", "equal"):
            raise InputError(f"weighting '{weighting}': expected 'uncertainty' or 'equal'")
        self.seg_loss = seg_loss
        self.stage_weights = dict(stage_weights)
        self.tasks = ("seg", "class") if task == "both" else (task,)
        self.lowest = lowest
        learned = weighting == "uncertainty" and task == "both"
        self.log_variances = nn.Parameter(torch.zeros(2)) if learned else None

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, a scalar in float32.

        Args:
            outputs: maps of the stages by name, and ``class``, logits ``(B, classes)``.
            targets: ``seg``, a label ``(B, 1, x, y, z)``, and ``class``, indices ``(B,)``. Without a ``class``, the
                loss is that of the segmentation alone.

        Raises:
            InputError: the outputs belong to another task, or to a stage without a weight.
        """
        stages = [name for name in outputs if name != "class"]
        found = {"seg": bool(stages), "class": "class" in outputs}
        if any(found[task] != (task in self.tasks) for task in found) or not {*stages} <= {*self.stage_weights}:
            raise InputError(
                f"the network returns {', '.join(outputs)}: the loss expects the tasks {', '.join(self.tasks)} and "
                f"the stages {', '.join(self.stage_weights)}; set task and stage_weights as the network has them"
            )
        losses = torch.stack(
            [
                self._segmentation({name: outputs[name] for name in stages}, targets["seg"])
                if task == "seg"
                else _cross_entropy(outputs, targets)
                for task in self.tasks
                if task in targets
            ]
        )
        if len(losses) == 1:
            return losses.sum()
        if self.log_variances is None:
            return 0.5 * losses.sum()
        with torch.no_grad():  # a clamp of the value alone would leave s without a gradient below the bound
            self.log_variances.clamp_(min=self.lowest)
        return 0.5 * (torch.exp(-self.log_variances) * losses + self.log_variances).sum()

    def _segmentation(self, stages: Mapping[str, Tensor], label: Tensor) -> Tensor:
        losses = [self.stage_weights[name] * self.seg_loss(output.float(), label) for name, output in stages.items()]
        return torch.stack(losses).sum()


def _cross_entropy(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(outputs["class"].float(), targets["class"].long())
