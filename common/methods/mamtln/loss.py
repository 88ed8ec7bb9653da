"""The losses of MA-MTLN: Jaccard and focal loss, and its weighted sum with the cross-entropy of the class."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from monai.losses import FocalLoss
from torch import Tensor, nn

from ...errors import InputError

_STAGE_WEIGHTS = {"aux_va": 0.8, "aux_asa": 0.9, "seg": 1.0}


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


class UncertaintyWeightedLoss(nn.Module):
    """Segmentation at several stages and classification, weighted by what is learned of each; MA-MTLN's (eq. 12 to 14).

    The loss of the segmentation is the sum of ``seg_loss`` over its outputs, each times its weight (eq. 12), that of
    the class the cross-entropy (eq. 13). ``s_i``, one per task, is the logarithm of the variance ``a_i^2`` of the task
    in eq. 14, which becomes the sum of ``0.5 exp(-s_i) L_i + 0.5 s_i``. Its optimum is ``s_i = log L_i``. It starts at
    0 and is kept from falling below ``lowest``, because nothing else would stop it where a loss comes to 0.

    The optimiser must get ``log_variances``, without weight decay. With one task, or equal weights, there is none, and
    with one task no factor 0.5 either.

    Args:
        seg_loss: of a map and a label ``(B, 1, x, y, z)``, to a scalar.
        stage_weights: of each output that is a segmentation; not all need be present.
        tasks: ``seg``, ``class`` or both, as the network has them.
        weighting: ``uncertainty``, or ``equal`` for ``0.5 L_seg + 0.5 L_class``, as most tables of the paper have it.
        lowest: bound of ``s_i``.

    Raises:
        InputError: an unknown task or weighting.
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
        """A scalar in float32.

        Args:
            outputs: maps of the stages by name, and ``class``: logits ``(B, classes)``.
            targets: ``seg``, a label ``(B, 1, x, y, z)``, and ``class``: indices ``(B,)``.

        Raises:
            InputError: the outputs are of other tasks, or of a stage without a weight.
        """
        stages = [name for name in outputs if name != "class"]
        found = {"seg": bool(stages), "class": "class" in outputs}
        if any(found[task] != (task in self.tasks) for task in found) or not {*stages} <= {*self.stage_weights}:
            raise InputError(
                f"the network returns {', '.join(outputs)}: the loss is of the tasks {', '.join(self.tasks)} with "
                f"the stages {', '.join(self.stage_weights)}; set its tasks and stage_weights as the network has them"
            )
        losses = torch.stack(
            [
                self._segmentation({name: outputs[name] for name in stages}, targets["seg"])
                if task == "seg"
                else _cross_entropy(outputs, targets)
                for task in self.tasks
            ]
        )
        if len(losses) == 1:
            return losses.sum()
        if self.log_variances is None:
            return 0.5 * losses.sum()
        with torch.no_grad():  # not the value alone: a clamp of it would leave s without a gradient that leads back
            self.log_variances.clamp_(min=self.lowest)
        return 0.5 * (torch.exp(-self.log_variances) * losses + self.log_variances).sum()

    def _segmentation(self, stages: Mapping[str, Tensor], label: Tensor) -> Tensor:
        losses = [self.stage_weights[name] * self.seg_loss(output.float(), label) for name, output in stages.items()]
        return torch.stack(losses).sum()


def _cross_entropy(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(outputs["class"].float(), targets["class"].long())
