"""Test that network, scores, segments and metadata of each bundle follow from its labels."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.errors import InputError, root_cause
from common.labels import channel_def, class_regions, has_background
from common.metrics import SegmentationScores
from common.packaging.labels import check_package_labels, check_scored_regions, labels_table, relabelled
from common.packaging.settings import merged

from ..workflows import BUNDLES, bundles, config_of, parser_of

# a network that takes its width from `labels` segments any; the others have the labels of their method
OPEN = [bundle for bundle in BUNDLES if "out_channels" in config_of(bundle, "inference")["network_def"]]
FIXED = [bundle for bundle in BUNDLES if bundle not in OPEN]
CODED = [bundle for bundle in BUNDLES if "label_code" in config_of(bundle, "inference")]
OF_TWO_LABELS = [
    (bundle, str(path.relative_to(bundle / "configs").with_suffix("")))
    for bundle in OPEN
    for path in sorted(bundle.glob("configs/*/*.json"))
    if len(json.loads(path.read_text()).get("labels", {})) == 2
]
OUTSIDE = ("class ", "AP", "Dice loss")  # scores of the case, or of probabilities
KIDNEY = {"labels": {"kidney": 1, "cyst": 2}, "regions": {}, "segments": {}}


def configs_of(bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``inference.json`` and ``metadata.json``."""
    return config_of(bundle, "inference"), config_of(bundle, "metadata")


def scored(parser: ConfigParser, found: Any) -> list[tuple[str, dict[str, list[int]]]]:
    """Return the regions of every ``SegmentationScores`` of a config, by its place."""
    result = []
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, dict) and str(value.get("_target_", "")).endswith("SegmentationScores"):
            assert (value["labels"], value["regions"]) == ("@labels", "@regions"), key
            built = SegmentationScores(value["scores"], parser["regions"], labels=parser["labels"])
            result.append((str(key), built.regions))
        elif isinstance(value, (dict, list)):
            result += scored(parser, value)
    return result


@bundles
def test_everything_follows_from_labels(bundle: Path) -> None:
    config, metadata = configs_of(bundle)
    check_package_labels(config, metadata)
    assert [*config["segments"]] == [*config["labels"]]  # each has codes of its own
    parser = parser_of(bundle, "train", "evaluate")
    regions = class_regions(config["labels"], config["regions"])
    assert {key: parser[key] for key in ("labels", "regions", "label_map")} == {
        key: config[key] for key in ("labels", "regions", "label_map")
    }
    found = scored(parser, parser.get())
    assert found and all(scores == regions for _, scores in found)
    checks = [step for step in parser["load"] if "label_map" in step]
    assert checks and {step["label_map"] for step in checks} == {"@label_map"}
    columns = [name for name in metadata["eval_metrics"] if not name.startswith(OUTSIDE)]
    assert {name: any(name.endswith(f" {region}") for region in regions) for name in columns} == dict.fromkeys(
        columns, True
    )
    assert len(columns) % len(regions) == 0
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()
    dense = [name.partition(": ")[2] or name for name in channels if not name.startswith("class: ")]
    assert set(config["labels"]) <= {*dense} and "background" not in config["labels"]


@bundles
@pytest.mark.parametrize(
    "change", ["a name", "a value", "one more", "regions", "segments", "channel_def", "labels=tuple"]
)
def test_one_of_them_changed_alone_is_refused(bundle: Path, change: str) -> None:
    config, metadata = configs_of(bundle)
    labels = config["labels"]
    first = next(iter(labels))
    written = metadata["network_data_format"]["post_processed_outputs"]["pred"]
    if change == "a name":
        config["labels"] = {"kidney" if name == first else name: value for name, value in labels.items()}
    elif change == "a value":
        config["labels"] = {**labels, first: 9}
    elif change == "one more":
        config["labels"] = {**labels, "kidney": 9}
    elif change == "regions":
        config["regions"] = {"whole": [*labels, "kidney"]}
    elif change == "segments":
        config["segments"] = {**config["segments"], "kidney": config["segments"][first]}
    elif change == "channel_def":
        written["channel_def"] = {**written["channel_def"], "1": "kidney"}
    else:
        config["labels"] = [*labels]
    with pytest.raises(InputError, match=r"kidney|9|expected names and values"):
        check_package_labels(config, metadata)


@pytest.mark.parametrize("bundle", OPEN, ids=lambda bundle: bundle.name)
def test_a_network_of_another_width_is_refused(bundle: Path) -> None:
    config, metadata = configs_of(bundle)
    width = has_background(config["postprocessing"]) + len(config["labels"])
    assert parser_of(bundle, "inference").get_parsed_content("network_def::out_channels") == width
    config["network_def"]["out_channels"] = 3
    with pytest.raises(InputError, match=rf"network_def::out_channels is 3.*expected {width}, the background"):
        check_package_labels(config, metadata)


@pytest.mark.parametrize("bundle", CODED, ids=lambda bundle: bundle.name)
def test_a_package_in_another_code_is_refused(bundle: Path) -> None:
    config, metadata = configs_of(bundle)
    config["label_code"] = "brats2023"
    with pytest.raises(InputError, match=r"label_code brats2023 .*1, 2, 3.* labels .* 4"):
        check_package_labels(config, metadata)
    config["labels"] = {name: number for number, name in enumerate(config["labels"], start=1)}
    before = configs_of(bundle)[0]
    metadata = relabelled(metadata, before, config)
    check_package_labels(config, metadata)


@pytest.mark.parametrize("bundle", FIXED, ids=lambda bundle: bundle.name)
def test_a_method_of_fixed_labels_refuses_others(bundle: Path) -> None:
    """Refuse them in a package and before the first case of a training and of an inference."""
    config, metadata = configs_of(bundle)
    changed = merged(config, KIDNEY)
    metadata = relabelled(metadata, config, changed)
    message = r"labels.*kidney 1, cyst 2.*this (network segments one|method nests)"
    with pytest.raises(InputError, match=message):
        check_package_labels(changed, metadata)
    for name, step in (("train", "load"), ("inference", "postprocessing")):
        parser = parser_of(bundle, name)
        for key in ("labels", "regions"):
            parser[key] = KIDNEY[key]
        with pytest.raises(Exception, match=r"labels|load|postprocessing") as error:
            parser.get_parsed_content(step)
        assert re.search(message, str(root_cause(error.value)))


@pytest.mark.parametrize("bundle", OPEN, ids=lambda bundle: bundle.name)
def test_a_package_of_other_labels_changes_its_metadata(
    bundle: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config, metadata = configs_of(bundle)
    before = copy.deepcopy(metadata)
    changed = merged(config, KIDNEY)
    with pytest.raises(InputError, match=r"channel_def of the label map in metadata\.json"):
        check_package_labels(changed, metadata)
    metadata = relabelled(metadata, config, changed)
    check_package_labels(changed, metadata)
    formats, formerly = metadata["network_data_format"], before["network_data_format"]
    assert formats["post_processed_outputs"]["pred"]["channel_def"] == channel_def(KIDNEY["labels"])
    assert formats["post_processed_outputs"]["pred"]["value_range"] == [0, 2]
    assert formats["outputs"]["pred"]["num_channels"] == formerly["outputs"]["pred"]["num_channels"] + 1
    assert {name for name in metadata["eval_metrics"] if not name.startswith(OUTSIDE)} == {
        f"{score.rpartition(' ')[0]} {name}"
        for score in before["eval_metrics"]
        if not score.startswith(OUTSIDE)
        for name in KIDNEY["labels"]
    }
    assert "kidney 1, cyst 2" in metadata["label_classes"] and "kidney, cyst" in metadata["pred_classes"]
    assert "kidney 1, cyst 2" in caplog.text and '"_meta_::name"' in caplog.text
    caplog.clear()
    relabelled(before, config, changed, ("name", "task", "description"))
    assert not caplog.records
    assert "| 2 | cyst |" in labels_table(changed)
    with pytest.raises(InputError, match=r"s\.csv: .*Dice liver.*kidney"):
        check_scored_regions(tmp_path / "s.csv", ["Dice liver"], changed)
    check_scored_regions(tmp_path / "s.csv", ["Dice kidney", "Dice cyst"], changed)


@bundles
def test_the_bundles_own_labels_change_nothing(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, metadata = configs_of(bundle)
    metadata = relabelled(metadata, config, copy.deepcopy(config))
    assert metadata == configs_of(bundle)[1] and not caplog.records


@pytest.mark.parametrize(("bundle", "overlay"), OF_TWO_LABELS, ids=lambda value: getattr(value, "name", value))
def test_an_overlay_of_two_labels_agrees_with_the_metadata(bundle: Path, overlay: str) -> None:
    config, metadata = configs_of(bundle)
    changed = merged(config, json.loads((bundle / "configs" / f"{overlay}.json").read_text()))
    metadata = relabelled(metadata, config, changed)
    check_package_labels(changed, metadata)
    organ, part = class_regions(changed["labels"], changed["regions"]).values()
    assert (organ, part) == ([1, 2], [2])
    assert parser_of(bundle, "inference", overlay).get_parsed_content("network_def::out_channels") == 3
