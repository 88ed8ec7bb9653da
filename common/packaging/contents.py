"""Read a bundle, its weights and an overlay (first stage of packing) into what the stages pass on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..engines.checkpoints import read_weights
from ..errors import InputError
from ..files import read_json
from ..overlays import known_settings
from ..record import RunRecord, record_of, record_path
from ..reporting import mean_scores, named_class_scores, read_case_scores, read_class_scores, scores_file
from ..rules import check_setting
from .checksums import LIST

META = "_meta_::"  # before the keys of an overlay that change metadata.json; a run reads only the object "_meta_"
CARD = "docs/README.md"
DATA_LICENSE = "docs/data_license.txt"
TEXTS = ("LICENSE", CARD, DATA_LICENSE, "configs/logging.conf")
CONFIGS = ("metadata.json", "train.json", "inference.json", "demo.json")


@dataclass(frozen=True)
class Contents:
    """Hold what goes into a package.

    Args:
        bundle: folder of the bundle. Only ``read_contents`` reads files there.
        configs: every config by its path below ``configs``, without the metadata.
        metadata: content of ``metadata.json``.
        files: content of every other file by its path in the package.
        weights: file of the weights. Training may have left further files beside it.
        state: flat state dict of the network.
        record: record of the training beside the weights, or None.
        changes: settings of an overlay; ``"_meta_::KEY"`` changes the metadata.
        scores: evaluation of the weights, or None.
        eval_metrics: mean score by name, from that folder.
        phantom: config of the phantom on which the package is tried.
        trial: settings with which the package is tried: the coarse grid of its demo.
        own_transforms: whether ``normalize`` differs from the bundle's, as in a plan.
        scripted_config: ``inference.json`` that goes into the scripted network.
        wheel: wheel with the code of a package without code of its own, or None.
        large_files: URL of the folder that has the large files, if the zip lacks them, or None.
    """

    bundle: Path
    configs: dict[str, dict[str, Any]]
    metadata: dict[str, Any]
    files: dict[str, bytes]
    weights: Path
    state: dict[str, torch.Tensor]
    record: RunRecord | None
    changes: dict[str, Any]
    scores: Path | None
    eval_metrics: dict[str, float | None]
    phantom: dict[str, Any]
    trial: dict[str, Any] = field(default_factory=dict)
    own_transforms: bool = False
    scripted_config: dict[str, Any] = field(default_factory=dict)
    wheel: bytes | None = None
    large_files: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the bundle and of the package's folder."""
        return self.bundle.name

    @property
    def version(self) -> str:
        """Return the version in the metadata, such as ``"0.2.0"``."""
        return self.metadata["version"]

    @property
    def inference(self) -> dict[str, Any]:
        """Return ``inference.json``."""
        return self.configs["inference.json"]

    @property
    def requirements(self) -> dict[str, str]:
        """Return the packages that the code needs, each with the version in the metadata."""
        return {
            "monai": self.metadata["monai_version"],
            "torch": self.metadata["pytorch_version"],
            "numpy": self.metadata["numpy_version"],
            **self.metadata["required_packages_version"],
        }

    @property
    def record_file(self) -> Path:
        """Return the path of the record beside the weights."""
        return record_path(self.weights)


def read_contents(
    bundle: Path, weights: Path | None = None, overlay: Path | None = None, scores: Path | None = None
) -> Contents:
    """Read all that packing needs, and write nothing.

    Args:
        bundle: folder of the bundle.
        weights: flat state dict; None takes the bundle's ``models/model.pt``.
        overlay: JSON file of settings, or None.
        scores: evaluation of these weights, as for :func:`common.reporting.scores_file`, or None.

    Raises:
        InputError: a file is missing or not readable, or the overlay has an unknown setting.
    """
    if (bundle / LIST).exists():
        raise InputError(f"{bundle}: this is a package already; give the folder of the bundle that it was made from")
    for name in (*TEXTS, *(f"configs/{name}" for name in CONFIGS)):
        if not (bundle / name).is_file():
            raise InputError(f"{bundle / name}: no such file; every bundle has one")
    folder = bundle / "configs"
    configs = {path.relative_to(folder).as_posix(): read_json(path) for path in sorted(folder.rglob("*.json"))}
    metadata = configs.pop("metadata.json")
    changes = {} if overlay is None else _read_overlay(overlay, bundle, metadata)
    weights = bundle / "models" / "model.pt" if weights is None else weights
    if not weights.is_file():
        found = "a folder" if weights.is_dir() else "no such file"
        raise InputError(f"{weights}: {found}; train the bundle, or give --weights FILE, such as a training's model.pt")
    state = read_weights(weights)
    files = {name: (bundle / name).read_text(encoding="utf-8").encode() for name in TEXTS}
    record = record_of(weights)
    if record is not None:
        files["models/run.json"] = record_path(weights).read_bytes()
    return Contents(
        bundle=bundle,
        configs=configs,
        metadata=metadata,
        files=files,
        weights=weights,
        state=state,
        record=record,
        changes=changes,
        scores=scores,
        eval_metrics={} if scores is None else _read_eval_metrics(scores),
        phantom=configs["demo.json"]["phantom"],
    )


def _read_overlay(path: Path, bundle: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an overlay file, of which each must be known to a config or to the metadata."""
    overlay = read_json(path)
    if not isinstance(overlay, dict) or not isinstance(overlay.get("_meta_", {}), dict):
        raise InputError(f"{path}: expected a JSON object of settings and values, with an object under '_meta_'")
    overlay |= {f"{META}{key}": value for key, value in overlay.pop("_meta_", {}).items()}
    known = known_settings(bundle / "configs")
    for key in overlay:
        if key.startswith(META):
            check_setting(key.removeprefix(META), metadata, f"metadata.json, in {path}")
        elif not key.startswith("_"):  # a note otherwise
            check_setting(key, known, f"{bundle.name}, in {path}")
    return overlay


def _read_eval_metrics(scores: Path) -> dict[str, float | None]:
    metrics, file = mean_scores(read_case_scores(scores)), scores_file(scores)
    if (of_classes := file.with_name("class_scores.csv")).exists():
        metrics |= named_class_scores(read_class_scores(of_classes))
    if not metrics:
        raise InputError(f"{file}: no scores; expected one column for each score")
    return {name: None if math.isnan(value) else round(value, 6) for name, value in metrics.items()}
