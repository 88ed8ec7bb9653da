"""Pictures of segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.volumes import read_volume
from ..errors import InputError
from ..geometry import grid_difference, turn_onto
from ..results import read_result
from .marks import check_png, save_png

PREDICTION_COLOUR = "deepskyblue"
TRUTH_COLOUR = "red"
HEAT_OPACITY = 0.7  # where it is 1; where it is 0, the image stays as it is
LABEL_COLOURS = ("tab:red", "tab:cyan", "tab:olive", "tab:pink", "tab:green", "tab:orange", "tab:blue", "tab:purple")


def draw_outlines(
    images: Sequence[str | Path],
    prediction: str | Path,
    out: str | Path,
    truth: str | Path | None = None,
    columns: int = 4,
    heat: str | Path | None = None,
    result: str | Path | None = None,
) -> Path:
    """Draw axial slices of each image with the outlines of the prediction and, where given, of the ground truth.

    A single label has a colour in each; several have a colour for each label, dashed for the ground truth.

    The slices are spread evenly over those that hold either, or else over those where the heat is at least half of its
    maximum. The patient's right side is on the left, as radiologists have it.

    Args:
        images: files on one grid, a row each; a 4-D file gives a row for each channel.
        prediction, truth: label maps on that grid.
        out: PNG, NAME.png; a picture of this project that lies there unchanged is replaced.
        columns: slices at most.
        heat: map of 0 to 1 on that grid, such as a class activation; it colours the first image in a row of its own.
        result: JSON of the case's class and probabilities, for the caption.

    Raises:
        InputError: a file cannot be read, or is on another grid; ``out`` is no name of a PNG, or another file.
    """
    from matplotlib.figure import Figure  # only the picture needs it, and it is slow to import

    check_png(out)

    mask, affine = _canonical(Path(prediction))
    reference = mask if truth is None else _on_grid(Path(truth), prediction, mask, affine, labels=True)
    rows = []
    for path in map(Path, images):
        volume = _on_grid(path, prediction, mask, affine, channels=True)
        rows += (
            [(path.name, volume)]
            if volume.ndim == 3
            else [(f"{path.name} [{c}]", volume[..., c]) for c in range(volume.shape[3])]
        )
    warmth = None if heat is None else _on_grid(Path(heat), prediction, mask, affine)
    classified = None if result is None else read_result(result)

    held = np.flatnonzero(((mask > 0) | (reference > 0)).any((0, 1)))
    if not held.size and warmth is not None and warmth.any():
        held = np.flatnonzero((warmth >= warmth.max() / 2).any((0, 1)))
    held = held if held.size else np.array([mask.shape[2] // 2])
    slices = held[np.unique(np.linspace(0, held.size - 1, columns).round().astype(int))]
    values = [v for v in np.union1d(mask, reference) if v]
    colours = {v: (LABEL_COLOURS[i % len(LABEL_COLOURS)],) * 2 for i, v in enumerate(values)}
    if len(values) < 2:
        colours = dict.fromkeys(values or [1], (PREDICTION_COLOUR, TRUTH_COLOUR))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    aspect = spacing[1] / spacing[0]
    width = 2.6 * len(slices)
    if heat is not None:
        rows.append((Path(heat).name, rows[0][1]))
    overlays = [None] * (len(rows) - 1) + [warmth]
    figure = Figure((width, 2.5 * aspect * mask.shape[1] / mask.shape[0] * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), len(slices), squeeze=False)
    for row, (name, volume), overlay in zip(axes, rows, overlays):
        low, high = np.percentile(volume, (1, 99.5))
        for ax, z in zip(row, slices):
            ax.imshow(volume[:, :, z].T, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
            if overlay is not None:
                warm = np.clip(overlay[:, :, z].T, 0, 1)
                opacity = HEAT_OPACITY * warm
                ax.imshow(warm, cmap="jet", vmin=0, vmax=1, alpha=opacity, origin="lower", aspect=aspect)
            for value, (predicted, true) in colours.items():
                if truth is not None:
                    _outline(ax, reference[:, :, z] == value, true, "solid" if len(colours) == 1 else "dashed")
                _outline(ax, mask[:, :, z] == value, predicted, "solid")
            ax.invert_xaxis()  # x grows to the patient's right, which belongs on the left of the picture
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(name, fontsize=7)
    for ax, z in zip(axes[0], slices):
        ax.set_title(f"slice {z}", fontsize=8)
    if len(colours) == 1:
        caption = "prediction blue" + ("" if truth is None else ", truth red")
    else:
        caption = ", ".join(f"label {value:g} {colour[4:]}" for value, (colour, _) in colours.items())
        caption += "" if truth is None else "; prediction solid, truth dashed"
    if classified is not None:
        shown = ", ".join(f"{name} {p:.2f}" for name, p in classified["probabilities"].items())
        caption += f"\nclass {classified['class']} ({shown})"
    figure.supxlabel(caption, fontsize=8)
    return save_png(figure, out)


def _outline(ax: object, mask: np.ndarray, colour: str, style: str) -> None:
    if mask.any():  # the line lies inside its label, beside that of the neighbour
        ax.contour(mask.T, levels=[0.75], colors=colour, linewidths=1.2, linestyles=style)  # type: ignore[attr-defined]


def _canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Label map and affine with axes turned to the closest of RAS+."""
    return turn_onto(*read_volume(path, labels=True), np.eye(4))


def _on_grid(
    path: Path,
    prediction: str | Path,
    mask: np.ndarray,
    affine: np.ndarray,
    labels: bool = False,
    channels: bool = False,
) -> np.ndarray:
    """A volume with its axes turned to those of the prediction."""
    volume, of_volume = turn_onto(*read_volume(path, labels=labels), affine)
    shape = volume.shape[:3] if channels else volume.shape
    difference = grid_difference(shape, of_volume, mask.shape, affine)
    if difference:
        raise InputError(f"{path}: another grid than that of {prediction}: {difference}")
    return volume
