"""Compute the loss of several segmentation tasks, each trained on its own patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiTaskCrossEntropy(nn.Module):
    """Compute the sum over tasks of the mean cross-entropy over the voxels of their patches, in float32.

    A task without patches adds nothing, and parameters that only its logits depend on get no gradient.
    """

    def forward(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: logits ``(N, C, x, y, z)`` by task, with a number of patches N for each task.
            targets: classes ``(N, x, y, z)`` by task, of any integer type.
        """
        losses = [F.cross_entropy(logits[task].float(), t.long()) for task, t in targets.items() if len(t) > 0]
        return torch.stack(losses).sum() if losses else next(iter(logits.values())).new_zeros((), dtype=torch.float32)
