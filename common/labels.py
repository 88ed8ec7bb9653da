"""The labels of a bundle: their names and values, regions of them, and what the values in a file mean.

``labels`` maps names to the values that label maps on disk hold. The class of a label inside a network is its position
in ``labels``, from 1; class 0 is the background.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json

logger = logging.getLogger(__name__)

BACKGROUND, UNUSED = "background", "unused"  # names of values in metadata.json
LARGEST_VALUE = 254  # label maps have 8 bits, and 255 marks places in between
LONGEST_NAME = 64  # characters of a name in DICOM
SHOWN = 6  # values that a message lists
EXAMPLE = 'such as --label_map "{1: 1, 2: 1}"'
TISSUE = {key: ["85756007", "SCT", "Tissue"] for key in ("category", "type")}  # codes of a label that has none
SPELLINGS = {"tumor": "tumour", "tumors": "tumour", "tumours": "tumour", "cancer": "tumour", "edema": "oedema"}


def check_labels(labels: Any, count: int | None = None) -> dict[str, int]:
    """Check the setting ``labels``.

    Args:
        labels: names to values, without the background.
        count: number of labels that the method segments; None for any.

    Returns:
        the labels as they are, of plain integers.

    Raises:
        InputError: no mapping, an empty or a double name, a value that is no integer from 1 to 254 or there twice,
            another number of labels than ``count``.
    """
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(f"labels: {labels!r}; expected names and values, such as {{'liver': 1, 'tumour': 2}}")
    for name, value in labels.items():
        if not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME or _words(name) == {BACKGROUND}:
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
        raise InputError(f"labels: {len(labels)} of them ({shown_labels(labels)}); {_only(labels, count)}")
    return dict(labels)


def shown_labels(labels: Mapping[str, int]) -> str:
    """Return the labels as a message lists them: ``liver 1, tumour 2``."""
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _only(labels: Mapping[str, int], count: int) -> str:
    if count > 1:
        return f"this method nests its tasks for exactly {count} labels; rename them, but keep their number and order"
    name = " and ".join(labels)[:LONGEST_NAME].strip()
    merged = ", ".join(f"{value}: 1" for value in labels.values())
    return f'this network segments one; merge them: --labels "{{\'{name}\': 1}}" --label_map "{{{merged}}}"'


def class_regions(labels: Mapping[str, int], regions: Mapping[str, Sequence] | None = None) -> dict[str, list[int]]:
    """Return the classes of each region that is scored.

    Args:
        labels: names to values.
        regions: names to lists of label names or values; without any, each label is a region.

    Raises:
        InputError: a region without labels, or with one that ``labels`` does not have.
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
    """Return what each value of a label map is called, as ``metadata.json`` has it."""
    names = {0: BACKGROUND, **{value: name for name, value in labels.items()}}
    return {str(value): names.get(value, UNUSED) for value in range(max(names) + 1)}


def check_agreement(
    labels: Mapping[str, int],
    regions: Mapping[str, Sequence],
    segments: Any,
    out_channels: int | None,
    channels: Mapping[str, str] | None,
) -> None:
    """Check that everything in a bundle speaks of the same labels.

    Args:
        labels: names to values.
        regions: names to labels.
        segments: codes of a DICOM segmentation.
        out_channels: width of the network, the background included; None where it is no setting.
        channels: the ``channel_def`` of the label map in ``metadata.json``; None to leave it out.

    Raises:
        InputError: the first that does not agree, with both values.
    """
    class_regions(labels, regions)
    segments_of_labels(labels, segments)
    if out_channels not in (None, 1 + len(labels)):
        raise InputError(
            f"network_def::out_channels is {out_channels}, but labels are {shown_labels(labels)}: expected "
            f"{1 + len(labels)}, the background included; name every class of the network in `labels`"
        )
    if channels is None:
        return
    found = {name: int(value) for value, name in channels.items() if name not in (BACKGROUND, UNUSED)}
    if found != dict(labels) or channels.get("0") != BACKGROUND:
        raise InputError(
            f"channel_def of the label map in metadata.json is {', '.join(f'{v} {k}' for v, k in channels.items())}, "
            f"but labels are {shown_labels(labels)}; give both the same names and values"
        )


def read_label_map(label_map: Any, labels: Mapping[str, int]) -> dict[int, int]:
    """Read the setting ``label_map``: values in a file to values of ``labels``, or to 0 for the background.

    Args:
        label_map: an object, the keys of which JSON makes texts, or a list of pairs. A value that it does not name
            stays what it is; an empty one changes nothing.
        labels: names to values.

    Raises:
        InputError: another form, a value that is no integer, two values for one, another value for the background, a
            result that ``labels`` does not have, or a label that nothing would be mapped to any more.
    """
    pairs = list(label_map.items()) if isinstance(label_map, Mapping) else label_map
    if isinstance(pairs, str) or not isinstance(pairs, Sequence) or any(not _is_pair(pair) for pair in pairs):
        raise InputError(f"label_map: {label_map!r}; expected values in the file and values of `labels`, {EXAMPLE}")
    mapped: dict[int, int] = {}
    for pair in pairs:
        source, result = map(_integer, pair)
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
    """Return the class of each value that a file may hold, 0 for the background among them."""
    classes = {value: number for number, value in enumerate((0, *labels.values()))}
    kept = {value: number for value, number in classes.items() if value not in label_map}
    return kept | {source: classes[result] for source, result in label_map.items()}


def map_to_type(found: Sequence[float], labels: Mapping[str, int], label_map: Mapping[int, int]) -> str:
    """Return what a message says of values that no label has: the option that gives each of them one."""
    values = [int(value) for value in found if math.isfinite(value) and value == int(value)]
    known = {**{value: value for value in labels.values()}, **label_map}
    if len(found) > SHOWN or len(values) < len(found):
        return "; write the label map with whole numbers, one for each label"
    rest = next(iter(labels.values())) if len(labels) == 1 else 0
    pairs = ", ".join(f"{value}: {known.get(value, rest)}" for value in sorted({*values, *label_map}))
    return f'; map them with --label_map "{{{pairs}}}" (to {shown_labels(labels)} or 0, the background)'


def warn_of_other_names(dataset_dir: str | Path, labels: Mapping[str, int], label_map: Mapping[int, int]) -> None:
    """Log one warning where the data list names its labels, and other things by a value than the bundle does."""
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
            "%s: its labels are not those of this bundle: %s; if they are others, set --labels and --label_map",
            Path(dataset_dir) / "dataset.json",
            "; ".join(other),
        )


def segments_of_labels(labels: Mapping[str, int], segments: Any) -> dict[str, Mapping[str, Any]]:
    """Return the codes of each label for a DICOM segmentation, in the order of the labels.

    Args:
        labels: names to values.
        segments: names to codes; a label without an entry gets those for any tissue, so that it never passes for
            another structure.

    Raises:
        InputError: no mapping of names to mappings, or an entry for a name that ``labels`` does not have: its codes,
            and perhaps those of its neighbours, are of another bundle's labels.
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


def names_in_list(dataset_dir: str | Path) -> dict[int, str]:
    """Return the values and names that ``dataset_dir/dataset.json`` says of labels, without the background.

    Its ``labels`` may go from values to names, from names to values, or be a list of names. Without such a file, or
    with one of another form, there are none: reading the cases reports what is wrong with it.
    """
    try:
        listing = read_json(Path(dataset_dir) / "dataset.json")
    except InputError:
        return {}
    return _named_values(listing.get("labels")) if isinstance(listing, dict) else {}


def _named_values(named: Any) -> dict[int, str]:
    """Values and names of a data list's ``labels``: value to name, name to value or to values, or a list of names."""
    if isinstance(named, list):
        named = dict(enumerate(named))
    found: dict[int, str] = {}
    for key, entry in named.items() if isinstance(named, dict) else ():
        for value, name in ((key, entry), (entry, key)):
            if (whole := _integer(value)) is not None and isinstance(name, str) and _words(name):
                found.setdefault(whole, name)
                break
    return {value: name for value, name in found.items() if value and _words(name) != {BACKGROUND}}


def _alike(one: str, other: str) -> bool:
    """Whether all words of one name are in the other: ``tumour`` and ``liver_tumor``."""
    a, b = _words(one), _words(other)
    return bool(a and b) and (a <= b or b <= a)


def _words(name: str) -> set[str]:
    return {SPELLINGS.get(word, word) for word in re.split(r"[\s_,;/]+", name.strip().lower()) if word}


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2


def _integer(value: Any) -> int | None:
    """A whole number, which JSON's keys hold as a text."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value)
