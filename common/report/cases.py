"""Find the masks in a folder of results, and scan and ground truth of their cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.folds import SECTIONS
from ..data.found_cases import find_cases
from ..data.listed_cases import has_list, read_lists, resolve_case
from ..data.names import named_channels
from ..errors import InputError
from ..figures import record_beside

ENDING = "_seg.nii.gz"


def masks_in(folder: str | Path) -> dict[str, Path]:
    """Return the masks in a folder of results by the names of their cases."""
    return {file.name.removesuffix(ENDING): file for file in sorted(Path(folder).glob(f"*{ENDING}"))}


def cases_of_masks(masks: Mapping[str, Path], dataset_dir: str | Path) -> list[dict[str, Any]]:
    """Return the case of each mask, with ``case``, ``image``, ``modalities`` and, if it has ground truth, ``label``.

    With a data list, the cases are those of the list. Without one, they are the scans that an inference finds.

    Args:
        masks: name of the case and mask.
        dataset_dir: folder of the scans, or one scan.

    Raises:
        InputError: a mask has no case, or the scan of its case cannot be used.
    """
    root = Path(dataset_dir)
    modalities = next((named for mask in masks.values() if (named := _modalities_of(mask))), [])
    if has_list(root):
        listing: dict[str, Any] = read_lists(root, validation_share=0)
        modalities = named_channels(root / "dataset.json", listing) or modalities
        items = [item for section in SECTIONS for item in listing.get(section) or []]
        found = [resolve_case(root, item, (), isinstance(item, dict) and "label" in item) for item in items]
    else:
        found = find_cases(root, modalities, exclude=next(iter(masks.values())).parent)
    by_name = {case["case"]: case for case in found}
    for name, mask in masks.items():
        if name not in by_name:
            raise InputError(f"{root}: no case {name}, which has the mask {mask}; give the folder of its scan")
        if "error" in by_name[name]:
            raise InputError(by_name[name]["error"])
    return [{**by_name[name], "modalities": modalities} for name in masks]


def _modalities_of(mask: Path) -> list[str]:
    """Return the names of the scan's channels in the record beside a mask."""
    return [name.strip() for name in str(record_beside(mask).get("modality", "")).split(",") if name.strip()]
