"""Name the labels, regions and channels of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.layouts import description_of
from ..data.names import named_channels
from ..errors import InputError
from ..label_names import IGNORE, names_in_list, regions_in_list
from ..labels import check_labels
from .cases import CaseFacts


def name_labels(dataset_dir: Path, facts: Sequence[CaseFacts]) -> tuple[dict[str, int], dict[str, list[str]], str]:
    """Return the labels, the regions and the reason for both.

    The names come from ``labels`` in the data set's ``dataset.json``. nnU-Net's regions, such as ``{"whole tumour":
    [1, 2], "core": 2}``, become regions of labels that are named after their values. Without names, a label is named
    after its value.

    nnU-Net's label ``ignore`` is left out if no case has it.

    Raises:
        InputError: a label map has a value without a name, in a data set that names others, or voxels to ignore; or a
            name cannot be that of a label.
    """
    found = sorted({value for fact in facts for value in fact.values})
    regions = {name: values for name, values in regions_in_list(dataset_dir).items() if name != IGNORE}
    named = names_in_list(dataset_dir)
    if ignored := [value for value, name in named.items() if name == IGNORE and value in found]:
        raise InputError(
            f"{dataset_dir / 'dataset.json'}: the label maps have the value {ignored[0]}, {IGNORE}, for voxels without "
            f"annotation, which a training here cannot leave out; give these voxels a label or 0, and remove {IGNORE!r}"
        )
    named = {value: name for value, name in named.items() if name != IGNORE}
    if regions:
        labels = {f"label {value}": value for value in sorted({v for values in regions.values() for v in values})}
        source = "labels are the values, regions those of dataset.json"
    elif named:
        labels = {name: value for value, name in sorted(named.items())}
        source = "names and values are those of dataset.json"
    else:
        labels = {f"label {value}": value for value in found}
        source = "the values of the label maps; dataset.json names none"
    try:
        check_labels(labels)
    except InputError as error:
        raise InputError(f"{dataset_dir / 'dataset.json'}: {error}") from error
    unnamed = [value for value in found if value not in labels.values()]
    if unnamed:
        raise InputError(
            f"{dataset_dir / 'dataset.json'}: the label maps have the values {', '.join(map(str, found))}, but labels "
            f"are {', '.join(f'{name} {value}' for name, value in labels.items())}; name "
            f"{', '.join(map(str, unnamed))} in 'labels' too"
        )
    absent = [name for name, value in labels.items() if value not in found]
    if absent:
        source += f"; no training case has {', '.join(absent)}"
    number = {value: name for name, value in labels.items()}
    return labels, {name: [number[value] for value in values] for name, values in regions.items()}, source


def name_channels(dataset_dir: Path, case: dict[str, Any], count: int) -> list[str]:
    """Return the names of the channels: those of ``dataset.json``, or names from their numbers.

    Args:
        dataset_dir: folder of the data set.
        case: a case, for messages.
        count: number of channels of this case.

    Raises:
        InputError: the data set names another number of channels.
    """
    named = named_channels(*description_of(dataset_dir))
    if named and len(named) != count:
        raise InputError(
            f"{dataset_dir / 'dataset.json'}: names {len(named)} channels ({', '.join(named)}), but case "
            f"{case['case']} has {count}; correct the list"
        )
    return named or (["image"] if count == 1 else [f"channel {number}" for number in range(count)])
