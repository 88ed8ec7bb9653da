"""A bundle's folder: versions that it was tested with, its network and weights, its configs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from packaging.version import Version

from ..engines import load_weights
from ..errors import InputError, root_cause
from ..files import read_json
from .findings import Findings
from .machine import installed

DISTRIBUTIONS = {"pytorch": "torch"}  # as metadata.json calls it


def read_config(
    folder: Path, name: str, overlay: str | Path | None = None, dataset_dir: str | Path | None = None
) -> ConfigParser:
    """A config of a bundle with an overlay on it, as a run merges them, and paths that hold from anywhere.

    Of an overlay, settings within an entry that this config does not have are left out: they are of another.

    Raises:
        InputError: a file is missing or is no config.
    """
    parser = ConfigParser()
    file = folder / "configs" / f"{name}.json"
    try:
        parser.read_config(str(file))
        settings = {}
        if overlay is not None:
            file = Path(overlay)
            settings = ConfigParser.load_config_file(str(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not there or not a config ({error})") from error
    own = set(parser.get())
    for key, value in settings.items():
        root = re.split("::|#", key.lstrip("+"))[0]
        if root in own or root == key:
            merge_kv(parser, key, value)
    parser["bundle_root"] = str(folder)
    if dataset_dir is not None:
        parser["dataset_dir"] = str(dataset_dir)
    return parser


def examine_bundle(findings: Findings, folder: Path, overlay: str | Path | None = None) -> list[str]:
    """The versions in ``metadata.json``, the network of ``inference.json`` and ``models/model.pt``.

    Another version than the tested one is a note, a missing package a failure. Missing weights are a note, because a
    training makes them; weights that do not load strictly are a failure.

    Returns:
        lines to show.
    """
    about = read_json(folder / "configs" / "metadata.json")
    _versions(findings, about)
    lines = [f"{about.get('name', folder.name)}, version {about.get('version')}"]
    parser = read_config(folder, "inference", overlay)
    try:
        network = parser.get_parsed_content("network_def")
    except Exception as error:
        findings.fail("network_def", f"cannot be built: {why(error)}")
        return lines
    count = sum(parameter.numel() for parameter in network.parameters())
    weights = folder / "models" / "model.pt"
    lines.append(f"network: {type(network).__name__}, {count:,} parameters")
    if not weights.exists():
        findings.note("weights", f"no {weights}: train first, or give inference the file with --weights")
        return lines
    try:
        load_weights(network, weights)
        lines.append(f"weights: {weights}, load strictly")
    except InputError as error:
        findings.fail("weights", str(error))
    try:
        parser.get_parsed_content("preprocessing")
    except Exception as error:
        findings.fail("preprocessing", why(error))
    return lines


def why(error: Exception) -> str:
    """An input error as it is, any other with its type, in one line."""
    cause = root_cause(error)
    text = str(cause).strip().partition("\n")[0]
    return text if isinstance(cause, InputError) else f"{type(cause).__name__}: {text}"


def _versions(findings: Findings, about: dict[str, Any]) -> None:
    base = {key: about[f"{key}_version"] for key in ("monai", "pytorch", "numpy") if f"{key}_version" in about}
    for needed, group in (
        (True, {**base, **about.get("required_packages_version", {})}),
        (False, about.get("optional_packages_version", {})),
    ):
        for name, tested in group.items():
            name = DISTRIBUTIONS.get(name, name)
            version = installed(name)
            if version is None and needed:
                findings.fail(f"package {name}", f"not installed, the bundle needs it; pip install {name}=={tested}")
            elif version is None:
                findings.note(f"package {name}", f"not installed; the bundle can use {tested}")
            elif Version(version) != Version(tested):
                findings.note(f"package {name}", f"{version} is installed, the bundle was tested with {tested}")
