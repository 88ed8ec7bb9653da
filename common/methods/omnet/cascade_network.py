"""Build the model cascade that the OM-Net paper compares with: one network for each task.

C. Zhou, C. Ding, X. Wang, Z. Lu, D. Tao, IEEE Transactions on Image Processing 29 (2020), doi:10.1109/TIP.2020.2973510,
section III-A and figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...layers import TwoForms
from .classes import TASKS
from .network import Backbone, ThreeTasks, classifier, initialise


class SingleTaskNet(TwoForms):
    """Predict one task (fig. 1); the paper's model cascade (MC) has such a network for each task.

    It has a single head, so that its training form too returns a tensor, the logits.

    Args:
        in_channels: int, modalities of the image.
        num_classes: int, classes of the task.
        channels, dropout, bn_momentum, dense: as for :class:`OMNet`.
    """

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 5,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.5,
        bn_momentum: float = 1e-3,
        dense: bool = False,
    ) -> None:
        super().__init__(dense)
        self.backbone = Backbone(in_channels, channels, dropout, bn_momentum)
        self.head = classifier(channels[0], num_classes, bn_momentum)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits for training, their softmax in float32 for inference, ``(B, num_classes, x, y, z)``."""
        logits = self.head(self.backbone(image))
        return torch.softmax(logits.float(), 1) if self.dense else logits


class Cascade(ThreeTasks):
    """Predict three tasks by a :class:`SingleTaskNet` each, as one network (model cascade, MC, section III-A).

    The three share no parameter and no layer, and each runs on its own patches only. A network without patches in an
    update does not change. Training them at once, with the sum of their losses, therefore gives each network the
    updates that it would have alone. The checkpoint has all three of one epoch: the one with the best
    validation of the three together, or the last with ``validation_share 0``.

    Args:
        in_channels, num_classes, channels, dropout, bn_momentum, dense: as for :class:`OMNet`.

    Raises:
        ValueError: ``num_classes`` are not three numbers.
    """

    encoder_modules = tuple(f"nets.{task}.backbone.encoder" for task in TASKS)

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: Sequence[int] = (5, 5, 2),
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.5,
        bn_momentum: float = 1e-3,
        dense: bool = False,
    ) -> None:
        super().__init__(num_classes, dense)
        if len(num_classes) != len(TASKS):
            raise ValueError(f"num_classes={num_classes!r}: expected three numbers")
        nets = [
            SingleTaskNet(in_channels, c, channels=channels, dropout=dropout, bn_momentum=bn_momentum)
            for c in num_classes
        ]
        self.nets = nn.ModuleDict(dict(zip(TASKS, nets)))

    def forward(self, image: Tensor, patches: list[Tensor] | None = None) -> Tensor | dict[str, Tensor]:
        """Predict the three tasks; arguments and result as for :meth:`OMNet.forward`.

        Each network runs on the patches of its task only.

        Raises:
            ValueError: as :meth:`OMNet.forward`.
        """
        self.check_patches(patches)
        logits: list[Tensor] = []
        for i, net in enumerate(self.nets.values()):
            chosen = image if patches is None else image[patches[i]]
            if chosen.shape[0] > 0:
                logits.append(net(chosen))
            else:
                logits.append(self.no_logits(chosen, i))
        return self.in_form(logits)
