"""Test the reader of label names in the forms of data sets."""

import json

import pytest

from common.label_names import names_by_values, names_in_list, regions_in_list


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"0": "background", "1": "liver"}, {(0,): "background", (1,): "liver"}),
        ({"background": 0, "liver": 1}, {(0,): "background", (1,): "liver"}),
        ({"background": 0, "whole": [2, 1], "core": 2}, {(0,): "background", (1, 2): "whole", (2,): "core"}),
        (["background", "liver"], {(0,): "background", (1,): "liver"}),
        ({"1": "liver", "mass": 1}, {(1,): "liver"}),
        ({"liver": 1.5, "mass": None, "vein": []}, {}),
        ("liver", {}),
        (None, {}),
    ],
)
def test_labels_are_read_in_each_form_of_a_data_set(named, expected):
    assert names_by_values(named) == expected


def test_names_and_regions_of_a_list_leave_out_the_background(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"Background": 0, "whole": [1, 2], "core": 2}}))
    assert names_in_list(tmp_path) == {2: "core"}
    assert regions_in_list(tmp_path) == {"whole": [1, 2], "core": [2]}


def test_a_list_without_regions_has_none(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver"}}))
    assert regions_in_list(tmp_path) == {} and names_in_list(tmp_path) == {1: "liver"}


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_names_of_a_missing_or_invalid_list_are_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    assert names_in_list(tmp_path) == {} and regions_in_list(tmp_path) == {}
