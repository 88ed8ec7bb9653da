"""Plan an overlay that adapts a bundle to a data set, for training, evaluation, inference and packing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from torch import nn

from ..data import load_cases
from ..data.folders import channels_in_header
from ..data.folds import VALIDATION_SHARE
from ..data.listed_cases import all_items, read_lists
from ..errors import InputError, root_cause
from ..files import dense_json, read_json, whole_file
from ..inferers.windows import computes_bfloat16
from ..memory import device_memory
from ..overlays import known_settings
from ..rules import RULES, check_setting, setting_of
from .cases import measure_cases
from .choices import (
    LEAST_UPDATES,
    PER_HOUR,
    Choice,
    Cost,
    choose_augmentation,
    choose_intensity,
    choose_length,
    choose_patch,
    choose_spacing,
    median_shape,
)
from .cost import update_cost
from .labels import name_channels, name_labels

SHARE_OF_MEMORY = 0.5  # of the free memory, for an update
UNKNOWN_MEMORY = 8 << 30  # bytes, on a system that does not report its free memory
LEARNING_RATE, RATE_WITHOUT_NORM = 2e-3, 1e-4
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def plan_training(
    bundle: Path,
    dataset_dir: Path,
    hours: float = 1.0,
    fold: int | None = None,
    validation_share: float = VALIDATION_SHARE,
    modalities: Sequence[str] = (),
    overlay: Path | None = None,
) -> dict[str, Any]:
    """Return an overlay that adapts a bundle to the training cases of a data set.

    Args:
        bundle: folder of the bundle. Its ``configs/plan.json`` says what the method needs on other data.
        dataset_dir: folder of a data list, or of a data set in the form of nnU-Net or of the Decathlon.
        hours: time for the training on this machine.
        fold, validation_share: as for a training.
        modalities: names of the channels; without them, those of the data set.
        overlay: JSON file of settings that the plan takes over, such as another network.

    Returns:
        settings by key. ``reasons`` has the reason for each.

    Raises:
        InputError: the method does not suit the data set, or a case cannot be read.
    """
    recipe = _read_recipe(bundle)
    train = read_json(bundle / "configs" / "train.json")
    given = {} if overlay is None else _read_overlay(overlay, bundle)
    cases = load_cases(dataset_dir, "training", modalities, fold, validation_share)
    held = load_cases(dataset_dir, "validation", modalities, fold, validation_share)
    channels = list(modalities) or name_channels(dataset_dir, cases[0], _count_channels(cases[0]))
    facts = measure_cases(cases, channels)
    labels, regions, naming = name_labels(dataset_dir, facts)
    spacing, device = choose_spacing(facts), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check, intensity = choose_intensity(facts, channels)
    plan = {
        "modalities": Choice(channels, "channels of the data set, in the order of its files"),
        "labels": Choice(labels, naming),
        "regions": Choice(regions, naming),
        "label_map": Choice({}, "the label maps have the values of labels"),
        **_classes(train, cases, read_lists(dataset_dir, modalities, fold, validation_share)),
        "check": check,
        **({"spacing": Choice(spacing.value, _grid(spacing))} if "spacing" in train else {}),
        "normalize": Choice(
            [_resample("@spacing" if "spacing" in train else spacing.value), intensity.value],
            f"{_grid(spacing)}; {intensity.reason}",
        ),
        "augment": choose_augmentation(spacing.value),
        "optimizer": Choice(
            {"_target_": "torch.optim.AdamW", "_mode_": "callable", "lr": "@learning_rate", "weight_decay": 0.0001},
            "learns in fewer updates than the method's own, which is made for more cases and time",
        ),
        "lr_scheduler": Choice(
            {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_mode_": "callable", "T_max": "@max_epochs"},
            "the learning rate reaches 0 when the planned time ends",
        ),
        "learning_rate": Choice(LEARNING_RATE, "for AdamW with normalised features"),
        "amp": Choice(
            computes_bfloat16(device),
            "this machine computes bfloat16" if computes_bfloat16(device) else "this machine has no bfloat16",
        ),
        "segments": Choice({}, "codes for a DICOM segmentation: add them by label name"),
    }
    reasons = recipe.get("reasons", {})
    plan |= {key: Choice(value, reasons.get(key, "the method's")) for key, value in recipe["overlay"].items()}
    plan = {key: choice for key, choice in plan.items() if setting_of(key) not in given}
    plan |= {key: Choice(value, f"given by {overlay}") for key, value in given.items()}
    values = {key: choice.value for key, choice in plan.items()}
    run = {"bundle_root": str(bundle), "dataset_dir": str(dataset_dir), "device": str(device), "fold": fold}
    parser = ConfigParser(copy.deepcopy(train))
    for key, value in {**values, **run, "validation_share": validation_share}.items():
        merge_kv(parser, key, copy.deepcopy(value))
    network = _network(parser)
    if "learning_rate" not in given and not any(isinstance(module, NORMS) for module in network.modules()):
        plan["learning_rate"] = Choice(
            RATE_WITHOUT_NORM, "for AdamW; a network without normalisation fails at a higher"
        )
    divisors = getattr(network, "divisors", recipe.get("divisors", ()))
    patch, batch, cost = _choose_patch(parser, divisors, median_shape(facts, spacing.value), hours, device)
    chosen = {"roi_size": patch, "batch_size": batch, **choose_length(hours, cost, batch.value, len(held))}
    plan |= {key: choice for key, choice in chosen.items() if key not in given}
    return {
        **{key: choice.value for key, choice in plan.items()},
        "_meta_": _metadata(read_json(bundle / "configs" / "metadata.json"), labels, channels, len(cases)),
        "reasons": {key: choice.reason for key, choice in plan.items()},
    }


def write_plan(plan: Mapping[str, Any], out: Path) -> None:
    """Write a plan as an overlay.

    Raises:
        InputError: another file is there, which may be an edited plan.
    """
    with whole_file(out, lambda path: False) as partial:
        partial.write_text(dense_json(dict(plan)) + "\n", encoding="utf-8")


def _read_recipe(bundle: Path) -> dict[str, Any]:
    path = bundle / "configs" / "plan.json"
    if not path.is_file():
        raise InputError(
            f"{path}: no such file, so this bundle has no plan for other labels than its own; choose another bundle"
        )
    return read_json(path)


def _read_overlay(path: Path, bundle: Path) -> dict[str, Any]:
    given = read_json(path)
    if not isinstance(given, dict):
        raise InputError(f"{path}: expected a JSON object with settings, found {str(given)[:60]!r}")
    known = known_settings(bundle / "configs")
    for key, value in given.items():
        check_setting(key, known, f"{bundle.name}, in {path}")
        is_expression = isinstance(value, str) and value.startswith(("$", "@"))
        if key in RULES and not is_expression and not RULES[key].holds(value):
            raise InputError(f"{path}: {key} is {value!r}, expected {RULES[key].expected}")
    return given


def _count_channels(case: Mapping[str, Any]) -> int:
    """Return the number of channels of a case, from the number of its files or the header of its file."""
    image = case["image"]
    return len(image) if isinstance(image, list) else channels_in_header(Path(image))


def _classes(
    train: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], lists: Mapping[str, Any]
) -> dict[str, Choice]:
    """Return the classes and the task of a method that classifies; empty for another method.

    The training cases of a fold may lack a rare class, so the classes are those of all lists.
    """
    if "classes" not in train:
        return {}
    having = sum("class" in case for case in cases)
    if having < len(cases):
        return {"task": Choice("seg", f"{having} of {len(cases)} cases have a class")}
    found = [case["class"] for case in all_items(lists) if "class" in case]
    if all(isinstance(value, int) for value in found):
        classes = [f"class {number}" for number in range(max(found) + 1)]
    else:
        classes = sorted({str(value) for value in found})
    return {"task": Choice("both", "every case has a class"), "classes": Choice(classes, "classes of all listed cases")}


def _network(parser: ConfigParser) -> nn.Module:
    try:
        network = parser.get_parsed_content("network_def")
    except Exception as error:  # MONAI wraps an error of a component in several others
        raise root_cause(error) from error
    if not isinstance(network, nn.Module):
        raise InputError(f'network_def is {parser["network_def"]!r}, expected a network, {{"_target_": ...}}')
    return network


def _grid(spacing: Choice) -> str:
    return f"grid of {' x '.join(f'{size:g}' for size in spacing.value)} mm in RAS, {spacing.reason}"


def _resample(spacing: Sequence[float] | str) -> dict[str, Any]:
    return {
        "_target_": "common.transforms.ResampleAxesd", "keys": ["image", "label"], "pixdim": spacing,
        "mode": ["bilinear", "nearest"], "allow_missing_keys": True,
    }  # fmt: skip


def _choose_patch(
    parser: ConfigParser, divisors: Sequence[int], shape: np.ndarray, hours: float, device: torch.device
) -> tuple[Choice, Choice, Cost]:
    def cost(patch: list[int], batch: int) -> Cost:
        parser["roi_size"] = patch
        return update_cost(parser, patch, batch, most)

    memory = device_memory(device)
    most = int(SHARE_OF_MEMORY * (UNKNOWN_MEMORY if memory is None else memory.free))
    try:
        return choose_patch(shape, divisors, most, hours * PER_HOUR / LEAST_UPDATES, cost)
    except Exception as error:
        raise root_cause(error) from error


def _metadata(
    metadata: Mapping[str, Any], labels: Mapping[str, int], channels: Sequence[str], cases: int
) -> dict[str, Any]:
    """Return the entries of ``metadata.json`` that the data set changes, for packing."""
    method = metadata["name"].rpartition("(")[2].rstrip(")")
    names, images = ", ".join(labels), ", ".join(channels)
    task = f"Segmentation of {names} from {images}"
    return {
        "name": f"{task} ({method})",
        "task": task,
        "description": f"{method}, trained on {cases} cases with the labels {names}. Not for clinical use.",
        "changelog": {metadata["version"]: f"weights of a training on {cases} cases with the labels {names}"},
        "data_source": "the data set of the training; its terms apply",
        "image_classes": f"{images}, {len(channels)} channel{'s' if len(channels) > 1 else ''}",
    }
