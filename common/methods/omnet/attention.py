"""Build the cross-task guided attention of OM-Net (section III-C, fig. 4).

C. Zhou, C. Ding, X. Wang, Z. Lu, D. Tao, IEEE Transactions on Image Processing 29 (2020), doi:10.1109/TIP.2020.2973510.
Equation numbers are those of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def channel_importance(features: Tensor, p: Tensor) -> Tensor:
    """Compute the share of each channel in the features that a probability map selects (CSCI block, eq. 5, 6).

    Args:
        features: ``(B, C, n)`` over n voxels, none below 0.
        p: K maps ``(B, K, n)`` in float32 over the same voxels.

    Returns:
        ``(B, K, C)`` in float32. The sum over C is 1, or 0 if no selected feature is above 0.
    """
    # in place, because autocast would round the operands of baddbmm
    v = p.new_zeros(p.shape[0], p.shape[1], features.shape[1]).baddbmm_(p, features.float().transpose(1, 2))
    return v / v.sum(2, keepdim=True).clamp(min=1e-12)


class CrossTaskGuidedAttention(nn.Module):
    """Classify each voxel, guided by the prediction of the preceding task (CGA module, fig. 4).

    Args:
        in_channels: int, channels of the features.
        num_classes: int, classes of this task.
        positive: ints, classes of the preceding task that make up ``P_t``; the others make up ``P_n``.
        guide_classes: int, number of classes of the preceding task.
        spatial_weights: bool, True weights the two score maps by ``P_t`` and ``P_n`` (eq. 9), False adds them (the
            paper's CGA-).
    """

    def __init__(
        self, in_channels: int, num_classes: int, positive: Sequence[int], guide_classes: int, spatial_weights: bool
    ) -> None:
        super().__init__()
        self.positive = list(positive)
        self.negative = [c for c in range(guide_classes) if c not in positive]
        self.spatial_weights = spatial_weights
        self.scores = nn.Conv3d(in_channels, 2 * num_classes, kernel_size=1)  # S_t, then S_n
        self.merge = nn.Conv3d(num_classes, num_classes, kernel_size=1)

    def forward(self, features: Tensor, guide: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, x, y, z)``.

        Args:
            features: ``(B, in_channels, x, y, z)``, none below 0.
            guide: logits of the preceding task ``(B, guide_classes, x, y, z)``; they get no gradient.
        """
        guide = torch.softmax(guide.detach().float(), 1)
        p = torch.stack([guide[:, self.positive].sum(1), guide[:, self.negative].sum(1)], 1).flatten(2)  # eq. 3, 4
        flat = features.flatten(2)
        m = channel_importance(flat, p)
        weight = self.scores.weight.view(1, 2, -1, flat.shape[1]) * m.unsqueeze(2)  # eq. 7, 8
        bias = self.scores.bias
        assert bias is not None  # TorchScript and mypy see an optional one
        s = torch.baddbmm(bias.view(1, -1, 1), weight.flatten(1, 2).to(flat.dtype), flat).unflatten(1, (2, -1))
        if self.spatial_weights:
            s = s * p.unsqueeze(2)
        s = s.sum(1).to(flat.dtype)  # eq. 9
        return self.merge(s.unflatten(2, features.shape[2:]))
