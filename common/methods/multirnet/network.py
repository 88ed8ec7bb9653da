"""Define MultiR-Net, which segments COVID-19 lesions and diagnoses chest CT, and learns iteratively.

C.-F. Li, Y.-D. Xu, X.-H. Ding, J.-J. Zhao, R.-Q. Du, L.-Z. Wu, W.-P. Sun, "MultiR-Net: A Novel Joint Learning Network
for COVID-19 segmentation and classification", Computers in Biology and Medicine 144 (2022),
doi:10.1016/j.compbiomed.2022.105340.

A V-Net with reverse attention in its skips segments the lesions. A classifier sees the image within them, and the
segmentation is repeated with its own result added to the image. Equation numbers are those of the paper. Figure by
figure, and every deviation with its reason: ``docs/explanation/multirnet.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...layers import TwoForms, append_class
from ...layers.checks import check_channels, check_option, check_sizes
from .pass_norm import separate_statistics
from .segmentation import ENCODER_CONVOLUTIONS, SegmentationSubnet, convolution


class ClassifierModule(nn.Module):
    """Apply a 3x3x3 convolution beside a projected shortcut, both normalised, and a ReLU after their sum.

    Args:
        in_channels: int, channels of the input.
        out_channels: int, channels of the output.
        stride: int, of both.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size=3, strides=stride, act=False)
        self.shortcut = convolution(in_channels, out_channels, kernel_size=1, strides=stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).add_(self.shortcut(x)).relu_()


class MultiRNet(TwoForms):
    """Segment lesions and diagnose; the defaults are the paper's network for chest CT (48,689,576 parameters).

    The paper segments one label. Several labels get a sigmoid map each, and the lesion of the classifier and of the
    next pass is their union: the maximum over the maps.

    Args:
        in_channels: int, channels of the image.
        num_classes: int, diagnoses; the paper's are COVID-19, community-acquired pneumonia, normal.
        out_channels: int, labels; each has a probability map of its own, and the background has none.
        channels: two to five ints, width of the encoder per level, finest first. The number of convolutions per level
            is V-Net's, counted from the finest.
        classifier_channels: ints, width of each module of the classifier; each module but the first halves the size.
        kernel_size: int, odd, of V-Net's convolutions.
        reverse_attention: str, source of the attention in the skips: ``"shared"``, the up-sampling of the decoder;
            ``"own"``, a transposed convolution of its own (434,416 parameters more); ``"off"``, plain skips.
        fusion: str, probability from the five scales: ``"logits"``, the sigmoid of their sum, or ``"mean_sigmoid"``,
            the mean of their sigmoids.
        pass_statistics: str, running statistics of the batch normalisation: ``"shared"``, one set for all passes, or
            ``"separate"``, one for the first pass and one for the later passes (see :class:`.pass_norm.PassNorm`).
        task: str, ``"both"``, or ``"seg"`` for the segmentation subnet alone (the paper's "w/o cls").
        iterations: int, passes of the inference form after the first, N of algorithm 1. The paper's segmentation is
            best with 2, its classification with 0. The training form makes one pass; the trainer repeats it.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.

    Raises:
        ValueError: an option outside the values above.
    """

    encoder_modules = ("segmentation.encoder",)

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 3,
        *,
        out_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        classifier_channels: Sequence[int] = (16, 32, 64, 128, 256, 256),
        kernel_size: int = 5,
        reverse_attention: str = "shared",
        fusion: str = "logits",
        pass_statistics: str = "shared",
        task: str = "both",
        iterations: int = 2,
        dense: bool = False,
    ) -> None:
        super().__init__(dense)
        check_option("reverse_attention", reverse_attention, ("shared", "own", "off"))
        check_option("fusion", fusion, ("logits", "mean_sigmoid"))
        check_option("pass_statistics", pass_statistics, ("shared", "separate"))
        check_option("task", task, ("both", "seg"))
        levels = len(ENCODER_CONVOLUTIONS) + 1
        if not 2 <= len(channels) <= levels:
            raise ValueError(f"channels={channels!r}: expected two to {levels} widths")
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"in_channels={in_channels}, out_channels={out_channels}: expected at least 1 of both")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        if iterations < 0:
            raise ValueError(f"iterations={iterations}: expected 0, one pass, or more")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.divisors = [2 ** (len(channels) - 1)] * 3
        self.iterations = iterations

        self.segmentation = SegmentationSubnet(
            in_channels, out_channels, channels, kernel_size, reverse_attention, fusion
        )
        self.classifier: nn.Module | None = None
        self.head: nn.Module | None = None
        if task == "both":
            widths = [in_channels, *classifier_channels]
            modules = [ClassifierModule(c_in, c, 1 if i == 0 else 2) for i, (c_in, c) in enumerate(pairwise(widths))]
            self.classifier = nn.Sequential(*modules)
            self.head = nn.Linear(widths[-1] + 2 * channels[0], num_classes)
        self.separate = pass_statistics == "separate"
        if self.separate:
            separate_statistics(self)

    def forward(self, image: Tensor, previous: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Predict lesions and diagnosis.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of ``2 ** (len(channels) - 1)``.
            previous: probabilities of the pass before, ``(B, out_channels, x, y, z)``, None in the first pass.

        Returns:
            For training, of one pass: ``seg``, logits of the labels ``(B, out_channels, x, y, z)`` in float32, and
            ``class``, logits of the diagnosis ``(B, num_classes)``. For inference, of the last pass: one tensor ``(B,
            out_channels + num_classes, x, y, z)`` in float32, the probability of each label and then the logits of
            the diagnosis in every voxel. With ``task="seg"`` neither has the diagnosis.

        Raises:
            ValueError: another number of channels, a spatial size that does not divide, a ``previous`` of another
                shape.
        """
        self.check_input(image, previous)
        if self.dense:
            return self.all_passes(image, previous)
        logits, features = self.one_pass(image, previous)
        outputs = {"seg": logits}
        if self.classifier is not None:
            outputs["class"] = self.classify(image * union(torch.sigmoid(logits)), features)
        return outputs

    def all_passes(self, image: Tensor, previous: Tensor | None) -> Tensor:
        """Return the inference form: the passes of algorithm 1, the classifier in the last one only."""
        for _ in range(self.iterations):
            previous = torch.sigmoid(self.one_pass(image, previous)[0]).detach()
        logits, features = self.one_pass(image, previous)
        probability = torch.sigmoid(logits)
        if self.classifier is None:
            return probability
        return append_class(probability, self.classify(image * union(probability), features).float())

    def one_pass(self, image: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits and last decoder features of the segmentation subnet for the input of algorithm 1."""
        if self.separate:
            for module in self.modules():
                if hasattr(module, "later"):  # TorchScript cannot ask for the class
                    module.later = previous is not None  # type: ignore[assignment]
        return self.segmentation(image if previous is None else image + union(previous))

    def classify(self, lesions: Tensor, features: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` from the image within the lesions and the features of the segmentation."""
        assert self.classifier is not None and self.head is not None  # TorchScript and mypy see optional ones
        pooled = [self.classifier(lesions).mean((2, 3, 4)), features.mean((2, 3, 4))]
        return self.head(torch.cat(pooled, 1))

    def check_input(self, image: Tensor, previous: Tensor | None) -> None:
        """Raise a ``ValueError`` that says what does not fit and what would."""
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisors)
        if previous is not None:
            expected = [image.shape[0], self.out_channels, image.shape[2], image.shape[3], image.shape[4]]
            if list(previous.shape) != expected:
                raise ValueError(f"expected previous probabilities {expected}, found shape {list(previous.shape)}")


def union(probabilities: Tensor) -> Tensor:
    """Return the probability of any label, the maximum over the maps ``(B, K, x, y, z)``, as ``(B, 1, x, y, z)``."""
    return probabilities.amax(1, keepdim=True)
