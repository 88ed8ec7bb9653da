"""Examine a bundle: versions that it was tested with, its network and weights, its configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from packaging.version import Version

from ..engines import load_weights
from ..errors import InputError, is_input_error, root_cause
from ..files import read_json
from ..labels import check_agreement, has_background
from ..overlays import known_settings, used_settings
from ..rules import check_setting, setting_of
from ..typed_texts import literal
from .findings import Findings
from .machine import installed

DISTRIBUTIONS = {"pytorch": "torch"}  # name in metadata.json to name of the distribution


def read_config(
    folder: Path, name: str, overlay: str | Path | None = None, dataset_dir: str | Path | None = None
) -> ConfigParser:
    """Read a config of a bundle and an overlay, as a run merges them.

    Settings within an entry that this config lacks are left out, because they belong to another config.

    Args:
        folder: folder of the bundle.
        name: name of the config without ``.json``.
        overlay: config file on top of it, or None.
        dataset_dir: folder of the data set, or None.

    Raises:
        InputError: a file is missing or not a config.
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
        raise InputError(f"{file}: not a config that can be read ({error})") from error
    if not isinstance(settings, dict):
        raise InputError(f'{file}: a {type(settings).__name__}; expected an object of settings such as "spacing"')
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
    """Check the versions in ``metadata.json``, the network of ``inference.json`` and ``models/model.pt``.

    Another version than the tested one is a note, a missing package a failure. Missing weights are a note, because
    training writes them. Weights that do not load strictly are a failure.

    Args:
        findings: collects failures and notes.
        folder: folder of the bundle.
        overlay: config file on top of the bundle's configs, or None.

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
        findings.note("weights", f"{weights}: no such file; train first, or give inference a file with --weights")
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
    """Return one line about an error: an input error's own message, or the type and text of another error."""
    cause = root_cause(error)
    text = str(cause).strip().partition("\n")[0]
    return text if is_input_error(cause) else f"{type(cause).__name__}: {text}"


def _versions(findings: Findings, about: dict[str, Any]) -> None:
    base = {key: about[f"{key}_version"] for key in ("monai", "pytorch", "numpy") if f"{key}_version" in about}
    for name, tested in {**base, **about.get("required_packages_version", {})}.items():
        name = DISTRIBUTIONS.get(name, name)
        version = installed(name)
        if version is None:
            findings.fail(f"package {name}", f"not installed, but the bundle needs it; pip install {name}=={tested}")
        elif Version(version) != Version(tested):
            findings.note(f"package {name}", f"found {version}; the bundle was tested with {tested}")


def _labels(findings: Findings, parser: ConfigParser, about: dict[str, Any] | None) -> None:
    """Check that labels, regions, segments, network and metadata (unless None) have the same labels."""
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
            has_background(parser.get("postprocessing", {"transforms": []})),
        )
    except Exception as error:
        findings.fail("labels", why(error))


def _overlay(findings: Findings, folder: Path, overlay: Path) -> None:
    """Report entries of an overlay that no config has and no other entry uses; a run would ignore them."""
    settings = ConfigParser.load_config_file(str(overlay))
    known = known_settings(folder / "configs") | used_settings(settings)
    for key in settings:
        if not key.startswith("_"):
            try:
                check_setting(key, known, str(overlay))
            except InputError as error:
                findings.fail("overlay", str(error))
