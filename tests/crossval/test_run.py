"""Test in which order a cross-validation runs its folds, what it runs again, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.__main__ import main
from common.crossval import cross_validate
from common.errors import InputError
from common.files import MARK, read_json, write_own_json
from common.record import RECORD_FILE, read_record
from common.reporting import read_scores, write_scores

from ..methods.mamtln.tiny import MAMTLN_CT
from .folds import CT, FakeRuns, write_list

ALL = ["train 0", "evaluate 0", "train 1", "evaluate 1", "train 2", "evaluate 2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_list(tmp_path / "data")


@pytest.fixture
def validate(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], str]]:
    """Cross-validate with fake runs; return the runs and what was said."""

    def run(runs: FakeRuns | None = None, bundle: Path = CT, **options: Any) -> tuple[list[str], str]:
        runs, said = runs or FakeRuns(), []
        monkeypatch.setattr("common.crossval.run.run_child", runs)
        cross_validate(bundle, data, tmp_path / "runs", say=said.append, **options)
        return runs.done, "\n".join(said)

    return run


def test_every_fold_is_trained_and_then_evaluated(validate: Callable, tmp_path: Path) -> None:
    done, said = validate()
    assert done == ALL
    assert [row["case"] for row in read_scores(tmp_path / "runs" / "scores.csv")] == [f"P{i}" for i in range(6)]
    lines = [line.split() for line in said.splitlines()]
    # cases 0 to 5 score i / 8; the folds' means are 1.5 / 8, 2.5 / 8 and 3.5 / 8
    assert ["Dice", "liver", "6", "0.3125", "0.2339", "0.3125", "0.1250"] in lines
    assert "liver_ct_mpunet, folds 0, 1, 2 of 3" in said and "missing" not in said
    table = said[said.index("\nliver_ct_mpunet") :]
    before = [f"fold {fold}: finished before" for fold in range(3)]
    assert validate() == ([], "\n".join([*before, table]))


class FixedTest(FakeRuns):
    """Test each of two networks on the same two cases, with the Dice (fold + case) / 8."""

    def evaluate(self, folder: Path, fold: int, origin: dict[str, str]) -> None:
        write_scores([{"case": f"T{i}", "Dice liver": (fold + i) / 8} for i in range(2)], folder / "scores.csv", origin)


def test_every_network_is_evaluated_on_a_fixed_test_set(validate: Callable, data: Path, tmp_path: Path) -> None:
    """Expect 1/16, 3/16 and 5/16 as means of the folds, and 3/16 as their mean."""
    listing = json.loads((data / "dataset.json").read_text())
    for case in listing["training"][4:]:
        case["fold"] = "test"
    (data / "dataset.json").write_text(json.dumps(listing))
    done, said = validate(FixedTest())
    assert done == ALL
    rows = [row["case"] for row in read_scores(tmp_path / "runs" / "scores.csv")]
    assert rows == [f"T{i} (fold {fold})" for i in range(2) for fold in range(3)]
    (line,) = [line.split() for line in said.splitlines() if line.startswith("Dice liver")]
    assert (line[2], line[3], *line[5:]) == ("6", "0.1875", "0.1875", "0.1250")
    assert (tmp_path / "runs" / "ensemble.json").exists()


def test_trained_folds_are_evaluated_in_another_way(validate: Callable, tmp_path: Path) -> None:
    validate()
    overlay = tmp_path / "evaluate_roi.json"
    overlay.write_text('{"allow_seen_cases": true}')
    done, said = validate(evaluation_overlay=overlay)
    assert done == ALL[1::2] and f"train.json', '{CT}" not in said
    assert f"--output_dir {tmp_path / 'runs' / 'fold2' / 'scores_roi'}" in said and str(overlay) in said
    assert f"scores of each case are in {tmp_path / 'runs' / 'scores_roi' / 'scores.csv'}" in said
    tables = [read_scores(tmp_path / "runs" / name / "scores.csv") for name in (".", "scores_roi")]
    assert tables[0] == tables[1] and len(tables[0]) == 6
    for options in ({}, {"evaluation_overlay": overlay}):  # the two evaluations leave each other as they are
        assert validate(**options)[0] == []
    overlay.write_text('{"allow_seen_cases": false}')
    with pytest.raises(InputError, match=r"evaluate_roi.json: changed since .*; save it under another name"):
        validate(evaluation_overlay=overlay)


def test_the_ensemble_keeps_folds_that_lack_another_evaluation(validate: Callable, tmp_path: Path) -> None:
    (tmp_path / "evaluate_roi.json").write_text("{}")
    validate()
    before = (tmp_path / "runs" / "ensemble.json").read_text()
    assert validate(folds=[1], evaluation_overlay=tmp_path / "evaluate_roi.json")[0] == ["evaluate 1"]
    assert (tmp_path / "runs" / "ensemble.json").read_text() == before
    assert len(torch.load(tmp_path / "runs" / "model.pt", weights_only=True)) == 3


def test_another_evaluation_trains_folds_that_are_not(validate: Callable, tmp_path: Path) -> None:
    (tmp_path / "evaluate_roi.json").write_text("{}")
    assert validate(evaluation_overlay=tmp_path / "evaluate_roi.json")[0] == ALL
    assert (tmp_path / "runs" / "ensemble.json").exists() and not (tmp_path / "runs" / "scores.csv").exists()
    assert validate()[0] == ALL[1::2]


def test_a_failed_fold_ends_with_its_error_and_status(validate: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^fold 1, evaluation: every case failed$") as caught:
        validate(FakeRuns(failing=["evaluate 1"]))
    assert caught.value.status == 3
    assert [row["case"] for row in read_scores(tmp_path / "runs" / "scores.csv")] == ["P0", "P3"]
    done, _ = validate()
    assert done == ["evaluate 1", "train 2", "evaluate 2"]
    assert len(read_scores(tmp_path / "runs" / "scores.csv")) == 6


def test_an_interrupted_training_is_run_again(validate: Callable) -> None:
    with pytest.raises(InputError, match=r"^fold 0, training"):
        validate(FakeRuns(failing=["train 0"]))
    assert validate()[0] == ALL


def test_missing_folds_are_named(validate: Callable, tmp_path: Path) -> None:
    done, said = validate(folds=[2])
    assert done == ALL[4:]
    assert "liver_ct_mpunet, fold 2 of 3" in said
    assert "missing: folds 0, 1; run the command again, with --folds 0,1 or without" in said
    assert json.loads((tmp_path / "runs" / "ensemble.json").read_text())["weights"] == [
        "$@ckpt_dir + '/fold2/model.pt'"
    ]
    assert validate(folds=[0, 1])[0] == ALL[:4]
    assert len(json.loads((tmp_path / "runs" / "ensemble.json").read_text())["weights"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"max_epochs": "3"}}, r"^max_epochs: 3 here, 600 in .*runs/crossval.json; continue with"),
        ({"overlay": {"labels": {"liver": 2}}}, r"^labels::liver: 2 here, 1 in"),
        ({"overlay": {"load::0::keys": "x"}}, r"^load::0::keys: \"x\" here, \"image\" in"),
        ({"overlay": {"new": 1}}, r"^new: 1 here, not set in"),
        ({"bundle": MAMTLN_CT}, r"crossval.json: a cross-validation of liver_ct_mpunet, not of stomach_ct_mamtln"),
    ],
)
def test_another_setting_is_refused(validate: Callable, tmp_path: Path, change: dict, message: str) -> None:
    validate(folds=[0])
    if "overlay" in change:
        (tmp_path / "overlay.json").write_text(json.dumps(change.pop("overlay")))
        change["overlays"] = [tmp_path / "overlay.json"]
    with pytest.raises(InputError, match=message):
        validate(**change)


def test_a_refused_first_training_leaves_the_settings_free(validate: Callable) -> None:
    with pytest.raises(InputError, match=r"^fold 0, training"):
        validate(FakeRuns(failing=["train 0"]), options={"max_epochs": "0"})
    assert validate(options={"max_epochs": "3"})[0] == ALL


def test_a_refused_evaluation_leaves_its_overlay_free(validate: Callable, tmp_path: Path) -> None:
    validate()
    overlay = tmp_path / "evaluate_roi.json"
    for content, failing in (({"overlap": 0.1}, ["evaluate 0"]), ({"overlap": 0.2}, [])):
        overlay.write_text(json.dumps(content))
        with contextlib.ExitStack() as stack:
            if failing:
                stack.enter_context(pytest.raises(InputError, match=r"^fold 0, evaluation"))
            validate(FakeRuns(failing=failing), evaluation_overlay=overlay)
    overlay.write_text("{}")
    with pytest.raises(InputError, match="changed since the evaluations"):
        validate(evaluation_overlay=overlay)


class Exchanged(FakeRuns):
    """Train while another process begins with other settings in the same folder."""

    def train(self, folder: Path, fold: int) -> None:
        super().train(folder, fold)
        content = read_json(folder.parent / "crossval.json")
        content.pop(MARK)
        content["settings"]["max_epochs"] = 3
        write_own_json(content, folder.parent / "crossval.json")


def test_settings_of_another_process_are_found(validate: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^max_epochs: 600 here, 3 in .*crossval.json"):
        validate(Exchanged())
    assert not (tmp_path / "runs" / "fold0" / "crossval.json").exists()


def test_a_setting_of_the_machine_may_differ(validate: Callable) -> None:
    validate(folds=[0], options={"device": "cpu"})
    assert validate(options={"device": "cuda:1", "num_workers": "2"})[0] == ALL[2:]


@pytest.mark.parametrize(("key", "value"), [("fold", 1), ("class", "negative"), ("label", "label5.nii.gz")])
def test_another_data_list_is_refused(validate: Callable, data: Path, key: str, value: Any) -> None:
    validate(folds=[0])
    content = json.loads((data / "dataset.json").read_text())
    content["training"][3][key] = value
    (data / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"dataset.json: P3 differ from the cases in .*crossval.json"):
        validate()


def test_changed_files_of_a_fold_are_refused(validate: Callable, tmp_path: Path) -> None:
    validate()
    model = tmp_path / "runs" / "fold1" / "model.pt"
    content = model.read_bytes()
    model.unlink()
    with pytest.raises(InputError, match=r"fold1/model.pt: this file or its run.json was changed or removed"):
        validate()
    model.write_bytes(content)
    (tmp_path / "runs" / "fold1" / "scores" / "scores.csv").write_text("case,Dice liver\nP1,1.0\nP4,1.0\n")
    with pytest.raises(InputError, match=r"scores.csv: another file of this name, or one that was changed"):
        validate()


@pytest.mark.parametrize("table", ["classes.csv", "class_scores.csv"])
def test_every_table_of_a_fold_is_checked(validate: Callable, tmp_path: Path, table: str) -> None:
    validate(FakeRuns(classes=True), MAMTLN_CT)
    file = tmp_path / "runs" / "fold1" / "scores" / table
    content = file.read_bytes()
    file.write_bytes(content.replace(b"0.5", b"0.9").replace(b"0.7", b"0.9"))
    with pytest.raises(InputError, match=rf"{table}: another file of this name, or one that was changed"):
        validate(FakeRuns(classes=True), MAMTLN_CT)
    file.unlink()
    done, _ = validate(FakeRuns(classes=True), MAMTLN_CT)
    assert done == ["evaluate 1"] and file.read_bytes() == content


def test_weights_of_another_training_are_kept(validate: Callable, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "model.pt").touch()
    with pytest.raises(InputError, match=r"--out .*runs: holds model.pt of another training"):
        validate()


def test_a_list_without_folds_says_how_to_write_them(validate: Callable, data: Path) -> None:
    content = json.loads((data / "dataset.json").read_text())
    cases = [{name: value for name, value in case.items() if name != "fold"} for case in content["training"]]
    lists = {"training": cases[:4], "validation": cases[4:5], "test": cases[5:]}
    (data / "dataset.json").write_text(json.dumps(lists))
    with pytest.raises(InputError, match=r"its cases have no fold; write a list with folds by .*--folds 5"):
        validate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "3"], "--folds 3: no such fold in .*; expected 0, 1, 2"),
        (["--folds", "a"], "--folds a: expected numbers of folds, such as 0,2"),
        (["--fold", "0"], "--fold: crossval sets it for each fold; choose folds by --folds"),
        (["--ckpt_dir", "x"], "--ckpt_dir: crossval sets it for each fold; leave it out"),
        (["--max_epoch", "2"], "unknown option --max_epoch of crossval and liver_ct_mpunet; did you mean --max_epochs"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    verb = ["crossval", CT.name, "--dataset_dir", str(data), "--out", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", ["common", *verb, *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_commands_have_overlay_and_options(validate: Callable, data: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"max_epochs": 2}')
    _, said = validate(folds=[1], overlays=[tmp_path / "plan.json"], options={"amp": "false", "scores": "x"})
    training, evaluation = [line for line in said.splitlines() if line.startswith("python -m monai.bundle run")]
    assert f"train.json', '{tmp_path / 'plan.json'}']\"" in training and "--amp false" in training
    assert f"--dataset_dir {data} --fold 1 --ckpt_dir {tmp_path / 'runs' / 'fold1'} --resume true" in training
    assert "--scores" not in training and "--scores x" in evaluation  # of the evaluation alone
    assert f"--output_dir {tmp_path / 'runs' / 'fold1' / 'scores'}" in evaluation and "resume" not in evaluation


def test_the_ensemble_has_the_network_of_the_records(validate: Callable, tmp_path: Path) -> None:
    validate(folds=[0, 2])
    runs = tmp_path / "runs"
    config = json.loads((runs / "ensemble.json").read_text())
    assert config["member"] == {"_target_": "a.Net", "width": 2, "_mode_": "callable"}
    assert config["weights"] == ["$@ckpt_dir + '/fold0/model.pt'", "$@ckpt_dir + '/fold2/model.pt'"]
    state = torch.load(runs / "model.pt", weights_only=True)
    assert {key: value.tolist() for key, value in state.items()} == {"networks.0.w": [0, 0], "networks.1.w": [2, 2]}
    record = read_record(runs / RECORD_FILE)
    network = record.settings["network_def"]
    assert (network["_target_"], network["build"], network["count"]) == (
        "common.layers.mean_ensemble", config["member"], 2
    )  # fmt: skip
    assert record.fold is None and record.scans["orientations"] == {"RAS": 6}
    assert {case["case"] for case in record.train_cases} == {f"P{i}" for i in range(6)}
    assert record.test_cases == []


def test_folds_with_other_settings_form_no_ensemble(validate: Callable, tmp_path: Path) -> None:
    validate(folds=[0])
    (tmp_path / "runs" / "ensemble.json").unlink()
    runs = FakeRuns()
    runs.settings = {**runs.settings, "roi_size": [8, 8, 4]}
    _, said = validate(runs, folds=[1])
    assert "no ensemble.json: roi_size: [8, 8, 4] in fold 1, [8, 8, 8] in the record of fold 0" in said
    assert not (tmp_path / "runs" / "ensemble.json").exists()


def test_statistics_of_each_fold_get_a_note(validate: Callable, tmp_path: Path) -> None:
    _, said = validate(FakeRuns(classes=True), bundle=MAMTLN_CT)
    assert said.startswith("note: intensity, normalize: computed from the training cases of each fold")
    assert ["class", "accuracy", "6", "0.5000", "0.5000", "0.0000"] in [line.split() for line in said.splitlines()]
    assert (tmp_path / "runs" / "classes.csv").read_text().count("\n") == 7


def test_statistics_that_no_step_uses_get_no_note(validate: Callable, tmp_path: Path) -> None:
    normalize = [{"_target_": "NormalizeIntensityd", "keys": "image"}]
    (tmp_path / "plan.json").write_text(json.dumps({"normalize": normalize}))
    _, said = validate(FakeRuns(classes=True), bundle=MAMTLN_CT, overlays=[tmp_path / "plan.json"])
    assert "note: " not in said
