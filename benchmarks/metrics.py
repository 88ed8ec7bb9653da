"""Compare Dice, HD95, ASSD and surface Dice of a tumour by MONAI's four functions with ours."""

from __future__ import annotations

import torch
from monai.metrics import (
    DiceMetric,
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)

from common.metrics import SegmentationScores

from .measure import Figures, Row, interleaved, row
from .volumes import tumour_masks

TOLERANCE = 1.0  # mm, for the surface Dice


def metrics_rows(device: torch.device, repeats: int, size: tuple[int, int, int] = (240, 240, 155)) -> list[Row]:
    """Return the rows of the table.

    Args:
        device: device of the masks.
        repeats: number of measurements of each time.
        size: size (x, y, z) of the masks, in voxels of 1 mm.
    """
    prediction, truth = (torch.from_numpy(mask)[None, None].to(device) for mask in tumour_masks(size))
    values: dict[str, dict[str, float]] = {}
    dice = DiceMetric()
    scores = SegmentationScores(scores=("Dice", "HD95", "ASSD", "surface Dice"), tolerance=TOLERANCE)

    def monai() -> None:
        values["monai"] = {
            "Dice": float(dice(prediction, truth)),
            "HD95": float(compute_hausdorff_distance(prediction, truth, include_background=True, percentile=95)),
            "ASSD": float(compute_average_surface_distance(prediction, truth, include_background=True, symmetric=True)),
            "surface Dice": float(
                compute_surface_dice(
                    prediction, truth, [TOLERANCE], include_background=True, spacing=(1, 1, 1), use_subvoxels=True
                )
            ),
        }

    def ours() -> None:
        values["ours"] = scores(prediction, truth)

    figures = Figures(interleaved({"monai": monai, "ours": ours}, repeats, device, title="metrics"), device)
    figures.print("metrics")
    difference = max(abs(values["ours"][name] - value) for name, value in values["monai"].items())
    gate = row("largest difference of a score from MONAI's", difference, "<= 1e-6")
    figure = "Dice, HD95, ASSD and surface Dice of a case, MONAI / ours"
    return [gate, *figures.ratio(figure, ("monai", "all"), ("ours", "all"), ">= 8", bool(gate.met))]
