from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from common.labels import (
    channel_def,
    check_agreement,
    check_labels,
    class_regions,
    classes_of_values,
    read_label_map,
    segments_of_labels,
    suggest_label_map,
    warn_of_other_names,
)

LABELS = {"liver": 1, "tumour": 2}
CODES = {"category": ["91723000", "SCT", "Anatomical Structure"], "type": ["10200004", "SCT", "Liver"]}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, r"labels: \{\}; expected names and values, such as \{'liver': 1, 'tumour': 2\}"),
        (["liver"], r"labels: \['liver'\]; expected names and values"),
        ({"tumour": [1]}, r"tumour is \[1\]; expected a whole number from 1 to 254 \(a union of labels is a region"),
        ({"liver": 0}, "liver is 0; expected a whole number"),
        ({"liver": 255}, "liver is 255; expected a whole number"),
        ({"liver": True}, "liver is True; expected a whole number"),
        ({"liver": "1"}, "liver is '1'; expected a whole number"),
        ({"": 1}, "''; expected a name of 1 to 64 characters"),
        ({"Background": 1}, "'Background'; expected a name .*, not the background"),
        ({"liver": 1, "tumour": 1}, "expected different names and different values"),
        ({"liver": 1, "Liver ": 2}, "expected different names and different values"),
    ],
)
def test_invalid_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_labels(labels)


def test_a_wrong_number_of_labels_is_refused() -> None:
    fix = '--labels "{\'ground glass and consolidation\': 1}" --label_map "{1: 1, 3: 1}"'
    with pytest.raises(InputError, match=r"labels: 2 labels \(ground glass 1, consolidation 3\)") as error:
        check_labels({"ground glass": 1, "consolidation": 3}, count=1)
    assert str(error.value).endswith(f"this network segments one; merge them: {fix}")
    with pytest.raises(InputError, match="nests its tasks for exactly 3 labels"):
        check_labels(LABELS, count=3)


def test_regions_of_names_or_values_become_classes() -> None:
    labels = {"core": 1, "oedema": 2, "enhancing": 4}
    assert class_regions(labels) == {"core": [1], "oedema": [2], "enhancing": [3]}
    by_name = {"whole": ["core", "oedema", "enhancing"], "hot": ["enhancing"]}
    assert class_regions(labels, by_name) == class_regions(labels, {"whole": [1, 2, 4], "hot": [4]})
    assert class_regions(labels, by_name) == {"whole": [1, 2, 3], "hot": [3]}


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"whole": []}, r"regions: whole is \[\]; expected a list out of liver 1, tumour 2"),
        ({"whole": "liver"}, "regions: whole is 'liver'; expected a list"),
        ({"whole": ["tumor"]}, "regions: whole has 'tumor', but labels are .*; did you mean 'tumour'"),
        ({"whole": [3]}, "regions: whole has 3, but labels are liver 1, tumour 2"),
    ],
)
def test_regions_of_unknown_labels_are_refused(regions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_regions(LABELS, regions)


@pytest.mark.parametrize(
    "label_map", [{"3": 2, "1": 1}, {3: 2, 1: 1}, [[3, 2], [1, 1]], [("3", "2"), (1, 1)], {3.0: 2}, {"3": 2, 3: 2}]
)
def test_every_form_of_a_label_map_is_read(label_map: Any) -> None:
    mapped = read_label_map(label_map, LABELS)
    assert classes_of_values(LABELS, mapped) == {0: 0, 1: 1, 2: 2, 3: 2}


def test_a_label_map_gives_values_and_they_give_classes() -> None:
    labels = {"kidney": 5, "cyst": 3}
    mapped = read_label_map({1: 5, 5: 3, 7: 0}, labels)
    assert classes_of_values(labels, mapped) == {0: 0, 1: 1, 5: 2, 3: 2, 7: 0}
    assert classes_of_values(labels, read_label_map({}, labels)) == {0: 0, 5: 1, 3: 2}


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ("1:1", "label_map: '1:1'; expected values in the file and values of `labels`, such as --label_map"),
        ([1, 2], r"label_map: \[1, 2\]; expected"),
        (3, "label_map: 3; expected"),
        (None, "label_map: None; expected"),
        ({"a": 1}, "label_map: 'a' to 1; expected whole numbers"),
        ({1.5: 1}, "label_map: 1.5 to 1; expected whole numbers"),
        ({1: True}, "label_map: 1 to True; expected whole numbers"),
        ({3: 1, "3": 2}, "label_map: 3 to 1 and to 2; expected one value"),
        ({1: 3}, "label_map: 1 to 3; .* one of liver 1, tumour 2 or 0, the background"),
        ({0: 1}, "label_map: 0 to 1; expected 0 to stay 0"),
        ({1: 1, 2: 1}, "label_map: 2 to 1, so that nothing is left for tumour 2 of `labels`"),
    ],
)
def test_an_invalid_label_map_is_refused(label_map: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_label_map(label_map, LABELS)


def test_the_suggested_label_map_is_accepted() -> None:
    """With the option from the message, each of some random values is a label or the background."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        labels = {f"label {value}": int(value) for value in rng.permutation(6)[: rng.integers(1, 4)] + 1}
        found = sorted({*rng.integers(-3, 12, rng.integers(1, 6)).tolist()} - {0})
        text = suggest_label_map(found, labels, {})
        typed = eval(text.partition("--label_map ")[2].partition(" (")[0].strip('"'))
        assert {*found} <= classes_of_values(labels, read_label_map(typed, labels)).keys()
    assert suggest_label_map([0.5, 1], LABELS, {}) == "; write the label map with whole numbers, one for each label"


LISTED = {
    "Decathlon": {"0": "background", "1": "kidney", "2": "kidney_tumor"},
    "nnU-Net": {"background": 0, "kidney": 1, "kidney_tumor": 2, "whole": [1, 2]},
    "a list": ["background", "kidney", "kidney_tumor"],
}


@pytest.mark.parametrize("form", LISTED)
def test_a_warning_names_labels_of_other_names(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LISTED[form]}))
    warn_of_other_names(tmp_path, LABELS, {})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "its labels are not those of this bundle: 1 kidney where `labels` has liver" in record.message
    assert "tumo" not in record.message  # a tumour, by any spelling
    caplog.clear()
    warn_of_other_names(tmp_path, {"liver": 1}, {1: 1, 2: 1})
    assert "1 kidney, 2 kidney_tumor where `labels` has liver" in caplog.text


@pytest.mark.parametrize(
    "named",
    [
        {"0": "background", "1": "Liver", "2": "cancer"},
        {"1": "liver", "2": "liver_tumor"},
        None,
        "liver",
        {"1": None, "x": ["a"]},
        [],
    ],
)
def test_no_warning_for_equal_or_missing_names(named: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": named}))
    for labels, mapped in ((LABELS, {}), ({"liver": 1}, {1: 1, 2: 1})):
        warn_of_other_names(tmp_path, labels, mapped)
    warn_of_other_names(tmp_path / "nowhere", LABELS, {})
    assert not caplog.records


def test_channel_def_lists_unused_values() -> None:
    assert channel_def({"core": 1, "hot": 4, "oedema": 2}) == {
        **{"0": "background", "1": "core", "2": "oedema", "3": "unused", "4": "hot"}
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": {"kidney": 1, "tumour": 2}, "regions": {}, "segments": {}},
            "channel_def .* 1 liver, 2 tumour, but labels are kidney",
        ),
        (
            {"labels": {"kidney": 1, "tumour": 2}, "regions": {}},
            "segments: codes for liver, but labels are kidney 1, tumour 2",
        ),
        ({"labels": {**LABELS, "cyst": 3}}, "out_channels is 3, but labels are liver 1, tumour 2, cyst 3: expected 4"),
        ({"out_channels": 2}, "out_channels is 2, but labels are liver 1, tumour 2: expected 3"),
        ({"regions": {"liver": ["liver", "cyst"]}}, "regions: liver has 'cyst'"),
        ({"channels": {"0": "background", "1": "liver"}}, "channel_def .* is 0 background, 1 liver, but labels are"),
        ({"channels": {"0": "liver", "1": "tumour"}}, "channel_def .* is 0 liver, 1 tumour, but labels are"),
    ],
)
def test_settings_that_disagree_are_refused(change: dict[str, Any], message: str) -> None:
    agreeing = {
        "labels": LABELS,
        "regions": {"liver": ["liver", "tumour"]},
        "segments": {"liver": CODES},
        "out_channels": 3,
        "channels": channel_def(LABELS),
    }
    check_agreement(**agreeing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        check_agreement(**{**agreeing, **change})  # type: ignore[arg-type]


def test_segment_codes_follow_the_order_of_labels() -> None:
    found = segments_of_labels({"tumour": 1, "liver": 2}, {"liver": CODES})
    assert [*found] == ["tumour", "liver"] and found["liver"] == CODES
    assert found["tumour"]["type"] == ["85756007", "SCT", "Tissue"]
