"""OM-Net: one-pass multi-task network with cross-task guided attention for brain tumours.

C. Zhou, C. Ding, X. Wang, Z. Lu, D. Tao, "One-pass Multi-task Networks with Cross-task Guided Attention for Brain
Tumor Segmentation", IEEE Transactions on Image Processing 29 (2020), doi:10.1109/TIP.2020.2973510. Equation numbers
below are those of the paper. The authors published the network description for Caffe (github.com/chenhong-zhou/OM-Net);
"released" below means a fact taken from it.

Classes of the coarse and the tumour task (released): 1 necrosis and non-enhancing tumour, 2 oedema, 3 enhancing
tumour; 0 and 4 no tumour. Of the enhancing task: 1 enhancing tumour, 0 all else.

Deviations and decisions where the paper is silent:

* Figure 1 does not show the inside of its blocks. As released: convolutions have a bias, batch normalisation and ReLU;
  the last ReLU of a residual block follows the sum; skips are sums; pooling is the maximum over 2x2x2; transposed
  convolutions are 2x2x2; dropout of single elements follows the last layer of the bottom.
* No rule of counting gives all figures of table I (13.814 M). 13,823,991 is the count of the released description.
* Initialisation as released: He normal, fan-in of the weight as stored; biases 0.1, but 0 in the first convolution.
* ``bn_momentum`` 1e-3 is the released decay 0.999, without Caffe's correction of the first steps: a run of less than
  about 5000 iterations needs 0.1.
* Squeeze and excitation was not released and has no reduction in the paper. 8, with biases, meets the 13.870 M of
  table I. With PyTorch's initialisation some blocks start with all 4 hidden units at rest and give a constant.
* Equations 7 and 8 are applied to the 1x1x1 weights that follow, with the same result: ``U_t`` and ``U_n`` are never
  formed. Equations 5 and 6 are in float32, their denominators at least 1e-12: rectified features may all be 0.
* The paper takes ``m_t`` and ``m_n`` over patches of 32x32x16. ``statistics_window`` keeps such a region in larger
  tiles; in a tile of one window nothing changes.
* Which patches of the batch train a head depends on their labels; their indices are an argument of ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import ChannelSELayer, Convolution
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from ...layers.checks import check_channels, check_sizes

TASKS = ("coarse", "tumour", "enhancing")
TUMOUR, CORE = (1, 2, 3), (1, 3)  # classes; their complements are the paper's non-tumour and non-core


class ResidualBlock(nn.Module):
    """Three 3x3x3 convolutions around which the input is added; the last ReLU follows the sum."""

    def __init__(self, channels: int, bn_momentum: float) -> None:
        super().__init__()
        first, second = (_convolution(channels, channels, bn_momentum) for _ in range(2))
        self.body = nn.Sequential(first, second, _convolution(channels, channels, bn_momentum, act=None))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x + self.body(x))


class DecoderBlock(nn.Module):
    """Transposed convolution, sum with the skip, stage; the ``last`` block leaves its last convolution to the heads."""

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
    """The shared backbone (inside the dashed line of fig. 1), a residual encoder and decoder; Args as in OMNet."""

    def __init__(self, in_channels: int, channels: Sequence[int], dropout: float, bn_momentum: float) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor = 2 ** (len(channels) - 1)
        self.encoder = nn.ModuleList(_stage(c_in, c, bn_momentum) for c_in, c in pairwise([in_channels, *channels]))
        self.pool = Pool[Pool.MAX, 3](kernel_size=2)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.ModuleList(
            DecoderBlock(below, c, bn_momentum, last=level == 0)
            for level, (c, below) in reversed(list(enumerate(pairwise(channels))))
        )

    def forward(self, image: Tensor) -> Tensor:
        """Features ``(B, channels[0], x, y, z)``, none below 0, of an image ``(B, in_channels, x, y, z)``."""
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisor)
        x = image
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else self.pool(x))
            skips.append(x)
        x = self.dropout(skips.pop())
        for block in self.decoder:
            x = block(x, skips.pop())
        return x


def channel_importance(features: Tensor, p: Tensor) -> Tensor:
    """CSCI block (eq. 5, 6): the share of each channel in the features that a probability map selects.

    Of features ``(B, C, n)``, none below 0, and K maps ``p`` ``(B, K, n)`` in float32 over the same n voxels; returns
    ``(B, K, C)`` in float32, whose sum over C is 1, or 0 where no selected feature is above 0.
    """
    # in place, because autocast would round the operands of baddbmm
    v = p.new_zeros(p.shape[0], p.shape[1], features.shape[1]).baddbmm_(p, features.float().transpose(1, 2))
    return v / v.sum(2, keepdim=True).clamp(min=1e-12)


class CrossTaskGuidedAttention(nn.Module):
    """CGA module (fig. 4): classifier guided by the prediction of the preceding task.

    Args:
        in_channels: channels of the features.
        num_classes: classes of this task.
        positive: classes of the preceding task that make up ``P_t``; the others make up ``P_n``.
        guide_classes: classes of the preceding task.
        spatial_weights: merge the two score maps with ``P_t`` and ``P_n`` (eq. 9), or add them (the paper's CGA-).
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
        """Logits ``(B, num_classes, x, y, z)`` from features ``(B, in_channels, x, y, z)``, none of them below 0.

        ``guide``: logits of the preceding task ``(B, guide_classes, x, y, z)``; no gradient goes back through them.
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


class ThreeTasks(nn.Module):
    """What the networks of three tasks have in common: patches for each task, and two forms of the result."""

    __constants__: Sequence[str] = ("dense",)

    def __init__(self, num_classes: Sequence[int], dense: bool) -> None:
        super().__init__()
        self.num_classes = list(num_classes)
        self.dense = dense

    def check_patches(self, patches: list[Tensor] | None) -> None:
        """Raises a ValueError unless ``patches`` are one tensor per task, in the form that is not dense."""
        if patches is not None and (self.dense or len(patches) != 3):
            raise ValueError("patches: expected three tensors, one per task, in the form that is not dense")

    def nothing(self, images: Tensor, task: int) -> Tensor:
        """The logits of a task for none of the images ``(0, C, x, y, z)``."""
        return images[:, :1].expand(-1, self.num_classes[task], -1, -1, -1)

    def in_form(self, logits: list[Tensor]) -> Tensor | dict[str, Tensor]:
        """The logits by task, or with ``dense`` the softmax of each as one tensor in float32."""
        if self.dense:
            return torch.cat([torch.softmax(values.float(), 1) for values in logits], 1)
        return {"coarse": logits[0], "tumour": logits[1], "enhancing": logits[2]}


class OMNet(ThreeTasks):
    """OM-Net (fig. 2) with cross-task guided attention (fig. 3): three tasks in one pass.

    Args:
        in_channels: modalities of the image.
        num_classes: classes of the coarse, the tumour and the enhancing task.
        attention: "cga", cross-task guided attention; "cga-", the same without spatial weights; "se", squeeze and
            excitation before each head; None, the plain network.
        channels: width per level, finest first.
        dropout: probability to drop an element of the bottom features in training.
        statistics_window: voxels (x, y, z) of the windows into which a tile is cut, from its first voxel on, for the
            statistics of CGA; None, the whole tile. It changes nothing without CGA.
        bn_momentum: weight of the new batch in the running statistics of batch normalisation.
        dense: return one tensor of probabilities in place of the logits of each task; the weights are the same.

    Raises:
        ValueError: an ``attention``, ``num_classes`` or ``statistics_window`` that there cannot be.
    """

    __constants__ = ("dense", "guided")  # what the options exclude is not compiled by TorchScript

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
                _classifier(channels[0], c1, bn_momentum),
                CrossTaskGuidedAttention(channels[0], c2, TUMOUR, c1, spatial),
                CrossTaskGuidedAttention(channels[0], c3, CORE, c2, spatial),
            ]
        else:
            heads = [_classifier(channels[0], c, bn_momentum, squeeze=attention == "se") for c in num_classes]
        self.heads = nn.ModuleDict(dict(zip(TASKS, heads)))
        _initialise(self)

    def forward(self, image: Tensor, patches: list[Tensor] | None = None) -> Tensor | dict[str, Tensor]:
        """Predictions of the three tasks.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of ``2 ** (len(channels) - 1)``.
            patches: per task the indices into the batch of the patches whose logits are wanted; None for all. Without
                CGA a head runs on its patches only, so that no others enter its batch normalisation, and not at all
                if there are none. With CGA a head without patches gets no gradient either.

        Returns:
            Per task, "coarse", "tumour" and "enhancing", logits ``(B or len(patches[i]), num_classes[i], x, y, z)``;
            with ``dense`` one tensor ``(B, sum(num_classes), x, y, z)`` in float32, the softmax of each in this order.

        Raises:
            ValueError: another number of channels, a spatial size that does not divide, ``patches`` that are not one
                tensor per task or are given to the dense form.
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
                    logits.append(self.nothing(chosen, i))
        return self.in_form(logits)

    def guided_heads(self, features: Tensor) -> list[Tensor]:
        """Logits of the three tasks, each guided by the one before (fig. 3), with statistics of windows or of all."""
        coarse, window = self.heads["coarse"](features), self.statistics_window
        if window is None:
            tumour = self.heads["tumour"](features, coarse)
            return [coarse, tumour, self.heads["enhancing"](features, tumour)]
        size = list(features.shape[2:])
        counts = [(size[i] + window[i] - 1) // window[i] for i in range(3)]
        features = _windows(features, counts, window)
        tumour = self.heads["tumour"](features, _windows(coarse, counts, window))
        enhancing = self.heads["enhancing"](features, tumour)
        return [coarse, _tile(tumour, counts, size), _tile(enhancing, counts, size)]


class SingleTaskNet(nn.Module):
    """The network of one task (fig. 1); the paper's model cascade (MC) has one per task. Args as in OMNet."""

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
        super().__init__()
        self.dense = dense
        self.backbone = Backbone(in_channels, channels, dropout, bn_momentum)
        self.head = _classifier(channels[0], num_classes, bn_momentum)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits, or with ``dense`` their softmax in float32, ``(B, num_classes, x, y, z)``; see :class:`OMNet`."""
        logits = self.head(self.backbone(image))
        return torch.softmax(logits.float(), 1) if self.dense else logits


class Cascade(ThreeTasks):
    """The model cascade (MC, section III-A): a :class:`SingleTaskNet` for each task, as one network.

    The three share no parameter and no layer, and each runs on its own patches only. So training them at once, with the
    sum of their losses, is training them one after the other.

    Args:
        in_channels, num_classes, channels, dropout, bn_momentum, dense: as for :class:`OMNet`.

    Raises:
        ValueError: ``num_classes`` are not three numbers.
    """

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
        """Predictions of the three tasks, as those of :class:`OMNet`; a network runs on the patches of its task only.

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
                logits.append(self.nothing(chosen, i))
        return self.in_form(logits)


def _convolution(
    c_in: int, c_out: int, bn_momentum: float, act: tuple | None = ("relu", {"inplace": True}), **options: Any
) -> Convolution:
    norm = ("batch", {"momentum": bn_momentum})
    return Convolution(3, c_in, c_out, norm=norm, act=act, adn_ordering="NA", **options)


def _stage(c_in: int, c_out: int, bn_momentum: float) -> nn.Sequential:
    first, last = (_convolution(c, c_out, bn_momentum) for c in (c_in, c_out))
    return nn.Sequential(first, ResidualBlock(c_out, bn_momentum), last)


def _classifier(width: int, num_classes: int, bn_momentum: float, squeeze: bool = False) -> nn.Sequential:
    layers = [ChannelSELayer(3, width, r=8)] if squeeze else []
    layers += [_convolution(width, width, bn_momentum), nn.Conv3d(width, num_classes, kernel_size=1)]
    return nn.Sequential(*layers)


def _initialise(network: nn.Module) -> None:
    first = True
    for m in network.modules():
        if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.constant_(m.bias, 0.0 if first else 0.1)
            first = False


def _windows(tile: Tensor, counts: list[int], window: list[int]) -> Tensor:
    """Windows of a tile as a batch; zeros, which add nothing to a sum of features, fill up the last of each axis."""
    pad: list[int] = []
    for axis in (2, 1, 0):
        pad += [0, counts[axis] * window[axis] - tile.shape[2 + axis]]
    windows = nn.functional.pad(tile, pad)
    for axis in (2, 1, 0):
        windows = windows.unflatten(2 + axis, [counts[axis], window[axis]])
    return windows.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(0, 3)


def _tile(windows: Tensor, counts: list[int], size: list[int]) -> Tensor:
    """The tile of this size from its ``_windows``."""
    tile = windows.unflatten(0, [-1, counts[0], counts[1], counts[2]]).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return tile.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, : size[0], : size[1], : size[2]]
