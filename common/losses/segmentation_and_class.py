"""The losses of a network that segments a volume and classifies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

_STAGE_WEIGHTS = {"aux_va": 0.8, "aux_asa": 0.9, "seg": 1.0}


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
        return self.class_weight * _cross_entropy(outputs, targets) + (1 - self.class_weight) * loss


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
        tasks: Sequence[str] = ("seg", "class"),
        weighting: str = "uncertainty",
        lowest: float = -10.0,
    ) -> None:
        super().__init__()
        if sorted(tasks) not in (["class"], ["seg"], ["class", "seg"]):
            raise InputError(f"tasks {tasks!r}: expected a list of 'seg', 'class' or both")
        if weighting not in ("uncertainty", "equal"):
            raise InputError(f"weighting '{weighting}': expected 'uncertainty' or 'equal'")
        self.seg_loss = seg_loss
        self.stage_weights = dict(stage_weights)
        self.tasks = tuple(tasks)
        self.lowest = lowest
        learned = weighting == "uncertainty" and len(tasks) > 1
        self.log_variances = nn.Parameter(torch.zeros(len(tasks))) if learned else None

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
