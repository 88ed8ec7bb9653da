"""Test which settings of an overlay a bundle knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.overlays import check_overlays, known_settings
from common.running_config import Given


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Write the configs of a small bundle, and return their folder."""
    contents = {
        "train.json": {"labels": {"a": 1}, "train": {"trainer": 1}},
        "ablations/other.json": {"+load": []},
        "metadata.json": {"version": "1"},
        "plan.json": {"overlay": {}},
    }
    for name, content in contents.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "configs"


def check(configs: Path, overlay: dict[str, Any]) -> None:
    """Check an overlay outside of the bundle."""
    file = configs.parents[0] / "mine.json"
    file.write_text(json.dumps(overlay))
    check_overlays(Given([str(configs / "train.json"), str(file)], {}))


def test_metadata_and_the_recipe_of_a_plan_are_no_settings(configs: Path) -> None:
    assert known_settings(configs) == {"labels", "train", "load", "reasons"}


def test_a_renamed_setting_is_refused_with_its_new_name(configs: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.json: unknown setting 'target'; use labels and label_map, such as"):
        check(configs, {"target": [0, 1]})


def test_a_setting_of_another_config_of_the_bundle_is_known(configs: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(configs, {"load": [], "reasons": {}, "_note": ""})
    assert not caplog.records
    check(configs, {"version": "2"})
    assert "version" in caplog.text and "changes nothing" in caplog.text
