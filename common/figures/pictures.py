"""Draw pictures of segmentations."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_dilation

from ..data.folders import images_of_case
from ..data.names import scan_name
from ..errors import InputError
from ..reporting import read_result
from .marks import check_png, save_png
from .names_in_masks import names_of_values
from .on_one_grid import label_dice, read_mask, read_on_grid, scale_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTION_COLOUR = "deepskyblue"
TRUTH_COLOUR = "red"
PREDICTION_WIDTH, TRUTH_WIDTH = 1.0, 3.5  # of the outlines, in points
HEAT_MARGIN = 1e-3  # for rounding beyond 0 and 1
HEAT_OPACITY = 0.7  # opacity of the heat map where it is 1; it is transparent where it is 0
LUNG, SOFT_TISSUE = (-1350.0, 150.0), (-160.0, 240.0)  # windows of a CT in HU
AIR = -500.0  # HU; a CT in which the outlines enclose darker tissue is shown with the window of the lungs
CAPTION_WIDTH = 40  # characters under a slice
LABEL_COLOURS = ("tab:red", "tab:cyan", "tab:olive", "tab:pink", "tab:green", "tab:orange", "tab:blue", "tab:purple")


def draw_outlines(
    images: Sequence[str | Path],
    prediction: str | Path,
    out: str | Path,
    truth: str | Path | None = None,
    columns: int = 4,
    heat: str | Path | None = None,
    result: str | Path | None = None,
    modalities: Sequence[str] = (),
) -> Path:
    """Draw axial slices of each image with the outlines of the prediction and, if given, of the ground truth.

    With a single label, prediction and ground truth have different colours. With several labels, each label has a
    colour. The ground truth is a wide, pale line, so that both are visible where they agree. The labels have their
    names where :func:`names_of_values` finds them, else their values.

    The slices divide the area of prediction and ground truth into equal parts. Without either, they are spaced over
    those where the heat is at least half of its maximum. The patient's right side is on the left (radiological
    convention).

    Args:
        images: files on one grid, one row each; a 4-D file gives one row for each channel.
        prediction: label map on that grid.
        out: PNG to write; an unchanged picture of this project there is replaced.
        truth: label map of the ground truth on that grid, or None.
        columns: largest number of slices.
        heat: map of 0 to 1 on that grid, such as a class activation; it colours the first image in a row of its own.
        result: JSON of the case's class and probabilities, for the caption.
        modalities: names of the rows in their order. They order files that name a modality. Default: file names.

    Returns:
        path of the picture.

    Raises:
        InputError: a file cannot be read, has another grid, or is not the kind of map that it should be; there is no
            image; ``out`` does not end with .png or is another file.
    """
    check_png(out)
    if not images:
        raise InputError("no image; give the scan, or one file for each modality, before the options")
    mask, affine = read_mask(Path(prediction))
    reference = None if truth is None else read_on_grid(Path(truth), prediction, mask, affine, labels=True)
    rows = []
    for path in _ordered(images, modalities):
        volume = read_on_grid(path, prediction, mask, affine, channels=True)
        rows += (
            [(path.name, volume)]
            if volume.ndim == 3
            else [(f"{path.name} [{c}]", volume[..., c]) for c in range(volume.shape[3])]
        )
    if modalities and len(modalities) != len(rows):
        raise InputError(f"--modalities: {len(modalities)} names, but the images have {len(rows)} channels")
    rows = [(name, volume) for name, (_, volume) in zip(modalities, rows)] if modalities else rows
    warmth = None if heat is None else read_on_grid(Path(heat), prediction, mask, affine)
    if warmth is not None and (warmth.min() < -HEAT_MARGIN or warmth.max() > 1 + HEAT_MARGIN):
        raise InputError(
            f"{heat}: values from {warmth.min():g} to {warmth.max():g}, expected a map of 0 to 1; scale it, or give "
            "another file"
        )
    if heat is not None:
        rows.append((Path(heat).name, rows[0][1]))
    note = ""
    if result is not None:
        classified = read_result(result)
        shown = ", ".join(f"{name} {p:.2f}" for name, p in classified["probabilities"].items())
        note = f"class {classified['class']} ({shown})"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    names = names_of_values(prediction, truth, *images)
    title = scan_name(Path(prediction)).removesuffix("_seg")
    if reference is not None:
        values = [value for value in np.union1d(mask, reference) if value]
        dice = zip(values, label_dice(mask, reference, values))
        shown = ", ".join(f"{names.get(v, '')} {d:.3f}".strip() for v, d in dice)
        title += f", Dice {shown}" if shown else ""
    return save_png(outline_figure(rows, mask, spacing, reference, columns, warmth, note, title, names), out)


def _ordered(images: Sequence[str | Path], modalities: Sequence[str]) -> list[Path]:
    """Return the files in the order of the modalities in their names."""
    files = [Path(image) for image in images]
    if len(modalities) < 2 or len(files) < 2:
        return files
    found = images_of_case(files, modalities, "the images")
    return [Path(found)] if isinstance(found, str) else [Path(file) for file in found]


def window_of(name: str, volume: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Return the values that are shown black and white.

    A CT has air below -900 HU or is called CT. It gets the window of the lungs if the mean in and around the mask is
    that of lungs, else that of soft tissue. Other volumes get their 1st and 99.5th percentile.

    Args:
        name: name of the modality.
        volume: volume ``(x, y, z)``.
        mask: label map on the same grid, or None.
    """
    low, high = np.percentile(volume, (1, 99.5))
    is_ct = name.upper() == "CT" or volume.min() <= -900
    if not is_ct or low > -100:
        return float(low), float(high)
    inside = volume[binary_dilation(mask > 0, iterations=2)] if mask is not None and mask.any() else volume[:0]
    return LUNG if inside.size and np.median(inside) < AIR else SOFT_TISSUE


def outline_figure(
    rows: Sequence[tuple[str, np.ndarray]],
    mask: np.ndarray,
    spacing: Sequence[float],
    truth: np.ndarray | None = None,
    columns: int = 4,
    warmth: np.ndarray | None = None,
    note: str = "",
    title: str = "",
    names: Mapping[int, str] = {},
) -> Figure:
    """Return the figure of :func:`draw_outlines` for volumes in RAS+ orientation on one grid.

    Args:
        rows: name and volume ``(x, y, z)`` of each row.
        mask: label map of the prediction.
        spacing: voxel size in mm along x, y, z.
        truth: label map of the ground truth, or None.
        columns: largest number of slices.
        warmth: map of 0 to 1 that colours the last row, or None.
        note: last line of the caption.
        title: line above the slices, or "".
        names: name of each label value, as far as known.
    """
    from matplotlib.figure import Figure  # here, because it is slow to import

    reference = mask if truth is None else truth
    held = np.flatnonzero(((mask > 0) | (reference > 0)).any((0, 1)))
    if not held.size and warmth is not None and warmth.any():
        held = np.flatnonzero((warmth >= warmth.max() / 2).any((0, 1)))
    held = held if held.size else np.array([mask.shape[2] // 2])
    slices = _by_area(held, (mask > 0) | (reference > 0), columns)
    values = [v for v in np.union1d(mask, reference) if v]
    colours = {v: (LABEL_COLOURS[i % len(LABEL_COLOURS)],) * 2 for i, v in enumerate(values)}
    if len(values) < 2:
        colours = dict.fromkeys(values or [1], (PREDICTION_COLOUR, TRUTH_COLOUR))
    aspect = spacing[1] / spacing[0]
    width = 2.6 * len(slices)
    overlays = [None] * (len(rows) - 1) + [warmth]
    figure = Figure((width, 2.5 * aspect * mask.shape[1] / mask.shape[0] * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(slices), squeeze=False)
    for row, (name, volume), overlay in zip(axes, rows, overlays):
        low, high = window_of(name, volume, mask)
        for ax, z in zip(row, slices):
            ax.imshow(volume[:, :, z].T, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
            if overlay is not None:
                warm = np.clip(overlay[:, :, z].T, 0, 1)
                opacity = HEAT_OPACITY * warm
                ax.imshow(warm, cmap="jet", vmin=0, vmax=1, alpha=opacity, origin="lower", aspect=aspect)
            for value, (predicted, true) in colours.items():
                if truth is not None:
                    _outline(ax, reference[:, :, z] == value, true, TRUTH_WIDTH)
                _outline(ax, mask[:, :, z] == value, predicted, PREDICTION_WIDTH)
            ax.invert_xaxis()  # x increases to the patient's right, which is on the left in the radiological convention
            ax.set_xticks([])
            ax.set_yticks([])
        _scale(row[0], spacing, mask.shape[0])
        row[0].set_ylabel(name, fontsize=7)
    for ax, z in zip(axes[0], slices):
        ax.set_title(f"slice {z}", fontsize=8)
    if len(colours) == 1:
        caption = "prediction blue" + ("" if truth is None else ", thin; ground truth red, wide")
        caption = f"{names[values[0]]}: {caption}" if values and values[0] in names else caption
    else:
        named = {value: names.get(value, f"label {value:g}") for value in colours}
        caption = ", ".join(f"{named[value]} {colour[4:]}" for value, (colour, _) in colours.items())
        caption += "" if truth is None else "; prediction thin, ground truth wide"
    if title:
        figure.suptitle(_wrapped(title, len(slices)), fontsize=9)
    caption = _wrapped(caption, len(slices))
    figure.supxlabel(f"{caption}\n{note}" if note else caption, fontsize=8)
    return figure


def _wrapped(text: str, columns: int) -> str:
    """Return text in lines of the figure's width, in which matplotlib sees no formula."""
    return textwrap.fill(text, CAPTION_WIDTH * columns, break_long_words=False).replace("$", r"\$")


def _by_area(held: np.ndarray, foreground: np.ndarray, columns: int) -> np.ndarray:
    """Return slices that divide the area of the foreground into equal parts, each from the middle of its part."""
    area = foreground[:, :, held].sum((0, 1)).astype(float)
    if held.size <= columns or not area.any():
        return held[np.unique(np.linspace(0, held.size - 1, columns).round().astype(int))]
    share = (np.cumsum(area) - area / 2) / area.sum()
    nearest = [int(np.abs(share - (part + 0.5) / columns).argmin()) for part in range(columns)]
    return held[np.unique(nearest)]


def _outline(ax: Any, mask: np.ndarray, colour: str, width: float) -> None:
    if mask.any():  # at 0.75, the outlines of neighbouring labels lie beside each other
        opacity = 0.55 if width == TRUTH_WIDTH else 1
        ax.contour(mask.T, levels=[0.75], colors=colour, linewidths=width, alpha=opacity)


def _scale(ax: Any, spacing: Sequence[float], width: int) -> None:
    """Draw R and L, and a bar of a round number of millimetres, at most a third of the width."""
    from matplotlib.patheffects import withStroke  # here, because it is slow to import

    length = scale_bar(width * spacing[0])
    seen = {"color": "white", "transform": ax.transAxes, "path_effects": [withStroke(linewidth=3, foreground="black")]}
    end, text = 0.04 + length / spacing[0] / width, {"fontsize": 7, **seen}  # the dark rim, where the image is bright
    ax.plot([0.04, end], [0.04, 0.04], linewidth=2, **seen)
    ax.text(0.04, 0.06, f"{length} mm", **text)
    ax.text(0.02, 0.5, "R", **text)
    ax.text(0.98, 0.5, "L", ha="right", **text)
