"""Check and convert the labels of a bundle: names, values, unions (regions), and the values in a file.

``labels`` maps names to the values in label maps on disk. Inside a network, the class of a label is its position in
``labels``, from 1; class 0 is the background.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .label_names import BACKGROUND, as_integer, name_words, names_in_list

logger = logging.getLogger(__name__)

UNUSED = "unused"  # name of a value in metadata.json
LARGEST_VALUE = 254  # label maps have 8 bits, and resampling marks undecided voxels with 255
LONGEST_NAME = 64  # characters, the limit of a name in DICOM
SHOWN = 6  # largest number of values in a message
EXAMPLE = 'such as --label_map "{1: 1, 2: 1}"'
TISSUE = {key: ["85756007", "SCT", "Tissue"] for key in ("category", "type")}  # codes of a label without its own


def check_labels(labels: Any, count: int | None = None) -> dict[str, int]:
    """Check the setting ``labels`` and return it as a plain dictionary.

    Args:
        labels: mapping from names to values, without the background.
        count: number of labels that the method segments; None for any number.

    Raises:
        InputError: ``labels`` is not a mapping; a name is empty or occurs twice; a value is not an integer from 1 to
            254 or occurs twice; or the number of labels is not ``count``.
    """
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(f"labels: {labels!r}; expected names and values, such as {{'liver': 1, 'tumour': 2}}")
    for name, value in labels.items():
        if not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME or name_words(name) == {BACKGROUND}:
            raise InputError(f"labels: {name!r}; expected a name of 1 to {LONGEST_NAME} characters, not the background")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_VALUE:
            raise InputError(
                f"labels: {name} is {value!r}; expected a whole number from 1 to {LARGEST_VALUE} "
                "(a union of labels is a region, in `regions`)"
            )
    names, values = [name.strip().lower() for name in labels], list(labels.values())
    if len(set(names)) < len(names) or len(set(values)) < len(values):
        raise InputError(f"labels: {dict(labels)}; expected different names and different values")
    if count is not None and len(labels) != count:
        raise InputError(f"labels: {len(labels)} labels ({shown_labels(labels)}); {_fix_of_count(labels, count)}")
    return dict(labels)


def shown_labels(labels: Mapping[str, int]) -> str:
    """Return the labels as text for a message, such as ``liver 1, tumour 2``."""
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _fix_of_count(labels: Mapping[str, int], count: int) -> str:
    """Return how to reach the number of labels that a method segments, for a message."""
    if count > 1:
        return f"this method nests its tasks for exactly {count} labels; keep their number and order, names may change"
    name = " and ".join(labels)[:LONGEST_NAME].strip()
    merged = ", ".join(f"{value}: 1" for value in labels.values())
    return f'this network segments one; merge them: --labels "{{\'{name}\': 1}}" --label_map "{{{merged}}}"'


def class_regions(labels: Mapping[str, int], regions: Mapping[str, Sequence] | None = None) -> dict[str, list[int]]:
    """Return the classes of each region.

    Args:
        labels: mapping from names to values.
        regions: mapping from names to lists of label names or values; without it, each label is a region.

    Raises:
        InputError: a region is empty, or has a label that ``labels`` does not have.
    """
    classes: dict[Any, int] = {}
    for number, (name, value) in enumerate(check_labels(labels).items(), start=1):
        classes[name] = classes[value] = number
    if not regions:
        return {name: [classes[name]] for name in labels}
    for region, parts in regions.items():
        if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
            raise InputError(f"regions: {region} is {parts!r}; expected a list out of {shown_labels(labels)}")
        for part in parts:
            if isinstance(part, bool) or part not in classes:
                near = difflib.get_close_matches(str(part), labels, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"regions: {region} has {part!r}, but labels are {shown_labels(labels)}{hint}")
    return {region: [classes[part] for part in parts] for region, parts in regions.items()}


def channel_def(labels: Mapping[str, int]) -> dict[str, str]:
    """Return the name of each value of a label map, in the form of ``channel_def`` in ``metadata.json``."""
    names = {0: BACKGROUND, **{value: name for name, value in labels.items()}}
    return {str(value): names.get(value, UNUSED) for value in range(max(names) + 1)}


def check_agreement(
    labels: Mapping[str, int],
    regions: Mapping[str, Sequence],
    segments: Any,
    out_channels: int | None,
    channels: Mapping[str, str] | None,
    background: bool = True,
) -> None:
    """Check that the settings and the metadata of a bundle agree on its labels.

    Args:
        labels: mapping from names to values.
        regions: mapping from names to lists of labels.
        segments: codes of a DICOM segmentation, by label name.
        out_channels: number of maps of the network; None if it is not a setting.
        channels: ``channel_def`` of the label map in ``metadata.json``; None skips this check.
        background: whether the network has a map of the background.

    Raises:
        InputError: an entry does not agree; the message has both values.
    """
    class_regions(labels, regions)
    segments_of_labels(labels, segments)
    if out_channels not in (None, background + len(labels)):
        raise InputError(
            f"network_def::out_channels is {out_channels}, but labels are {shown_labels(labels)}: expected "
            f"{background + len(labels)}, the background {'included' if background else 'left out'}; name every class "
            "of the network in `labels`"
        )
    if channels is None:
        return
    found = {name: int(value) for value, name in channels.items() if name not in (BACKGROUND, UNUSED)}
    if found != dict(labels) or channels.get("0") != BACKGROUND:
        raise InputError(
            f"channel_def of the label map in metadata.json is {', '.join(f'{v} {k}' for v, k in channels.items())}, "
            f"but labels are {shown_labels(labels)}; give both the same names and values"
        )


def has_background(postprocessing: Mapping[str, Any]) -> bool:
    """Return whether the network of a config has a map of the background, so that no transform adds one.

    Args:
        postprocessing: ``postprocessing`` of ``inference.json``.
    """
    return not any(step["_target_"].endswith(".AddBackgroundd") for step in postprocessing["transforms"])


def read_label_map(label_map: Any, labels: Mapping[str, int]) -> dict[int, int]:
    """Read the setting ``label_map``, which maps values in a file to values of ``labels``, or to 0, the background.

    Args:
        label_map: mapping, or list of pairs; the keys may be text, as in JSON. Values without an entry stay as they
            are.
        labels: mapping from names to values.

    Raises:
        InputError: ``label_map`` has another form; a value is not an integer; one value is mapped to two; 0 is mapped
            to a label; ``labels`` does not have a result; or no value is left for a label.
    """
    pairs = list(label_map.items()) if isinstance(label_map, Mapping) else label_map
    if isinstance(pairs, str) or not isinstance(pairs, Sequence) or any(not _is_pair(pair) for pair in pairs):
        raise InputError(f"label_map: {label_map!r}; expected values in the file and values of `labels`, {EXAMPLE}")
    mapped: dict[int, int] = {}
    for pair in pairs:
        source, result = map(as_integer, pair)
        if source is None or result is None:
            raise InputError(f"label_map: {pair[0]!r} to {pair[1]!r}; expected whole numbers, {EXAMPLE}")
        if mapped.setdefault(source, result) != result:
            raise InputError(f"label_map: {source} to {mapped[source]} and to {result}; expected one value")
        if result not in (0, *labels.values()) or (source == 0 and result):
            raise InputError(
                f"label_map: {source} to {result}; expected 0 to stay 0, and others to become one of "
                f"{shown_labels(labels)} or 0, the background"
            )
    for name, value in labels.items():
        if value in mapped and value not in mapped.values():
            raise InputError(
                f"label_map: {value} to {mapped[value]}, so that nothing is left for {name} {value} of `labels`; give "
                'each label a value of the file, or --label_map "{}" where the file has the values of `labels`'
            )
    return mapped


def classes_of_values(labels: Mapping[str, int], label_map: Mapping[int, int]) -> dict[int, int]:
    """Return the class of each value that a file may contain, the background included."""
    classes = {value: number for number, value in enumerate((0, *labels.values()))}
    kept = {value: number for value, number in classes.items() if value not in label_map}
    return kept | {source: classes[result] for source, result in label_map.items()}


def suggest_label_map(found: Sequence[float], labels: Mapping[str, int], label_map: Mapping[int, int]) -> str:
    """Return the option ``--label_map`` that gives each unknown value a label, as the end of a message."""
    values = [int(value) for value in found if math.isfinite(value) and value == int(value)]
    known = {**{value: value for value in labels.values()}, **label_map}
    if max(len(found), len(labels)) > SHOWN or len(values) < len(found):
        return "; write the label map with whole numbers, one for each label"
    rest = next(iter(labels.values())) if len(labels) == 1 else 0
    pairs = ", ".join(f"{value}: {known.get(value, rest)}" for value in sorted({*values, *label_map}))
    return f'; map them with --label_map "{{{pairs}}}" (to {shown_labels(labels)} or 0, the background)'


def warn_of_other_names(dataset_dir: str | Path, labels: Mapping[str, int], label_map: Mapping[int, int]) -> None:
    """Log a warning if the data list gives other names to its label values than the bundle."""
    found = names_in_list(dataset_dir)
    names = {value: name for name, value in labels.items()}
    other = []
    for value in dict.fromkeys(label_map.get(value, value) for value in found):
        merged = {v: name for v, name in found.items() if label_map.get(v, v) == value}
        if value != 0 and not any(_alike(name, names.get(value, "")) for name in merged.values()):
            there = ", ".join(f"{v} {name}" for v, name in merged.items())
            other.append(f"{there} where `labels` has {names.get(value, 'nothing')}")
    if other:
        logger.warning(
            "%s: its labels are not those of this bundle: %s; for other structures, set --labels and --label_map",
            Path(dataset_dir) / "dataset.json",
            "; ".join(other),
        )


def segments_of_labels(labels: Mapping[str, int], segments: Any) -> dict[str, Mapping[str, Any]]:
    """Return the codes of each label for a DICOM segmentation, in the order of the labels.

    Args:
        labels: mapping from names to values.
        segments: mapping from names to codes. A label without an entry gets the codes of any tissue, so that it is not
            taken for another structure.

    Raises:
        InputError: ``segments`` is not a mapping from names to mappings, or it has a name that ``labels`` does not
            have. The codes then belong to the labels of another bundle.
    """
    if not isinstance(segments, Mapping) or not all(isinstance(codes, Mapping) for codes in segments.values()):
        raise InputError(
            f"segments: {segments!r}; expected codes by the names of `labels` ({shown_labels(labels)}), such as "
            f"{{{next(iter(labels))!r}: {TISSUE}}}"
        )
    unknown = [name for name in segments if name not in labels]
    if unknown:
        raise InputError(
            f"segments: codes for {', '.join(unknown)}, but labels are {shown_labels(labels)}; give the codes of these "
            'labels, or --segments "{}" for codes that say "tissue" alone'
        )
    return {name: segments.get(name, TISSUE) for name in labels}


def _alike(one: str, other: str) -> bool:
    """Return whether one name contains all words of the other, such as ``tumour`` and ``liver_tumor``."""
    a, b = name_words(one), name_words(other)
    return bool(a and b) and (a <= b or b <= a)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
