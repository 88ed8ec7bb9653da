"""Define OM-Net, a one-pass multi-task network with cross-task guided attention for brain tumours.

C. Zhou, C. Ding, X. Wang, Z. Lu, D. Tao, "One-pass Multi-task Networks with Cross-task Guided Attention for Brain
Tumor Segmentation", IEEE Transactions on Image Processing 29 (2020), doi:10.1109/TIP.2020.2973510.

One backbone serves three tasks of growing difficulty. The prediction of each task guides the classifier of the next, by
the channels that matter in its foreground and in its background. Equation numbers are those of the paper. Figure by
figure, and every deviation with its reason: ``docs/explanation/omnet.md``.

Classes of the coarse and the tumour task (released): 1 necrosis and non-enhancing tumour, 2 oedema, 3 enhancing
tumour; 0 and 4 no tumour. Classes of the enhancing task: 1 enhancing tumour, 0 everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import ChannelSELayer, Convolution
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from ...layers import TwoForms
from ...layers.checks import check_channels, check_sizes
from .attention import CrossTaskGuidedAttention
from .classes import CORE, TASKS, TUMOUR
from .tiling import cut_into_windows, join_windows


class ResidualBlock(nn.Module):
    """Apply three 3x3x3 convolutions and add the input; the last ReLU follows the sum.

    Args:
        channels: int, width.
        bn_momentum: float, momentum of the batch normalisation.
    """

    def __init__(self, channels: int, bn_momentum: float) -> None:
        super().__init__()
        first, second = (_convolution(channels, channels, bn_momentum) for _ in range(2))
        self.body = nn.Sequential(first, second, _convolution(channels, channels, bn_momentum, act=None))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x + self.body(x))


class DecoderBlock(nn.Module):
    """Double the size by a transposed convolution, add the skip, and refine the sum by a stage.

    Args:
        c_in: int, channels from the level below.
        c_out: int, channels of the skip and of the output.
        bn_momentum: float, momentum of the batch normalisation.
        last: bool, True leaves the last convolution of the stage to the heads.
    """

    def __init__(self, c_in: int, c_out: int, bn_momentum: float, last: bool) -> None:
        super().__init__()
        self.up = _convolution(
            c_in, c_out, bn_momentum, is_transposed=True, kernel_size=2, strides=2, padding=0, output_padding=0
        )
        stage = _stage(c_out, c_out, bn_momentum)
        self.refine = stage[:-1] if last else stage

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.up(x) + skip)


class Backbone(nn.Module):
    """Compute the features that all tasks share (inside the dashed line of fig. 1). Args as in :class:`OMNet`."""

    def __init__(self, in_channels: int, channels: Sequence[int], dropout: float, bn_momentum: float) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisors = [2 ** (len(channels) - 1)] * 3
        self.encoder = nn.ModuleList(_stage(c_in, c, bn_momentum) for c_in, c in pairwise([in_channels, *channels]))
        self.pool = Pool[Pool.MAX, 3](kernel_size=2)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.ModuleList(
            DecoderBlock(below, c, bn_momentum, last=level == 0)
            for level, (c, below) in reversed(list(enumerate(pairwise(channels))))
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return features ``(B, channels[0], x, y, z)``, none below 0, of an image ``(B, in_channels, x, y, z)``."""
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisors)
        x = image
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else self.pool(x))
            skips.append(x)
        x = self.dropout(skips.pop())
        for block in self.decoder:
            x = block(x, skips.pop())
        return x


class ThreeTasks(TwoForms):
    """Hold what networks of three tasks share: patches for each task, and the two forms of the result.

    Args:
        num_classes: ints, classes of each task.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.
    """

    def __init__(self, num_classes: Sequence[int], dense: bool) -> None:
        super().__init__(dense)
        self.num_classes = list(num_classes)

    def check_patches(self, patches: list[Tensor] | None) -> None:
        """Raise a ``ValueError`` unless ``patches`` are None, or one tensor per task in the training form."""
        if patches is not None and (self.dense or len(patches) != 3):
            raise ValueError("patches: expected three tensors, one per task, in the training form (dense=False)")

    def no_logits(self, images: Tensor, task: int) -> Tensor:
        """Return the logits of a task for an empty batch of images ``(0, C, x, y, z)``."""
        return images[:, :1].expand(-1, self.num_classes[task], -1, -1, -1)

    def in_form(self, logits: list[Tensor]) -> Tensor | dict[str, Tensor]:
        """Return the logits by task for training, the softmax of all tasks as one tensor in float32 for inference."""
        if self.dense:
            return torch.cat([torch.softmax(values.float(), 1) for values in logits], 1)
        return {"coarse": logits[0], "tumour": logits[1], "enhancing": logits[2]}


class OMNet(ThreeTasks):
    """Predict three tasks in one pass (OM-Net, fig. 2), with cross-task guided attention (fig. 3).

    Args:
        in_channels: int, modalities of the image.
        num_classes: three ints, classes of the coarse, the tumour and the enhancing task.
        attention: str, ``"cga"``, cross-task guided attention; ``"cga-"``, the same without spatial weights; ``"se"``,
            squeeze and excitation before each head; None, the plain network.
        channels: ints, width per level, finest first.
        dropout: float, probability to drop an element of the bottom features in training.
        statistics_window: three ints, voxels (x, y, z) of the windows over which CGA takes its statistics, counted from
            the first voxel of the tile; None, the whole tile. It has no effect without CGA.
        bn_momentum: float, weight of the new batch in the running statistics of batch normalisation.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.

    Raises:
        ValueError: an unknown ``attention``, or ``num_classes`` or a ``statistics_window`` that do not fit.
    """

    encoder_modules = ("backbone.encoder",)
    __constants__ = ("dense", "guided")  # TorchScript leaves out the heads of the other options

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: Sequence[int] = (5, 5, 2),
        *,
        attention: str | None = "cga",
        channels: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.5,
        statistics_window: Sequence[int] | None = None,
        bn_momentum: float = 1e-3,
        dense: bool = False,
    ) -> None:
        super().__init__(num_classes, dense)
        if attention not in ("cga", "cga-", "se", None):
            raise ValueError(f"attention={attention!r}: expected one of 'cga', 'cga-', 'se', None")
        if len(num_classes) != len(TASKS) or min(num_classes[:2]) <= max(TUMOUR):
            raise ValueError(f"num_classes={num_classes!r}: expected three numbers, the first two at least 4")
        if statistics_window is not None and (len(statistics_window) != 3 or min(statistics_window) < 1):
            raise ValueError(f"statistics_window={statistics_window!r}: expected None or three sizes, at least 1 each")
        self.guided = attention in ("cga", "cga-")
        self.statistics_window = None if statistics_window is None else list(statistics_window)

        self.backbone = Backbone(in_channels, channels, dropout, bn_momentum)
        if self.guided:
            c1, c2, c3 = num_classes
            spatial = attention == "cga"
            heads = [
                classifier(channels[0], c1, bn_momentum),
                # the complements of these classes are the paper's non-tumour and non-core
                CrossTaskGuidedAttention(channels[0], c2, TUMOUR, c1, spatial),
                CrossTaskGuidedAttention(channels[0], c3, CORE, c2, spatial),
            ]
        else:
            heads = [classifier(channels[0], c, bn_momentum, squeeze=attention == "se") for c in num_classes]
        self.heads = nn.ModuleDict(dict(zip(TASKS, heads)))
        initialise(self)

    def forward(self, image: Tensor, patches: list[Tensor] | None = None) -> Tensor | dict[str, Tensor]:
        """Predict the three tasks.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of ``2 ** (len(channels) - 1)``.
            patches: for each task the indices into the batch of the patches that it returns; None for all. Without CGA
                a head runs on its patches only, so that no others enter its batch normalisation. A head without patches
                does not run. With CGA all heads run on all patches; a head without patches gets no gradient.

        Returns:
            For training: ``coarse``, ``tumour`` and ``enhancing``, logits ``(B or len(patches[i]), num_classes[i], x,
            y, z)``. For inference: one tensor ``(B, sum(num_classes), x, y, z)`` in float32, the softmax of each task
            in this order.

        Raises:
            ValueError: another number of channels, a spatial size that does not divide, ``patches`` that are not one
                tensor per task, or ``patches`` in the inference form.
        """
        self.check_patches(patches)
        features = self.backbone(image)
        logits: list[Tensor] = []
        if self.guided:
            logits = self.guided_heads(features)
            if patches is not None:
                # not a gradient of zeros, with which weight decay would wear down a head that is not trained yet
                logits = [
                    values[chosen] if chosen.shape[0] > 0 else values[:0].detach()
                    for values, chosen in zip(logits, patches)
                ]
        else:
            for i, head in enumerate(self.heads.values()):
                chosen = features if patches is None else features[patches[i]]
                if chosen.shape[0] > 0:
                    logits.append(head(chosen))
                else:
                    logits.append(self.no_logits(chosen, i))
        return self.in_form(logits)

    def guided_heads(self, features: Tensor) -> list[Tensor]:
        """Return the logits of the three tasks, each guided by the one before (fig. 3)."""
        coarse = self.heads["coarse"](features)
        window = self.statistics_window
        if window is None:
            tumour = self.heads["tumour"](features, coarse)
            enhancing = self.heads["enhancing"](features, tumour)
            return [coarse, tumour, enhancing]
        windows, size = cut_into_windows(features, window), list(features.shape[2:])
        tumour = self.heads["tumour"](windows, cut_into_windows(coarse, window))
        enhancing = self.heads["enhancing"](windows, tumour)
        return [coarse, join_windows(tumour, size), join_windows(enhancing, size)]


def _convolution(
    c_in: int, c_out: int, bn_momentum: float, act: tuple | None = ("relu", {"inplace": True}), **options: Any
) -> Convolution:
    norm = ("batch", {"momentum": bn_momentum})
    return Convolution(3, c_in, c_out, norm=norm, act=act, adn_ordering="NA", **options)


def _stage(c_in: int, c_out: int, bn_momentum: float) -> nn.Sequential:
    first, last = (_convolution(c, c_out, bn_momentum) for c in (c_in, c_out))
    return nn.Sequential(first, ResidualBlock(c_out, bn_momentum), last)


def classifier(width: int, num_classes: int, bn_momentum: float, squeeze: bool = False) -> nn.Sequential:
    """Build a plain head: squeeze and excitation if asked for, 3x3x3 convolution, 1x1x1 convolution to the logits."""
    layers = [ChannelSELayer(3, width, r=8)] if squeeze else []
    layers += [_convolution(width, width, bn_momentum), nn.Conv3d(width, num_classes, kernel_size=1)]
    return nn.Sequential(*layers)


def initialise(network: nn.Module) -> None:
    """Initialise as the released code does: He normal, biases 0.1, but 0 in the first convolution."""
    first = True
    for m in network.modules():
        if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.constant_(m.bias, 0.0 if first else 0.1)
            first = False
