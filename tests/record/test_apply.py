"""Test that a config gets the settings of a record, also of an ensemble, and keeps overlays of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.errors import InputError
from common.record import RECORD_FILE, apply_settings
from common.record.apply import warn_of_other_bundle

OWN: dict[str, Any] = {"network_def": {"_target_": "common.methods.net.Net", "out_channels": 2}}
MEMBER = {"_target_": "common.methods.net.Net", "out_channels": 3, "width": 8, "_mode_": "callable"}
ENSEMBLE = {"_target_": "common.layers.mean_ensemble", "build": MEMBER, "count": 2}


def applied(given: dict[str, Any], own: dict[str, Any] = OWN) -> dict[str, Any]:
    """Return the network of a config with these settings, after the record of an ensemble is applied."""
    parser = ConfigParser({"bundle_root": ".", **given})
    apply_settings(parser, {"network_def": ENSEMBLE}, own, (), Path(RECORD_FILE), {})
    network: dict[str, Any] = parser["network_def"]
    return network


def test_the_ensemble_of_a_record_replaces_the_network() -> None:
    assert applied(OWN) == ENSEMBLE


def test_an_overlay_describes_the_network_of_an_ensemble() -> None:
    overlaid = {"network_def": {**OWN["network_def"], "out_channels": 3, "width": 8}}
    assert applied(overlaid) == ENSEMBLE
    overlaid["network_def"]["width"] = 4
    with pytest.raises(InputError, match=r"network_def::width: 4 here, 8 in the record of the weights"):
        applied(overlaid)


@pytest.mark.parametrize(
    ("meta", "warning"),
    [
        ({"name": "Liver", "version": "0.1.0"}, ""),
        ({}, ""),
        ({"name": "Liver", "version": "0.2.0"}, "run.json: version 0.1.0 of this bundle trained these weights"),
        (
            {"name": "Lung", "version": "0.2.0"},
            "run.json: another bundle trained these weights: Liver, and this is Lung",
        ),
    ],
)
def test_weights_of_another_bundle_log_a_warning(
    meta: dict[str, str], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_other_bundle(meta, {"name": "Liver", "version": "0.1.0"}, Path(RECORD_FILE))
    assert len(caplog.records) == bool(warning) and warning in caplog.text


def test_a_package_keeps_the_names_of_its_code() -> None:
    member = {**MEMBER, "_target_": "net_v1.methods.net.Net", "_requires_": "@bundle_code"}
    packed = {"network_def": {**ENSEMBLE, "_target_": "net_v1.layers.mean_ensemble", "build": member}}
    assert applied(packed, packed) == packed["network_def"]
