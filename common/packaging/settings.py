"""Apply the settings of the training and check that everything agrees (second stage of packing)."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..errors import InputError, root_cause
from ..labels import UNUSED
from ..overlays import used_settings
from ..record import RECORD_FILE, apply_settings
from ..reporting import scores_file
from ..rules import setting_of
from ..typed_texts import literal
from .contents import DATA_LICENSE, META, Contents
from .labels import check_package_labels, check_scored_regions, relabelled
from .modalities import described_input
from .statements import with_weights

# Paths belong to a machine. An overlay changes them in a run, never in a package.
PATHS = ("bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "weights", "init_weights", "log_file")
KNOWN = "known_"  # before the name of a setting that a training takes over if it goes on from the weights
GRID = ("spacing", "in_plane", "slice_thickness")

logger = logging.getLogger(__name__)


def apply_training_settings(contents: Contents) -> Contents:
    """Return contents with configs and metadata that describe the weights.

    The settings come from the record beside the weights and from the overlay. Labels, network, metadata and scores are
    checked against each other.

    Raises:
        InputError: overlay and record contradict each other, labels and network do not agree, or the metadata have no
            valid version.
    """
    changes, default = _changes(contents), contents.inference
    inference = merged(default, changes)
    described = {key.removeprefix(META) for key in changes if key.startswith(META)}
    metadata = relabelled(contents.metadata, default, inference, described)
    metadata = described_input(metadata, default, inference)
    metadata = _changed_metadata(contents, metadata, changes)
    files = dict(contents.files)
    if metadata["data_source"] != contents.metadata["data_source"]:
        files[DATA_LICENSE] = f"Data that trained the weights: {metadata['data_source']}\n".encode()
    if contents.scores is not None:
        check_scored_regions(scores_file(contents.scores), list(contents.eval_metrics), inference)
    check_package_labels(inference, metadata)
    configs = _changed_configs(contents, changes)
    demo = contents.configs["demo.json"]
    # On the demo's coarser grid, one or two windows cover a phantom. A grid that training changed stays.
    changed = {key for key in ("normalize", *GRID) if inference.get(key) != default.get(key)}
    trial = {key: demo[key] for key in GRID if key in demo and not {key, "normalize"} & changed}
    return replace(
        contents, configs=configs, metadata=metadata, files=files, trial=trial, own_transforms="normalize" in changed
    )


def merged(config: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a config with those settings of an overlay that it has, except for paths."""
    parser = ConfigParser(copy.deepcopy(dict(config)))
    for key, value in overlay.items():
        name = setting_of(key)
        if name in config and name not in PATHS:
            merge_kv(parser, key, value)
    return parser.config


def _changes(contents: Contents) -> dict[str, Any]:
    """Return the settings of the record, and those of the overlay that do not contradict it."""
    changes, inference = contents.changes, contents.inference
    if contents.record is None:
        logger.warning(
            "%s: no %s beside it; settings and cases of the training are unknown", contents.weights, RECORD_FILE
        )
        return changes
    changed = {setting_of(key) for key in changes}
    settings = {k: v for k, v in contents.record.settings.items() if k in inference or k not in changed}
    parser = ConfigParser(merged(inference, changes))
    parser["bundle_root"] = str(contents.bundle)
    apply_settings(parser, settings, inference, (), contents.record_file, contents.configs["train.json"])
    others = {key: value for key, value in changes.items() if setting_of(key) not in inference}
    return {
        **others,
        "scans": contents.record.scans,
        **{key: parser[key] for key in inference if key in settings or key in changed},
    }


def _changed_configs(contents: Contents, changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configs with the changes, and with the values that training left in files beside the weights."""
    configs = dict(contents.configs)
    from_training = [key for key, value in contents.inference.items() if _is_from_training(key, value)]
    for name in ("inference.json", "train.json"):
        configs[name] = merged(configs[name], changes)
    parser = ConfigParser(copy.deepcopy(configs["inference.json"]))
    parser["ckpt_dir"] = literal(str(contents.weights.resolve().parent))
    used = used_settings(configs["inference.json"])
    for key in from_training:
        try:
            value = parser.get_parsed_content(key) if key in used else None
        except Exception as error:  # MONAI wraps an InputError of the expression in several others
            raise root_cause(error) from error
        for name, config in configs.items():
            if key in config and (name == "inference.json" or _is_from_training(key, config[key])):
                configs[name] = {**configs[name], key: value}
            if f"{KNOWN}{key}" in config:
                configs[name] = {**configs[name], f"{KNOWN}{key}": value}
    return configs


def _is_from_training(key: str, value: Any) -> bool:
    return key not in PATHS and "ckpt_dir" in used_settings({key: value})


def _changed_metadata(contents: Contents, metadata: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata with the overlay's changes and the scores, in the form that MONAI Label reads."""
    parser = ConfigParser(metadata)
    for key, value in changes.items():
        if key.startswith(META):
            parser[key.removeprefix(META)] = value
    metadata = parser.config
    if "roi_size" in changes:
        for tensor in ("inputs::image", "outputs::pred"):
            parser[f"network_data_format::{tensor}::spatial_shape"] = changes["roi_size"]
    # MONAI's specification puts names of channels here. MONAI Label reads names of the label map's values here.
    written = metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"]
    named = {value: name for value, name in written.items() if name != UNUSED}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = named
    source = f"{contents.bundle / 'configs' / 'metadata.json'}"
    metadata["description"] = with_weights(metadata["description"], f"{source}, description")
    metadata["changelog"] = {
        name: with_weights(text, f"{source}, changelog, {name}") for name, text in metadata["changelog"].items()
    }
    version = metadata["version"]
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"{contents.bundle}: version {version!r} in the metadata; expected text such as '0.2.0'")
    if version not in metadata["changelog"]:
        raise InputError(
            f"{contents.bundle}: version {version} is not in the changelog of the metadata; add its changes in an "
            f'overlay by "{META}changelog::{version}"'
        )
    if contents.scores is not None:
        metadata["eval_metrics"] = contents.eval_metrics
    return metadata
