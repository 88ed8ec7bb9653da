"""A bundle's folder: versions that it was tested with, its network and weights, its configs."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from packaging.version import Version

from ..engines import load_weights
from ..errors import InputError, is_input_error, root_cause
from ..files import read_json
from ..labels import check_agreement
from ..session import literal, setting_of
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
    if not isinstance(settings, dict):
        raise InputError(f'{file}: a {type(settings).__name__}, expected an object of settings such as "spacing"')
    own = set(parser.get())
    for key, value in settings.items():
        root = setting_of(key)
        if root in own or root == key:
            merge_kv(parser, key, value)
    parser["bundle_root"] = literal(str(folder))
    if dataset_dir is not None:
        parser["dataset_dir"] = literal(str(dataset_dir))
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
    if overlay is not None:
        _overlay(findings, folder, Path(overlay))
    try:
        network = parser.get_parsed_content("network_def")
    except Exception as error:
        findings.fail("network_def", f"cannot be built: {why(error)}")
        return lines
    _labels(findings, parser, about if overlay is None else None)
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
    return text if is_input_error(cause) else f"{type(cause).__name__}: {text}"


def _versions(findings: Findings, about: dict[str, Any]) -> None:
    base = {key: about[f"{key}_version"] for key in ("monai", "pytorch", "numpy") if f"{key}_version" in about}
    for name, tested in {**base, **about.get("required_packages_version", {})}.items():
        name = DISTRIBUTIONS.get(name, name)
        version = installed(name)
        if version is None:
            findings.fail(f"package {name}", f"not installed, the bundle needs it; pip install {name}=={tested}")
        elif Version(version) != Version(tested):
            findings.note(f"package {name}", f"{version} is installed, the bundle was tested with {tested}")


def _labels(findings: Findings, parser: ConfigParser, about: dict[str, Any] | None) -> None:
    """Check that labels, regions, segments, network and, unless it is None, metadata speak of the same labels."""
    if "labels" not in parser:
        return
    try:
        width = "network_def::out_channels"
        check_agreement(
            parser.get_parsed_content("labels"),
            parser.get_parsed_content("regions"),
            parser.get_parsed_content("segments"),
            parser.get_parsed_content(width) if width in parser else None,
            None if about is None else about["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"],
        )
    except Exception as error:
        findings.fail("labels", why(error))


def _overlay(findings: Findings, folder: Path, overlay: Path) -> None:
    """An entry that no config has and that no other setting of the overlay uses is read by nothing."""
    settings = ConfigParser.load_config_file(str(overlay))
    configs = [file for file in (folder / "configs").glob("*.json") if file.name != "metadata.json"]
    known = {entry.lstrip("+") for file in configs for entry in read_json(file)}
    used = set(re.findall(r"@(\w+)", json.dumps(settings)))
    for key in settings:
        entry = setting_of(key)
        if entry not in known | used and not key.startswith("_meta_::"):
            near = difflib.get_close_matches(entry, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; leave it out"
            findings.fail("overlay", f"{overlay}: {key} is in no config of the bundle{hint}")
