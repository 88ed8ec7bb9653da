"""Describe the input of a package's network in its metadata: channels, kind of scan and range of values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

# The checks of an image as loaded, and the kind of scan that each of them expects, in the words of MONAI's metadata.
CHECKS = {"CheckHounsfieldd": "CT", "CheckMRId": "MR"}
FORMATS = {"CT": "hounsfield", "MR": "magnitude"}


def described_input(own_metadata: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict:
    """Return metadata that describe the input of a package, if its settings differ from its bundle's.

    Names and number of channels, kind of scan and range of values change.

    Args:
        own_metadata: content of the bundle's ``metadata.json``.
        before: the bundle's ``inference.json``.
        after: the package's ``inference.json``.
    """
    metadata = copy.deepcopy(dict(own_metadata))
    image = metadata["network_data_format"]["inputs"]["image"]
    names = input_channels(after)
    if names != input_channels(before):
        image |= {"num_channels": len(names), "channel_def": {str(i): name for i, name in enumerate(names)}}
        metadata["image_classes"] = f"{', '.join(names)}, in this order"
    image["modality"] = kind_of_scan(after)
    image["format"] = FORMATS.get(image["modality"], image["format"])
    if after.get("normalize") != before.get("normalize"):
        image["value_range"] = []
    return metadata


def input_channels(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the network's input channels: ``modalities``, or those that ``channels`` selects."""
    names = list(config["modalities"])
    if "channels" not in config:
        return names
    return [names[channel] for channel in ConfigParser(copy.deepcopy(dict(config))).get_parsed_content("channels")]


def kind_of_scan(config: Mapping[str, Any]) -> str:
    """Return ``CT`` or ``MR`` by the check of an ``inference.json``; ``n/a`` if it checks for neither."""
    steps = config["check"] if "check" in config else config["preprocessing"]["transforms"]
    kinds = [CHECKS.get(step["_target_"].rpartition(".")[2]) for step in steps]
    return next((kind for kind in kinds if kind is not None), "n/a")
