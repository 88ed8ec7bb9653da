"""Test which results a batch may replace, which it leaves out, and which it computes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose

from common.engines import CaseResults
from common.errors import InputError
from common.transforms import AtomicSaveImaged, SplitClassesd

ENDINGS = ("_seg.nii.gz", "_class.json")
STEPS = Compose([SplitClassesd("pred", ["negative", "positive"]), AtomicSaveImaged("pred", "not used")])


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    """Make the results of three scans, with the weights in ``tmp_path/model.pt``."""
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").write_bytes(name.encode())

    def make(**options: Any) -> CaseResults:
        cases = [{"case": name, "image": str(tmp_path / f"{name}.nii.gz")} for name in "abc"]
        return CaseResults(cases, tmp_path / "out", STEPS, tmp_path / "model.pt", **options)

    return make


def finish(results: CaseResults, name: str) -> None:
    results.output_dir.mkdir(exist_ok=True)
    results.begin(name)
    for ending in ENDINGS:
        (results.output_dir / f"{name}{ending}").write_text(f"{name} {ending}")
    results.done(name)


def left(results: CaseResults) -> str:
    return "".join(case["case"] for case in results.to_do)


def test_finished_cases_are_left_out_on_resume(batch: Any) -> None:
    finish(batch(), "b")
    assert left(batch()) == "abc"
    assert left(batch(resume=True)) == "ac"


def test_case_with_a_missing_result_is_done_again(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "b")
    (tmp_path / "out" / "b_class.json").unlink()
    assert left(batch(resume=True)) == "abc"


def test_replaced_scan_is_done_again(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "a")
    (tmp_path / "a.nii.gz").write_bytes(b"another scan of the same name")
    assert left(batch(resume=True)) == "abc"


def test_case_that_was_cut_short_is_done_again(batch: Any, tmp_path: Path) -> None:
    results = batch()
    results.begin("a")
    (tmp_path / "out" / "a_seg.nii.gz").write_text("half of a case")
    assert left(batch(resume=True)) == "abc"
    assert left(batch()) == "abc"


def test_failed_case_waits_for_retry(batch: Any) -> None:
    batch().failed("c", "no lungs")
    assert left(batch(resume=True)) == "ab"
    assert left(batch(resume=True, retry=True)) == "abc"
    assert left(batch()) == "abc"


@pytest.mark.parametrize("resume", [False, True])
def test_foreign_mask_is_not_replaced(batch: Any, tmp_path: Path, resume: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b_seg.nii.gz").write_text("a reader's mask")
    with pytest.raises(InputError, match=r"b_seg.nii.gz: no b_seg.json beside it, .* another --output_dir"):
        left(batch(resume=resume))


@pytest.mark.parametrize("resume", [False, True])
def test_corrected_mask_is_not_replaced(batch: Any, tmp_path: Path, resume: bool) -> None:
    finish(batch(), "b")
    (tmp_path / "out" / "b_seg.nii.gz").write_text("corrected by hand")
    with pytest.raises(InputError, match=r"b_seg.nii.gz: changed since it was written"):
        left(batch(resume=resume))


def test_other_settings_do_not_resume(batch: Any) -> None:
    finish(batch(settings={"overlap": 0.5}), "b")
    assert left(batch(resume=True, settings={"overlap": 0.5})) == "ac"
    with pytest.raises(InputError, match=r"b_seg.json: settings .*0.5.* but .*0.25.* in this run"):
        left(batch(resume=True, settings={"overlap": 0.25}))


def test_failure_keeps_the_earlier_result_apart(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "a")
    before = json.loads((tmp_path / "out" / "a_seg.json").read_text())
    (tmp_path / "a.nii.gz").write_bytes(b"cut")
    for _ in range(2):
        assert left(batch()) == "abc"
        batch().failed("a", "the file is cut")
        record = json.loads((tmp_path / "out" / "a_seg.json").read_text())
        assert record["results"] == {} and record["input"] != before["input"]
        assert record["before"] == {"input": before["input"], "results": before["results"]}


def test_cases_that_failed_before_count_as_failed(batch: Any, caplog: pytest.LogCaptureFixture) -> None:
    finish(batch(), "b")
    batch().failed("c", "no lungs")
    results = batch(resume=True)
    assert left(results) == "a" and results.done_before == 1
    assert results.failed_before == ["c"]
    assert "case c: failed before (no lungs); --retry true does it again" in caplog.messages


def test_record_without_a_digest_is_not_replaced(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "a")
    path = tmp_path / "out" / "a_seg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input": {}}))
    with pytest.raises(InputError, match=r"a_seg.json: not a record of a result"):
        left(batch(resume=True))


@pytest.mark.parametrize("name", ["../evil", "A/scan", "x" * 240, ""])
def test_case_without_a_valid_name_leaves_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    for resume in (False, True):
        results = CaseResults([{"case": name, "error": "rename it"}], tmp_path / "out", STEPS, "untrained", resume)
        assert [case["case"] for case in results.to_do] == [name]
        results.failed(name, "rename it")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_other_weights_do_not_resume(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "b")
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"b_seg.json: weights .* resume with the same weights and settings"):
        left(batch(resume=True))
    assert left(batch()) == "abc"


def test_json_of_another_program_is_not_replaced(batch: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_seg.json").write_text(json.dumps({"reader": "A"}))
    with pytest.raises(InputError, match=r"a_seg.json: not a record of a result"):
        left(batch())


def test_record_names_scan_weights_and_results(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "a")
    record = json.loads((tmp_path / "out" / "a_seg.json").read_text())
    assert record["case"] == "a" and record["state"] == "done"
    assert record["input"]["files"] == ["a.nii.gz"]
    assert record["weights"] == batch().made_by["weights"] and len(record["weights"]) == 64
    assert record["record"] == "none"
    assert set(record["results"]) == {"a_seg.nii.gz", "a_class.json"}
    assert str(tmp_path) not in json.dumps(record)


def test_folder_in_the_place_of_a_result_is_reported(batch: Any, tmp_path: Path) -> None:
    finish(batch(), "b")
    (tmp_path / "out" / "b_seg.nii.gz").unlink()
    (tmp_path / "out" / "b_seg.nii.gz").mkdir()
    for options in ({}, {"resume": True}):
        with pytest.raises(InputError, match=r"b_seg.nii.gz: a folder, expected a result of this project"):
            left(batch(**options))


def test_foreign_table_is_reported_before_the_first_case(batch: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cases.csv").write_text("a table of mine")
    with pytest.raises(InputError, match=r"cases.csv: another file of this name"):
        left(batch())


@pytest.mark.parametrize("entry", [{"before": {"results": 5}}, {"before": {}}, {"channels": 5}])
def test_record_with_a_wrong_part_is_reported(batch: Any, tmp_path: Path, entry: dict) -> None:
    finish(batch(), "a")
    record = tmp_path / "out" / "a_seg.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **entry}))
    with pytest.raises(InputError, match=r"a_seg.json: not a record of a result"):
        left(batch())
