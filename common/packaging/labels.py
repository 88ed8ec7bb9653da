"""Check that metadata, network and scores of a package agree with its labels."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..errors import InputError, root_cause
from ..labels import channel_def, check_agreement, check_labels, class_regions, has_background, shown_labels

DESCRIPTION = ("name", "task", "description")  # entries of the metadata that name the labels

logger = logging.getLogger(__name__)


def relabelled(
    own_metadata: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    described: Collection[str] = (),
) -> dict[str, Any]:
    """Return metadata that describe the labels and classes of a package, if these differ from its bundle's.

    Output channels of the network, names and range of the label map's values, and names of scores change.

    Args:
        own_metadata: content of the bundle's ``metadata.json``.
        before: the bundle's ``inference.json``.
        after: the package's ``inference.json``.
        described: entries of the metadata that the overlay sets.

    Raises:
        InputError: labels or regions of the package are not valid.
    """
    metadata = copy.deepcopy(dict(own_metadata))
    labels, own = check_labels(after["labels"]), before["labels"]
    regions, own_regions = class_regions(labels, after["regions"]), class_regions(own, before["regions"])
    if list(regions) != list(own_regions):
        metadata["eval_metrics"] = {
            name: None for score in metadata["eval_metrics"] for name in _renamed(score, [*own_regions], [*regions])
        }
    formats = metadata["network_data_format"]
    _describe_classes(metadata, _classes(before), _classes(after))
    if labels == own:
        return metadata
    formats["post_processed_outputs"]["pred"] |= {
        "channel_def": channel_def(labels),
        "value_range": [0, max(labels.values())],
    }
    formats["outputs"]["pred"]["num_channels"] += len(labels) - len(own)
    metadata["label_classes"] = f"{shown_labels(labels)}, 0 everything else"
    metadata["pred_classes"] = f"output of the network for {', '.join(labels)}"
    if missing := [f'"_meta_::{key}"' for key in DESCRIPTION if key not in described]:
        logger.warning(
            "labels are %s, the bundle's are %s; set %s in the overlay, which are the bundle's in the metadata",
            shown_labels(labels),
            shown_labels(own),
            ", ".join(missing),
        )
    return metadata


def _classes(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that the network of a config predicts for a case."""
    return [] if config.get("task") == "seg" else list(config.get("classes", []))


def _describe_classes(metadata: dict[str, Any], before: Sequence[str], after: Sequence[str]) -> None:
    if list(after) == list(before):
        return
    formats = metadata["network_data_format"]
    formats["outputs"]["pred"]["num_channels"] += len(after) - len(before)
    result = formats["post_processed_outputs"].pop("result")
    if after:
        names = {str(number): name for number, name in enumerate(after)}
        formats["post_processed_outputs"]["result"] = {**result, "num_channels": len(after), "channel_def": names}
    scores = metadata["eval_metrics"].items()
    metadata["eval_metrics"] = {name: value for name, value in scores if not name.startswith("class ")}


def check_package_labels(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Check that labels, regions, network, segments and metadata of a package agree.

    Args:
        config: ``inference.json`` of the package, before its code is renamed.
        metadata: metadata of the package.

    Raises:
        InputError: two of them do not agree; the message has both values.
    """
    parser = ConfigParser(dict(config))
    written = metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"]
    try:
        width = None
        if "out_channels" in config["network_def"]:
            width = parser.get_parsed_content("network_def::out_channels")
        background = has_background(config["postprocessing"])
        check_agreement(config["labels"], config["regions"], config["segments"], width, written, background)
        for index, step in enumerate(config["postprocessing"]["transforms"]):
            id = f"postprocessing::transforms::{index}"
            if step.get("labels") == "@labels" and "segments" not in step:
                parser.get_parsed_content(id)  # raises if the method has another number of labels
            values = parser.get_parsed_content(f"{id}::values") if "values" in step else None
            if values is not None and list(values) != list(config["labels"].values()):
                raise InputError(
                    f"label_code {config['label_code']} writes the values {', '.join(map(str, values))}, but labels "
                    f"are {shown_labels(config['labels'])}; set these values in labels, and label_code to null"
                )
    except Exception as error:
        raise root_cause(error) from error


def check_scored_regions(file: Path, scores: Sequence[str], config: Mapping[str, Any]) -> None:
    """Check that an evaluation scored the regions of a package.

    Raises:
        InputError: a region has no column.
    """
    for region in class_regions(config["labels"], config["regions"]):
        if not any(name.endswith(f" {region}") for name in scores):
            raise InputError(
                f"{file}: no score for region {region}; found {', '.join(scores)}; the package's regions are "
                f"{', '.join(class_regions(config['labels'], config['regions']))}; give an evaluation of these weights"
            )


def labels_table(config: Mapping[str, Any]) -> str:
    """Return the values of the label map and their names as a Markdown table."""
    rows = "\n".join(f"| {value} | {name} |" for name, value in config["labels"].items())
    return f"| value in the label map | label |\n|---|---|\n| 0 | background |\n{rows}"


def _renamed(score: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the names of a score for the new regions in place of the first old region, and none for the others."""
    for index, region in enumerate(before):
        if score.endswith(f" {region}"):
            return [f"{score.removesuffix(region)}{name}" for name in after] if index == 0 else []
    return [score]
