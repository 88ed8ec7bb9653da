"""MA-MTLN: multi-attention multi-task network for gastric tumours and lymph-node metastasis in abdominal CT.

Y. Zhang, H. Li, J. Du, J. Qin, T. Wang, Y. Chen, B. Liu, W. Gao, G. Ma, B. Lei, "3D Multi-Attention Guided Multi-Task
Learning Network for Automatic Gastric Tumor Segmentation and Lymph Node Classification", IEEE Transactions on Medical
Imaging 40 (2021), doi:10.1109/TMI.2021.3062902. Equation numbers below are those of the paper. "Released" below means
a fact taken from the authors' repository (github.com/infinite-tao/MA-MTLN).

Deviations and decisions where the paper is silent or contradicts itself:

* The paper's "SENet-50" is, as released, a 3D network of ResNeXt blocks with squeeze and excitation, expansion 2, 512
  channels at the end, one PReLU for the three places of a block. It has batch normalisation; the text names group
  normalisation only for later layers. ``norm="group"`` is for batches of one or two.
* The text strides "Scale0, Scale1 and Scale2" by (1, 2, 2) and does not say of which step that is; as released, the
  pooling halves the slices too. ``pool_stride=(2, 2, 1)`` keeps them.
* Equation 1: weights through a ReLU as printed, not the released PReLU; 1e-4 is added to their sum as released.
  Equation 2 is not normalised at scale 1 and has no ``F_s`` at the others as printed; as released it is and has.
  Swish after every fusion as released.
* Equations 3 and 5: each 1x1x1 convolution c is, as released, one to ``width / 4`` channels with normalisation and
  PReLU; one more makes two maps of them before the softmax. Equation 6: sigma is, as released, three convolutions
  before the sigmoid, the same for both inputs. ``f_op`` strides once or twice with the same weights (released).
* ``asa_refine`` adds what the release does after equation 6: its result times the multi-scale features, concatenated
  with the features of the scale, through three convolutions.
* The segmentation-aware module has no equation; as released, its masks are at scales 2 and 1, and those of scales 4
  and 3 enter the first of them only.
* Stages of the deep supervision: after the VA layer (``aux_va``) and after the ASA modules (``aux_asa``).
* Without ``use_ta`` a 1x1x1 convolution of the concatenation takes the place of the masked features.
* Biases and initialisation as released: He normal (fan-out) in the backbone, PyTorch's after it.

A 1x1x1 convolution and an interpolation with weights that sum to 1 may change places. So heads run before the
up-sampling, and a 1x1x1 convolution of a concatenation is a sum of shares, each at the size of its input. Not done,
since it was not faster on CPU: one convolution for all that read the same map, block-diagonal weights for grouped ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn

from ...layers.checks import check_channels, check_option

SCALES = 4
KEPT, HALVED = (1, 1, 1), (2, 2, 1)  # strides
DILATIONS = (1, 3, 5, (7, 7, 5))  # of the last convolution of each VA branch
BRANCHES = (4, 3, 2, 2)  # of the VA block of each scale
DOWN_STEPS = (0, 1, 2, 2)  # from the first scale to each


class PointwiseConvolution(nn.Conv3d):
    """1x1x1 convolution with stride 1."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1x1 convolution of a map with weights ``(c_out, c_in, 1, 1, 1)``.

    A matrix product where the channels lie last in memory: PyTorch's convolution on the CPU copies such a map.
    """
    if x.is_cuda or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return F.conv3d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


class NormalisedConvolution(nn.Module):
    """Convolution without bias, then normalisation; Args as in Bottleneck.

    Without a gradient, batch normalisation by its running statistics is folded into the weights.
    """

    __constants__ = ("foldable",)  # TorchScript does not look for statistics that are not there

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: tuple,
        kernel_size: int = 1,
        stride: tuple[int, int, int] = KEPT,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.norm = get_norm_layer(norm, 3, out_channels)
        self.foldable = isinstance(self.norm, nn.BatchNorm3d)
        self.pointwise = kernel_size == 1 and max(stride) == 1

    def forward(self, x: Tensor) -> Tensor:
        if self.foldable and not self.training and not torch.is_grad_enabled():
            scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
            bias = self.norm.bias - self.norm.running_mean * scale
            return self.convolved(x, self.conv.weight * scale[:, None, None, None, None], bias)
        return self.norm(self.convolved(x, self.conv.weight, None))

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.pointwise:
            return pointwise(x, weight, bias)
        conv = self.conv
        return F.conv3d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class Bottleneck(nn.Module):
    """ResNeXt block with squeeze and excitation: 1x1x1, grouped 3x3x3, 1x1x1 convolution, channel weights, sum, PReLU.

    Args:
        in_channels: channels of the input.
        planes: channels of the grouped convolution; the block gives twice as many.
        stride: of the grouped convolution and of the shortcut.
        dilation: of the grouped convolution.
        cardinality: groups of the grouped convolution.
        norm: normalisation, in MONAI's words.
    """

    def __init__(
        self, in_channels: int, planes: int, stride: tuple[int, int, int], dilation: int, cardinality: int, norm: tuple
    ) -> None:
        super().__init__()
        out_channels = 2 * planes
        self.conv1 = NormalisedConvolution(in_channels, planes, norm)
        self.conv2 = NormalisedConvolution(planes, planes, norm, 3, stride, dilation, cardinality)
        self.conv3 = NormalisedConvolution(planes, out_channels, norm)
        self.excite = ChannelSELayer(3, out_channels, r=16, acti_type_1=("leakyrelu", {"negative_slope": 0.01}))
        self.act = nn.PReLU()  # one slope for the three places
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or max(stride) > 1:
            self.shortcut = NormalisedConvolution(in_channels, out_channels, norm, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.excite(self.conv3(self.act(self.conv2(self.act(self.conv1(x))))))
        y += self.shortcut(x)
        return self.act(y)


class Backbone(nn.Module):
    """The backbone: from an image to the features ``F_1`` to ``F_4``; Args as in MAMTLN."""

    def __init__(
        self,
        in_channels: int,
        planes: Sequence[int],
        blocks: Sequence[int],
        cardinality: int,
        norm: tuple,
        pool_stride: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            NormalisedConvolution(in_channels, planes[0], norm, kernel_size=7, stride=HALVED), nn.PReLU()
        )
        self.pool = nn.MaxPool3d(3, tuple(pool_stride), padding=1)
        layers = []
        c = planes[0]
        for p, count, stride, dilation in zip(planes, blocks, (KEPT, HALVED, HALVED, KEPT), (1, 1, 1, 2)):
            layer = []
            for i in range(count):
                layer.append(Bottleneck(c, p, stride if i == 0 else KEPT, dilation, cardinality, norm))
                c = 2 * p
            layers.append(nn.Sequential(*layer))
        self.layers = nn.ModuleList(layers)
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Four maps ``(B, 2 * planes[s], ...)``, the third and the fourth of one size."""
        x = self.pool(self.stem(image))
        features: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class Merge(nn.Module):
    """1x1x1 convolution of the concatenation of maps brought to the size of the last, normalisation, PReLU.

    The concatenation is not formed: each map meets its share of the weights at its own size, and what comes of it is
    brought to the size of the last and added.

    Args:
        in_channels: channels of all maps together.
        width: channels of the result.
        norm_groups: groups of the normalisation.
    """

    def __init__(self, in_channels: int, width: int, norm_groups: int) -> None:
        super().__init__()
        self.conv = PointwiseConvolution(in_channels, width)
        self.norm = nn.GroupNorm(norm_groups, width)
        self.act = nn.PReLU()

    def forward(self, maps: list[Tensor]) -> Tensor:
        """``(B, width, x, y, z)`` of the last of the maps, which stand in the order of the concatenation."""
        shares = self.conv.weight.split([m.shape[1] for m in maps], 1)
        y = pointwise(maps[-1], shares[-1], self.conv.bias)
        for i in range(len(maps) - 1):
            y += resize(pointwise(maps[i], shares[i]), y)
        return self.act(self.norm(y))


class Fusion(nn.Module):
    """Fusion of maps of several sizes: :class:`Merge`, then two 3x3x3 convolutions; Args as in Merge."""

    def __init__(self, in_channels: int, width: int, norm_groups: int) -> None:
        super().__init__()
        self.merge = Merge(in_channels, width, norm_groups)
        self.refine = nn.Sequential(*(_convolution(width, width, 3, norm_groups) for _ in range(2)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.refine(self.merge(maps))


class VABlock(nn.Module):
    """Visual attention block (fig. 3a): the input under the masks of branches with growing receptive fields.

    Branch n is a chain of convolutions without anything between them, a 1x1x1 one or n - 1 of 3x3x3, then a dilated
    one, and ends in a sigmoid.

    Args:
        width: channels of the input, the masks and the result.
        branches: 1 to 4.
    """

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        chains = []
        for n, dilation in enumerate(DILATIONS[:branches]):
            before = [nn.Conv3d(width, width, 3, padding=1) for _ in range(n)] or [PointwiseConvolution(width, width)]
            chains.append(nn.Sequential(*before, nn.Conv3d(width, width, 3, padding=dilation, dilation=dilation)))
        self.branches = nn.ModuleList(chains)
        self.fuse = PointwiseConvolution(branches * width, width)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.fuse(torch.cat([torch.sigmoid_(chain(x)) * x for chain in self.branches], 1))
        y += x
        return self.act(y)


class WeightedFusion(nn.Module):
    """Fast normalised fusion of n maps of one size (eq. 1, 2): their mean with learned weights from 0, then Swish."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def weights(self) -> Tensor:
        """``(n,)``, none below 0, with a sum just below 1."""
        weight = torch.relu(self.weight)
        return weight / (weight.sum() + 1e-4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        weights = self.weights()
        y = maps[0] * weights[0]
        for i in range(1, len(maps)):
            y.addcmul_(maps[i], weights[i].to(y.dtype))
        return F.silu(y)


class VALayer(nn.Module):
    """Bidirectional visual attention layer (eq. 1, 2): the scales from coarse to fine through VA blocks, then back."""

    def __init__(self, width: int, norm_groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VABlock(width, branches) for branches in BRANCHES)
        self.top_down = nn.ModuleList(WeightedFusion(2) for _ in range(SCALES - 1))
        self.bottom_up = nn.ModuleList(WeightedFusion(2 if scale == 0 else 3) for scale in range(SCALES))
        self.down = nn.ModuleList(_downsampling(width, 1, norm_groups) for _ in range(SCALES - 2))

    def forward(self, p: list[Tensor]) -> list[Tensor]:
        """``F_1^V`` to ``F_4^V``, of the sizes of the projected features ``p``; all have ``width`` channels."""
        i4 = self.blocks[3](p[3])
        i3 = self.blocks[2](self.top_down[2]([p[2], i4]))
        i2 = self.blocks[1](self.top_down[1]([p[1], resize(i3, p[1])]))
        i1 = self.blocks[0](self.top_down[0]([p[0], resize(i2, p[0])]))
        v1 = self.bottom_up[0]([p[0], i1])
        v2 = self.bottom_up[1]([p[1], i2, self.down[0](v1)])
        v3 = self.bottom_up[2]([p[2], i3, self.down[1](v2)])
        return [v1, v2, v3, self.bottom_up[3]([p[3], i4, v3])]


class ASAModule(nn.Module):
    """Adaptive spatial attention (fig. 3b, eq. 3 to 6) of one scale.

    Args:
        width: channels of the features.
        norm_groups: groups of the normalisation; half as many where the map is strided or narrowed.
        down_steps: strided convolutions between the multi-scale features and this scale.
        refine: multiply by the multi-scale features once more and fuse with those of the scale (released).
    """

    def __init__(self, width: int, norm_groups: int, down_steps: int, refine: bool) -> None:
        super().__init__()
        self.down_steps = down_steps
        self.down = _downsampling(width, 3, norm_groups) if down_steps else None
        self.mask = nn.Sequential(
            _convolution(width, width, 1, norm_groups),
            _convolution(width, width, 3, norm_groups),
            nn.Conv3d(width, width, 3, padding=1),
        )
        self.reduce = nn.ModuleList(_convolution(width, width // 4, 1, norm_groups // 2, bias=False) for _ in range(2))
        self.weigh = PointwiseConvolution(2 * (width // 4), 2)
        self.refine = Fusion(2 * width, width, norm_groups) if refine else None

    def matched(self, m: Tensor) -> Tensor:
        """``f_op`` (eq. 4): the multi-scale features at the size of this scale."""
        if self.down is not None:
            for _ in range(self.down_steps):
                m = self.down(m)
        return m

    def weights(self, v: Tensor, m: Tensor) -> Tensor:
        """``w^n`` and ``w^m`` (eq. 3, 5) as ``(B, 2, x, y, z)``, with the sum 1 in every voxel."""
        return torch.softmax(self.weigh(torch.cat([self.reduce[0](v), self.reduce[1](m)], 1)), 1)

    def masks(self, x: Tensor) -> Tensor:
        """sigma of eq. 6, of the shape of ``x``."""
        return torch.sigmoid_(self.mask(x))

    def forward(self, v: Tensor, multi_scale: Tensor) -> Tensor:
        """``F_s^A`` of ``F_s^V`` ``(B, width, x, y, z)`` and of the multi-scale features at the size of scale 1."""
        m = self.matched(multi_scale)
        weights = self.weights(v, m).to(v.dtype)
        both = torch.cat([v, m])  # one call for the two; the normalisation is of single cases
        of_v, of_m = (self.masks(both) * both).chunk(2)
        y = (of_v * weights[:, :1]).addcmul_(of_m, weights[:, 1:])  # eq. 6
        return y if self.refine is None else self.refine([v, y * m])


class TaskAttention(nn.Module):
    """Task-aware attention of one scale (eq. 7, 8): its features under a mask made of them and of others.

    Args:
        in_channels: channels of all maps together.
        width: channels of the last map, the mask and the result.
        norm_groups: groups of the normalisation.
        attention: False takes the merged maps themselves in place of the masked features.
    """

    def __init__(self, in_channels: int, width: int, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.merge = Merge(in_channels, width, norm_groups)
        self.mask = PointwiseConvolution(width, width) if attention else None
        self.refine = _convolution(width, width, 3, norm_groups)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """``(B, width, x, y, z)`` of the last of the maps, which is the one under the mask."""
        x = self.merge(maps)
        if self.mask is not None:
            x = torch.sigmoid_(self.mask(x)) * maps[-1]
        return self.refine(x)


class SegmentationBranch(nn.Module):
    """Segmentation-aware module, from coarse to fine; gives logits at scale 1. Args as in MAMTLN."""

    def __init__(self, width: int, norm_groups: int, attention: bool, out_channels: int) -> None:
        super().__init__()
        self.attention2 = TaskAttention(3 * width, width, norm_groups, attention)
        self.attention1 = TaskAttention(2 * width, width, norm_groups, attention)
        self.head = PointwiseConvolution(width, out_channels)

    def forward(self, a: list[Tensor]) -> Tensor:
        s2 = self.attention2([torch.cat([a[3], a[2]], 1), a[1]])
        return self.head(self.attention1([s2, a[0]]))


class ClassificationBranch(nn.Module):
    """Classification-aware module, from fine to coarse; gives logits ``(B, num_classes)``. Args as in MAMTLN."""

    def __init__(self, width: int, norm_groups: int, attention: bool, num_classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_downsampling(width, 3, norm_groups) for _ in range(2))
        self.attention2 = TaskAttention(2 * width, width, norm_groups, attention)
        self.attention3 = TaskAttention(2 * width, width, norm_groups, attention)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, a: list[Tensor]) -> Tensor:
        t2 = self.attention2([self.down[0](a[0]), a[1]])  # eq. 7
        t3 = self.attention3([self.down[1](t2), a[2]])  # eq. 8
        return self.head(torch.cat([t3, a[3]], 1).mean((2, 3, 4)))


class MAMTLN(nn.Module):
    """MA-MTLN; the defaults are the paper's network (8,743,447 parameters). Any spatial size fits but a tiny one.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the segmentation, the background's first.
        num_classes: classes of the whole image.
        task: "both", "seg" without the classification branch, or "class" without the segmentation branch and without
            deep supervision, which has segmentations for its target.
        width: channels of everything after the backbone, a multiple of 4.
        planes: channels of the grouped convolutions of each scale; the features have twice as many.
        blocks: residual blocks of each scale.
        cardinality: groups of the grouped convolutions.
        norm: "batch" or "group", of the backbone.
        norm_groups: groups of every group normalisation; half as many where the map is strided or narrowed.
        pool_stride: stride of the pooling after the first convolution.
        use_va, use_asa, use_ta: visual attention, adaptive spatial attention, masks of the task-aware attention.
        use_sds: two heads for deep supervision in the form for training.
        asa_refine: the released form of the adaptive spatial attention (9,663,267 parameters).
        dense: return one tensor without the heads of the deep supervision; the weights are the same.

    Raises:
        ValueError: an option outside the values above.
    """

    __constants__ = ("dense",)  # what the form excludes is not compiled by TorchScript

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        num_classes: int = 2,
        *,
        task: str = "both",
        width: int = 64,
        planes: Sequence[int] = (64, 128, 256, 256),
        blocks: Sequence[int] = (3, 4, 6, 3),
        cardinality: int = 32,
        norm: str = "batch",
        norm_groups: int = 32,
        pool_stride: Sequence[int] = (2, 2, 2),
        use_va: bool = True,
        use_asa: bool = True,
        use_ta: bool = True,
        use_sds: bool = True,
        asa_refine: bool = False,
        dense: bool = False,
    ) -> None:
        super().__init__()
        check_option("task", task, ("both", "seg", "class"))
        check_option("norm", norm, ("batch", "group"))
        if len(planes) != SCALES or len(blocks) != SCALES:
            raise ValueError(f"planes={planes!r}, blocks={blocks!r}: expected {SCALES} numbers each")
        if asa_refine and not use_asa:
            raise ValueError("asa_refine=True: expected use_asa=True, whose result it refines")
        self.in_channels = in_channels
        self.dense = dense
        self.strides = [8 * pool_stride[0], 8 * pool_stride[1], pool_stride[2]]  # of the coarsest features

        backbone_norm = ("group", {"num_groups": norm_groups}) if norm == "group" else ("batch", {})
        self.backbone = Backbone(in_channels, planes, blocks, cardinality, backbone_norm, pool_stride)
        self.project = nn.ModuleList(_convolution(2 * p, width, 1, norm_groups) for p in planes)
        self.va = VALayer(width, norm_groups) if use_va else None
        supervised = use_sds and task != "class"
        self.fusion_va = Fusion(SCALES * width, width, norm_groups) if use_asa or supervised else None
        self.asa = None
        if use_asa:
            self.asa = nn.ModuleList(ASAModule(width, norm_groups, steps, asa_refine) for steps in DOWN_STEPS)
        self.aux_va = PointwiseConvolution(width, out_channels) if supervised else None
        self.fusion_asa = Fusion(SCALES * width, width, norm_groups) if supervised else None
        self.aux_asa = PointwiseConvolution(width, out_channels) if supervised else None
        self.seg = SegmentationBranch(width, norm_groups, use_ta, out_channels) if task != "class" else None
        self.cls = ClassificationBranch(width, norm_groups, use_ta, num_classes) if task != "seg" else None

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Logits of the segmentation and of the class.

        Args:
            image: ``(B, in_channels, x, y, z)``.

        Returns:
            "seg", "aux_va" and "aux_asa", logits ``(B, out_channels, x, y, z)``, and "class", logits
            ``(B, num_classes)``, without those that the options exclude; with ``dense`` one tensor of "seg", then
            "class" in every voxel, ``(B, out_channels + num_classes, x, y, z)``. All in float32.

        Raises:
            ValueError: another number of channels, or an image of which one voxel would remain.
        """
        self.check_input(image)
        features = self.backbone(image)
        v: list[Tensor] = []
        for i, project in enumerate(self.project):
            v.append(project(features[i]))
        if self.va is not None:
            v = self.va(v)

        outputs: dict[str, Tensor] = {}
        a = v
        if self.fusion_va is not None and (self.asa is not None or not self.dense):
            multi_scale = self.fusion_va(_coarse_first(v))
            if self.aux_va is not None and not self.dense:
                outputs["aux_va"] = resize(self.aux_va(multi_scale).float(), image)
            if self.asa is not None:
                a = []
                for i, module in enumerate(self.asa):
                    a.append(module(v[i], multi_scale))
        if self.fusion_asa is not None and self.aux_asa is not None and not self.dense:
            outputs["aux_asa"] = resize(self.aux_asa(self.fusion_asa(_coarse_first(a))).float(), image)
        if self.seg is not None:
            outputs["seg"] = resize(self.seg(a).float(), image)
        if self.cls is not None:
            outputs["class"] = self.cls(a).float()
        if not self.dense:
            return outputs
        maps: list[Tensor] = []
        if self.seg is not None:
            maps.append(outputs["seg"])
        if self.cls is not None:
            maps.append(
                outputs["class"][:, :, None, None, None].expand(-1, -1, image.shape[2], image.shape[3], image.shape[4])
            )
        return torch.cat(maps, 1)

    def check_input(self, image: Tensor) -> None:
        """Raise a ``ValueError`` that says what does not fit and what would."""
        check_channels(image, self.in_channels)
        size = image.shape[2:]
        if all([size[i] <= self.strides[i] for i in range(3)]):  # noqa: C419  # TorchScript has no generators
            raise ValueError(
                f"spatial size {list(size)} leaves one voxel at the coarsest scale, of which nothing can be "
                f"normalised; pad one axis beyond {self.strides}"
            )


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Trilinear interpolation to the spatial size of another map; nothing where it has it."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


def _coarse_first(maps: list[Tensor]) -> list[Tensor]:
    """The maps of the four scales in the order of the concatenation; the two coarsest, of one size, as one map."""
    return [torch.cat([maps[3], maps[2]], 1), maps[1], maps[0]]


def _convolution(
    c_in: int, c_out: int, kernel_size: int, norm_groups: int, bias: bool = True, stride: tuple[int, int, int] = KEPT
) -> nn.Sequential:
    conv: nn.Module
    if kernel_size == 1 and max(stride) == 1:
        conv = PointwiseConvolution(c_in, c_out, bias)
    else:
        conv = nn.Conv3d(c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=bias)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(norm_groups, c_out), act=nn.PReLU()))


def _downsampling(width: int, kernel_size: int, norm_groups: int) -> nn.Sequential:
    return _convolution(width, width, kernel_size, norm_groups // 2, bias=False, stride=HALVED)
