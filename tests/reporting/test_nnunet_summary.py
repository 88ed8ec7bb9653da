"""Read the scores of nnU-Net; the file has the form that nnU-Net 2.8.1 writes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.__main__ import main
from common.errors import InputError
from common.reporting import read_case_scores, read_summary, write_scores

COUNTS = {"FN": 5, "FP": 0, "TN": 80, "TP": 15, "n_pred": 15, "n_ref": 20}


def scores_of(dice: float, iou: float = 0.5) -> dict[str, float]:
    return {"Dice": dice, **COUNTS, "IoU": iou}


def summary(cases: Mapping[str, Mapping[str, float]], folder: str = "results/validation/") -> dict[str, Any]:
    per_case = [
        {
            "metrics": {label: scores_of(dice) for label, dice in dices.items()},
            "prediction_file": f"{folder}{case}.nii.gz",
            "reference_file": f"preprocessed/gt_segmentations/{case}.nii.gz",
        }
        for case, dices in cases.items()
    ]
    return {"foreground_mean": scores_of(0.5), "mean": {"1": scores_of(0.5)}, "metric_per_case": per_case}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a summary, and a dataset.json some folders above; return the summary."""

    def write(content: Any, labels: Any = None, above: int = 2, **description: Any) -> Path:
        path = tmp_path / "Dataset501" / "Trainer" / "fold_0" / "validation" / "summary.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        if labels is not None:
            description = {"labels": labels, "file_ending": ".nii.gz", **description}
            (path.parents[above] / "dataset.json").write_text(json.dumps(description))
        return path

    return write


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_cases_and_columns_have_their_names(written: Callable, above: int) -> None:
    content = summary({"P1": {"1": 0.75, "2": 0.5}, "P2.5": {"1": 0.25, "2": math.nan}})
    path = written(content, {"background": 0, "liver": 1, "tumour": 2}, above)
    assert read_summary(path) == [
        {"case": "P1", "Dice liver": 0.75, "Dice tumour": 0.5, "IoU liver": 0.5, "IoU tumour": 0.5},
        {"case": "P2.5", "Dice liver": 0.25, "Dice tumour": 1.0, "IoU liver": 0.5, "IoU tumour": 0.5},
    ]
    assert read_case_scores(path.parent) == read_summary(path)


def test_regions_and_paths_of_windows_are_read(written: Callable) -> None:
    content = summary({"P1": {"(1, 2)": 0.75, "(2,)": 0.5, "3": 0.25}}, "C:\\results\\validation\\")
    (row,) = read_summary(written(content, {"background": 0, "whole": [2, 1], "core": [2], "ring": 3, "ignore": 4}))
    assert list(row)[:4] == ["case", "Dice whole", "Dice core", "Dice ring"] and row["case"] == "P1"


def test_names_by_value_are_read_too(written: Callable) -> None:
    (row,) = read_summary(written(summary({"P1": {"1": 0.75}}), {"0": "background", "1": "liver"}))
    assert row["Dice liver"] == 0.75


def test_another_file_ending_is_taken_off(written: Callable) -> None:
    content = summary({"P1": {"1": 0.75}})
    content["metric_per_case"][0]["prediction_file"] = "validation/P1.mha"
    (row,) = read_summary(written(content, {"background": 0, "liver": 1}, file_ending=".mha"))
    assert row["case"] == "P1"


def test_the_table_of_a_bundle_goes_before_a_summary(written: Callable) -> None:
    path = written(summary({"P1": {"1": 0.75}}), {"background": 0, "liver": 1})
    write_scores([{"case": "P1", "Dice liver": 0.5}], path.parent / "scores.csv")
    assert read_case_scores(path.parent) == [{"case": "P1", "Dice liver": 0.5}]


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        ([], {"liver": 1}, "not a summary.json as nnU-Net v2 writes it"),
        ({"metric_per_case": []}, {"liver": 1}, "not a summary.json"),
        ({"metric_per_case": [{"metrics": {"1": {}}, "prediction_file": "a.nii.gz"}]}, {"liver": 1}, "'Dice'"),
        (summary({"P1": {"1": 1.0}}), None, "no dataset.json beside it or up to 3 folders above"),
        (summary({"P1": {"1": 1.0, "3": 1.0}}), {"liver": 1}, "label 3 has no name in the dataset.json"),
        (summary({"P1": {"(1, 2)": 1.0}}), {"liver": 1, "tumour": 2}, "label 1, 2 has no name"),
        (summary({"P1": {"1": 1.0}}), [1], r"labels is \[1\]; expected names and values"),
    ],
)
def test_another_file_is_refused(written: Callable, content: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_summary(written(content, labels))


def test_a_case_that_occurs_twice_is_refused(written: Callable) -> None:
    content = summary({"P1": {"1": 1.0}})
    content["metric_per_case"] *= 2
    with pytest.raises(InputError, match="case P1 occurs 2 times"):
        read_summary(written(content, {"liver": 1}))


def test_a_bundle_and_nnunet_are_compared_in_pairs(
    written: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    dices = [i / 16 for i in range(8)]
    write_scores([{"case": f"P{i}", "Dice liver": dice} for i, dice in enumerate(dices)], tmp_path / "a" / "scores.csv")
    theirs = {f"P{i}": {"1": dice + 0.25} for i, dice in enumerate(dices)}
    path = written(summary(theirs), {"background": 0, "liver": 1})
    arguments = [
        "scores",
        f"ours={tmp_path / 'a'}",
        f"nnunet={path.parent}",
        "--columns",
        "Dice liver",
        "--format",
        "csv",
    ]
    monkeypatch.setattr("sys.argv", ["common", *arguments, "--paired"])
    main()
    (line,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (line["first"], line["second"], line["pairs"]) == ("ours", "nnunet", "8")
    assert float(line["difference"]) == 0.25 and float(line["p"]) == 2 / 2**8
    monkeypatch.setattr("sys.argv", ["common", *arguments])
    main()
    assert [row["Dice liver"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == [
        "0.218750",
        "0.468750",
    ]
    written(summary({**theirs, "P9": {"1": 1.0}}))
    with pytest.raises(SystemExit, match=r"nnunet and ours have different cases: 1 only in nnunet \(P9\)"):
        main()
