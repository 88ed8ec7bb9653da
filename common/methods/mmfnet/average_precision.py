"""Compute the average precision over the voxels of a case, the area under its precision-recall curve."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from ...layers import label_masks


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """Return the area under the precision-recall curve.

    It follows the step rule, ``sum_k (R_k - R_(k-1)) * P_k`` over the distinct scores, as in scikit-learn's
    ``average_precision_score`` and in ``monai.metrics``, but without a loop over voxels. Voxels with score 0 are not
    sorted, so a prediction that was pasted into zeros costs no more than its region. Foreground outside that region
    counts as found last, at the precision of calling every voxel foreground.

    Args:
        scores: foreground probabilities of one case, any shape, values in [0, 1].
        target: ground truth, same shape, values 0 and 1.

    Returns:
        scalar in (0, 1], float64 on the device of ``scores``; NaN if ``target`` holds no foreground.

    Raises:
        ValueError: the shapes differ, a score is below 0 or NaN, or a target value is neither 0 nor 1.
    """
    if scores.shape != target.shape:
        raise ValueError(f"scores have the shape {list(scores.shape)}, but the target has {list(target.shape)}")
    lowest = scores.min()
    if not lowest >= 0:  # NaN fails too; an interpolated probability may round to above 1
        raise ValueError(f"lowest score {lowest.item():g}: expected probabilities, not logits or NaN")
    foreground = target == 1
    binary = foreground | (target == 0)
    if not binary.all():
        raise ValueError(f"target holds the value {target[~binary][0].item():g}: expected 0 and 1 only")

    scored = scores > 0
    ranked, order = scores[scored].sort(descending=True)
    tied = torch.unique_consecutive(ranked, return_counts=True)[1]
    selected = tied.cumsum(0)  # voxels at or above each distinct score
    found = foreground[scored][order].cumsum(0)[selected - 1]
    n_foreground = foreground.sum()
    selected = torch.cat([selected, selected.new_full((1,), scores.numel())])
    found = torch.cat([found, n_foreground[None]])

    precision = found.double() / selected
    gain = found.diff(prepend=found.new_zeros(1))
    return (precision * gain).sum() / n_foreground  # 0 / 0 is NaN


class AveragePrecisionMetric(CumulativeIterationMetric):
    """Compute the average precision of each case's voxels and its mean over cases; of several labels, their mean.

    ``monai.metrics.AveragePrecisionMetric`` is for classification: it pools the cases and takes no image.
    ``get_buffer()`` returns the value of each case, ``(N, 1)``, NaN for a case without foreground. Labels that a case
    does not have are left out of its mean.

    A call takes ``y_pred``, a map of probabilities in [0, 1] for each label, ``(B, K, ...)``, and ``y``, a label map
    with the values 0 to K, ``(B, 1, ...)``; or lists of both without ``B``.

    Raises:
        ValueError: a call gets other shapes or values.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        masks = label_masks(y, y_pred)
        return torch.stack(
            [torch.stack([average_precision(p, t) for p, t in zip(*case)]).nanmean() for case in zip(y_pred, masks)]
        )[:, None]

    def aggregate(self) -> Tensor:
        """Return the mean over the cases with foreground, a scalar; NaN if no case has any.

        Raises:
            ValueError: no case was added.
        """
        values = self.get_buffer()
        if values is None:
            raise ValueError("no case was added: call the metric on predictions before aggregate()")
        return values.nanmean()
