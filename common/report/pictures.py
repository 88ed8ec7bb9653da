"""Draw a picture of each mask in a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.selection import select_cases
from ..figures import draw_outlines
from ..reporting import missing_results
from .cases import ENDING, cases_of_masks, masks_in


def draw_cases(
    output_dir: str | Path,
    dataset_dir: str | Path,
    names: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Path]:
    """Draw ``CASE_seg.png`` beside each mask ``CASE_seg.nii.gz``, with heat map and class where the case has them.

    Args:
        output_dir: folder of an inference.
        dataset_dir: folder of its scans. If a ``dataset.json`` in it has ground truth, the pictures show it too.
        names, limit: as for :func:`common.data.selection.select_cases`.

    Returns:
        paths of the pictures.

    Raises:
        InputError: the folder has no masks, a scan is missing, or a picture cannot be written.
    """
    folder = Path(output_dir)
    masks = masks_in(folder)
    if not masks:
        raise missing_results(folder, f"*{ENDING}")
    chosen = select_cases([{"case": name} for name in masks], names, limit, f"output_dir={folder}")
    pictures = []
    for case in cases_of_masks({case["case"]: masks[case["case"]] for case in chosen}, dataset_dir):
        name = case["case"]
        beside = {part: folder / f"{name}_{part}" for part in ("cam.nii.gz", "class.json")}
        heat, result = (file if file.is_file() else None for file in beside.values())
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        out = folder / f"{name}_seg.png"
        pictures.append(draw_outlines(images, masks[name], out, case.get("label"), heat=heat, result=result))
    return pictures
