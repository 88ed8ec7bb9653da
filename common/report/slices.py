"""Draw the slices of a case for a page: images as JPEG, outlines as paths of SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from skimage.measure import find_contours

from ..figures import scale_bar, window_of

MOST_PIXELS = 320  # of a side of an image
SLICES = 24  # of a case with one modality
QUALITIES = (85, 70, 55, 40, 25)  # of JPEG, the best that fits the budget
MARGIN = 2  # slices above and below the foreground


def case_slices(
    rows: Sequence[tuple[str, np.ndarray]],
    layers: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    budget: int,
) -> dict[str, Any]:
    """Return the slices of a case as values for the template.

    Args:
        rows: name and volume ``(x, y, z)`` in RAS+ orientation of each modality.
        layers: name and label map on the same grid of each layer, such as ``ground truth``.
        spacing: voxel size in mm along x, y, z.
        budget: number of bytes that the images of the case may take.
    """
    shape = rows[0][1].shape
    chosen = _chosen(list(layers.values()), shape[2], max(8, SLICES // len(rows)))
    windows = [window_of(name, volume, next(iter(layers.values()), None)) for name, volume in rows]
    largest = budget // (len(rows) * len(chosen))
    aspect = spacing[1] / spacing[0]
    width, height = float(shape[0]), shape[1] * aspect
    values = sorted({int(value) for layer in layers.values() for value in np.unique(layer) if value})
    drawn = []
    for z in chosen:
        images = [_jpeg(volume[:, :, z], window, aspect, largest) for (_, volume), window in zip(rows, windows)]
        paths = [
            {"layer": index, "value": values.index(value), "path": path}
            for index, layer in enumerate(layers.values())
            for value in values
            if (path := _path(layer[:, :, z] == value, aspect))
        ]
        drawn.append({"number": z, "images": images, "paths": paths})
    areas = [sum(int((layer[:, :, z] > 0).sum()) for layer in layers.values()) for z in chosen]
    length = scale_bar(width * spacing[0])
    return {
        "modalities": [name for name, _ in rows],
        "width": width,
        "height": height,
        "slices": drawn,
        "first": int(np.argmax(areas)),
        "count": shape[2],
        "bar": length / spacing[0],
        "bar_mm": length,
    }


def _chosen(layers: Sequence[np.ndarray], depth: int, most: int) -> list[int]:
    """Return at most ``most`` slices, evenly spaced over those with foreground and two more on each side."""
    held = np.flatnonzero(np.any([(layer > 0).any((0, 1)) for layer in layers], axis=0)) if layers else np.array([])
    low, high = (max(held[0] - MARGIN, 0), min(held[-1] + MARGIN, depth - 1)) if held.size else (0, depth - 1)
    return [int(z) for z in np.unique(np.linspace(low, high, min(most, high - low + 1)).round().astype(int))]


def _jpeg(plane: np.ndarray, window: tuple[float, float], aspect: float, largest: int) -> str:
    """Return a slice as a data URI, the patient's right side on the left and the front at the top."""
    from PIL import Image  # here, because it comes with matplotlib, which is optional

    low, high = window
    grey = np.clip((plane.T[::-1, ::-1].astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255)
    image = Image.fromarray(np.nan_to_num(grey).astype(np.uint8))
    width, height = image.width, image.height * aspect
    scale = MOST_PIXELS / max(width, height)
    image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
    while True:
        for quality in QUALITIES:
            content = io.BytesIO()
            image.save(content, "JPEG", quality=quality)
            text = base64.b64encode(content.getvalue()).decode()
            if len(text) <= largest:
                return f"data:image/jpeg;base64,{text}"
        if min(image.size) < 32:
            return f"data:image/jpeg;base64,{text}"
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4))


def _path(mask: np.ndarray, aspect: float) -> str:
    """Return the outline of a mask ``(x, y)`` as the path of an SVG; its unit is a voxel along x."""
    if not mask.any():
        return ""
    padded = np.pad(mask.T[::-1, ::-1], 1).astype(np.float32)
    parts = []
    for contour in find_contours(padded, 0.5):
        points = np.column_stack([contour[:, 1] - 0.5, (contour[:, 0] - 0.5) * aspect])
        parts.append("M" + "L".join(f"{x:.4g},{y:.4g}" for x, y in points[:-1]) + "Z")
    return "".join(parts)
