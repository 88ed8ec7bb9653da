"""Define MA-MTLN, a multi-attention multi-task network for gastric tumours and lymph nodes in abdominal CT.

Y. Zhang, H. Li, J. Du, J. Qin, T. Wang, Y. Chen, B. Liu, W. Gao, G. Ma, B. Lei, "3D Multi-Attention Guided Multi-Task
Learning Network for Automatic Gastric Tumor Segmentation and Lymph Node Classification", IEEE Transactions on Medical
Imaging 40 (2021), doi:10.1109/TMI.2021.3062902.

A backbone gives features of four scales. Visual attention exchanges them between scales, adaptive spatial attention
weighs them voxel by voxel, and one branch for each task reads them. Equation numbers are those of the paper. Figure by
figure, and every deviation with its reason: ``docs/explanation/mamtln.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...layers import TwoForms, append_class
from ...layers.checks import check_channels, check_option
from .attention import SCALES, ASAModule, TaskAttention, VALayer
from .backbone import Backbone
from .blocks import Fusion, PointwiseConvolution, convolution, downsampling, resize

DOWN_STEPS = (0, 1, 2, 2)  # strided convolutions from the first scale to each


class SegmentationBranch(nn.Module):
    """Predict segmentation logits at scale 1, from coarse to fine (segmentation-aware module). Args as in MAMTLN."""

    def __init__(self, width: int, norm_groups: int, attention: bool, out_channels: int) -> None:
        super().__init__()
        self.attention2 = TaskAttention(3 * width, width, norm_groups, attention)
        self.attention1 = TaskAttention(2 * width, width, norm_groups, attention)
        self.head = PointwiseConvolution(width, out_channels)

    def forward(self, a: list[Tensor]) -> Tensor:
        s2 = self.attention2([torch.cat([a[3], a[2]], 1), a[1]])
        return self.head(self.attention1([s2, a[0]]))


class ClassificationBranch(nn.Module):
    """Predict class logits ``(B, num_classes)``, fine to coarse (classification-aware module). Args as in MAMTLN."""

    def __init__(self, width: int, norm_groups: int, attention: bool, num_classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(downsampling(width, 3, norm_groups) for _ in range(2))
        self.attention2 = TaskAttention(2 * width, width, norm_groups, attention)
        self.attention3 = TaskAttention(2 * width, width, norm_groups, attention)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, a: list[Tensor]) -> Tensor:
        t2 = self.attention2([self.down[0](a[0]), a[1]])  # eq. 7
        t3 = self.attention3([self.down[1](t2), a[2]])  # eq. 8
        return self.head(torch.cat([t3, a[3]], 1).mean((2, 3, 4)))


class MAMTLN(TwoForms):
    """Segment the tumour and classify the image (MA-MTLN, fig. 2); the defaults are the paper's network.

    With several labels, the segmentation is a softmax over them and the background. The paper's network has 8,743,447
    parameters. Any spatial size fits if more than one voxel remains at the coarsest scale.

    Args:
        in_channels: int, channels of the image.
        out_channels: int, channels of the segmentation, the background's first.
        num_classes: int, classes of the whole image.
        task: str, ``"both"``, ``"seg"`` without the classification branch, or ``"class"`` without the segmentation
            branch and without deep supervision, which needs a segmentation as its target.
        width: int, channels of everything after the backbone, a multiple of 4.
        planes: four ints, channels of the grouped convolutions of each scale; the features have twice as many.
        blocks: four ints, residual blocks of each scale.
        cardinality: int, groups of the grouped convolutions.
        norm: str, normalisation of the backbone, ``"batch"`` or ``"group"``.
        norm_groups: int, groups of every group normalisation; half as many for a strided or a narrow map.
        pool_stride: three ints, stride of the pooling after the first convolution.
        use_va: bool, visual attention.
        use_asa: bool, adaptive spatial attention.
        use_ta: bool, masks of the task-aware attention.
        use_sds: bool, two heads for deep supervision in the training form.
        asa_refine: bool, the released form of the adaptive spatial attention (9,663,267 parameters).
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.

    Raises:
        ValueError: an option outside the values above.
    """

    encoder_modules = ("backbone",)

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
        super().__init__(dense)
        check_option("task", task, ("both", "seg", "class"))
        check_option("norm", norm, ("batch", "group"))
        if len(planes) != SCALES or len(blocks) != SCALES:
            raise ValueError(f"planes={planes!r}, blocks={blocks!r}: expected {SCALES} numbers each")
        if asa_refine and not use_asa:
            raise ValueError("asa_refine=True: expected use_asa=True, since it refines the result of the ASA modules")
        self.in_channels = in_channels
        self.strides = [8 * pool_stride[0], 8 * pool_stride[1], pool_stride[2]]  # of the coarsest features

        backbone_norm = ("group", {"num_groups": norm_groups}) if norm == "group" else ("batch", {})
        self.backbone = Backbone(in_channels, planes, blocks, cardinality, backbone_norm, pool_stride)
        self.project = nn.ModuleList(convolution(2 * p, width, 1, norm_groups) for p in planes)
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
        """Predict the segmentation and the class.

        Args:
            image: ``(B, in_channels, x, y, z)``.

        Returns:
            Logits in float32. For training: ``aux_va``, ``aux_asa`` and ``seg`` ``(B, out_channels, x, y, z)``, and
            ``class`` ``(B, num_classes)``, without those that the options exclude. For inference: one tensor ``(B,
            out_channels + num_classes, x, y, z)``, ``seg`` and then ``class`` in every voxel.

        Raises:
            ValueError: another number of channels, or an image of which one voxel would remain.
        """
        self.check_input(image)
        v = self.visual_features(image)
        if self.dense:
            return self.predict(v, image)
        return self.predict_every_head(v, image)

    def predict(self, v: list[Tensor], image: Tensor) -> Tensor:
        """Return the inference form; the heads of the deep supervision are not computed."""
        a = v
        if self.asa is not None and self.fusion_va is not None:
            a = self.spatial_features(v, self.fusion_va(coarse_first(v)))
        seg = image[:, :0].float()  # without the segmentation branch
        if self.seg is not None:
            seg = resize(self.seg(a).float(), image)
        if self.cls is not None:
            return append_class(seg, self.cls(a).float())
        return seg

    def predict_every_head(self, v: list[Tensor], image: Tensor) -> dict[str, Tensor]:
        """Return the training form."""
        outputs: dict[str, Tensor] = {}
        a = v
        if self.fusion_va is not None:
            multi_scale = self.fusion_va(coarse_first(v))
            if self.aux_va is not None:
                outputs["aux_va"] = resize(self.aux_va(multi_scale).float(), image)
            if self.asa is not None:
                a = self.spatial_features(v, multi_scale)
        if self.fusion_asa is not None and self.aux_asa is not None:
            outputs["aux_asa"] = resize(self.aux_asa(self.fusion_asa(coarse_first(a))).float(), image)
        if self.seg is not None:
            outputs["seg"] = resize(self.seg(a).float(), image)
        if self.cls is not None:
            outputs["class"] = self.cls(a).float()
        return outputs

    def visual_features(self, image: Tensor) -> list[Tensor]:
        """Return ``F_1^V`` to ``F_4^V``: backbone, projection to ``width`` channels, VA layer."""
        features = self.backbone(image)
        v: list[Tensor] = []
        for i, project in enumerate(self.project):
            v.append(project(features[i]))
        return v if self.va is None else self.va(v)

    def spatial_features(self, v: list[Tensor], multi_scale: Tensor) -> list[Tensor]:
        """Return ``F_1^A`` to ``F_4^A``: the ASA module of each scale."""
        assert self.asa is not None  # mypy sees an optional one
        a: list[Tensor] = []
        for i, module in enumerate(self.asa):
            a.append(module(v[i], multi_scale))
        return a

    def check_input(self, image: Tensor) -> None:
        """Raise a ``ValueError`` that says what does not fit and what would."""
        check_channels(image, self.in_channels)
        size = image.shape[2:]
        if all([size[i] <= self.strides[i] for i in range(3)]):  # noqa: C419  # TorchScript has no generators
            raise ValueError(
                f"spatial size {list(size)} leaves one voxel at the coarsest scale, which "
                f"no normalisation can take; pad one axis beyond {self.strides}"
            )


def coarse_first(maps: list[Tensor]) -> list[Tensor]:
    """Return the maps in the order in which they are concatenated; the two coarsest, of one size, as one map."""
    return [torch.cat([maps[3], maps[2]], 1), maps[1], maps[0]]
