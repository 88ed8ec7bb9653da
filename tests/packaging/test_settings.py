"""Test that the configs of a package have the settings of the training."""

from __future__ import annotations

from common.packaging.settings import merged


def test_overlay_changes_what_a_config_has_except_paths() -> None:
    config = {"network": {"width": 8}, "load": [1], "dataset_dir": "here", "same": True}
    overlay = {
        "network::width": 4,
        "+load": [2],
        "dataset_dir": "there",
        "unknown": 1,
        "unknown::deep": 2,
        "same": False,
    }
    assert merged(config, overlay) == {"network": {"width": 4}, "load": [1, 2], "dataset_dir": "here", "same": False}
    assert config["network"] == {"width": 8}
