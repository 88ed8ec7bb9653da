"""Give the scores and ablations of MultiR-Net's bundle to its tests."""

from __future__ import annotations

from monai.losses import DiceLoss, TverskyLoss

from common.methods.multirnet import FocalTverskyLoss

CLASSES = ["COVID-19", "CAP", "normal"]
SCORES = ["Dice", "ASSD", "surface Dice", "surface overlap", "missed", "volume (ml)", "true volume (ml)"]
# Parameters of the network, passes after the first, loss of the segmentation.
ABLATIONS: dict[str, tuple[int, int, type]] = {
    "no_reverse_attention": (48_689_576, 2, FocalTverskyLoss),
    "own_reverse_attention": (48_689_576 + 434_416, 2, FocalTverskyLoss),
    "mean_sigmoid": (48_689_576, 2, FocalTverskyLoss),
    "separate_statistics": (48_689_576, 2, FocalTverskyLoss),
    "dice_loss": (48_689_576, 2, DiceLoss),
    "tversky_loss": (48_689_576, 2, TverskyLoss),
    "iterations_0": (48_689_576, 0, FocalTverskyLoss),
    "iterations_1": (48_689_576, 1, FocalTverskyLoss),
    "segmentation_only": (45_631_685, 2, FocalTverskyLoss),
    "reduce_on_plateau": (48_689_576, 2, FocalTverskyLoss),
}
