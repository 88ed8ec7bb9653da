"""Test the record of a training: its file, comparison of settings, digests of cases."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from common.errors import InputError
from common.record import (
    RECORD_FILE,
    RunRecord,
    apply_settings,
    check_unseen,
    digest_of,
    made_by,
    read_record,
    record_of,
)
from common.record.identity import first_shared
from common.record.settings import difference, same_setting

CASE = {"case": "a", "patient": None, "image": "0" * 64, "label": None}
OTHER_CASE = {**CASE, "class": "tumour", "label_code": "brats"}


def record(**changes: Any) -> RunRecord:
    fields = {
        "bundle": {"name": "b", "version": "1.0.0"},
        "settings": {
            "spacing": [1.0, 1.0, 2.0],
            "network_def": {"_target_": "common.methods.net.Net", "channels": [2, 4]},
        },
        "training": {"learning_rate": 0.1},
        "fold": 0,
        "seed": 3,
        "scans": {},
        "train_cases": [CASE],
        "validation_cases": [],
        "test_cases": [],
        "versions": {"monai": "1"},
        "command": "python",
    }
    return RunRecord(**{**fields, **changes})


@pytest.mark.parametrize("name", ["a", "Müller", "M\udcc3\udcbcller"])  # the last under a locale of ASCII
def test_written_record_is_read_back(tmp_path: Path, name: str) -> None:
    written = record(train_cases=[{**CASE, "case": name}])
    written.write(tmp_path)
    assert read_record(tmp_path / RECORD_FILE) == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hostname": "x"}, "unknown key 'hostname'"),
        ({"fold": "first"}, "'fold' is 'first'"),
        ({"settings": []}, r"'settings' is \[\]"),
        ({"train_cases": ["a"]}, "'train_cases' is not a list of cases"),
        ({"train_cases": [{**CASE, "image": ["a"]}]}, "'train_cases': expected text or null"),
        ({"fold": True}, "'fold' is True"),
        ({"changes": [3]}, r"'changes' is \[3\]"),
        ({"weights": {"model.pt": "0"}}, "'weights' is .* expected a list"),
        ({"scans": {"spacing": 3}}, "'scans': spacing is 3"),
        ({"scans": {"spacing": {"min": [1.0, 1.0, 1.0]}}}, "'scans': spacing is .* min, median and max"),
        ({"scans": {"spacing": {"min": ["a"] * 3, "median": [], "max": []}}}, "expected three numbers"),
        ({"settings": {"network_def": []}}, r"network_def is \[\]; expected a component"),
    ],
)
def test_malformed_record_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    content = {**dataclasses.asdict(record()), **change}
    (tmp_path / RECORD_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_record(tmp_path / RECORD_FILE)


def test_resuming_with_another_version_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record().check_resumes(record(), tmp_path / RECORD_FILE)
    assert not caplog.records
    record(bundle={"name": "b", "version": "1.1.0"}).check_resumes(record(), tmp_path / RECORD_FILE)
    assert "the training began with b 1.0.0 and resumes with b 1.1.0" in caplog.text


NEEDED = [field.name for field in dataclasses.fields(RunRecord) if field.default is dataclasses.MISSING]


@pytest.mark.parametrize("key", NEEDED)
def test_record_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    content = dataclasses.asdict(record())
    del content[key]
    (tmp_path / RECORD_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"'{key}' is missing"):
        read_record(tmp_path / RECORD_FILE)


@pytest.mark.parametrize("patient", [None, "P1"])
def test_cases_of_the_initial_weights_count_as_seen(tmp_path: Path, patient: str | None) -> None:
    (tmp_path / "scan.nii").write_bytes(b"scan")
    scan = digest_of(tmp_path / "scan.nii") if patient is None else "1" * 64
    base = record(train_cases=[], validation_cases=[{**CASE, "image": scan, "patient": patient}])
    record(train_cases=[], init_cases=base.seen_cases).write(tmp_path)
    case = {"case": "other", "image": str(tmp_path / "scan.nii"), "patient": patient}
    with pytest.raises(InputError, match=r"have seen 1 of 1 cases: other in init_cases"):
        check_unseen([case], tmp_path / "model.pt", allow=False)


def test_record_before_init_weights_is_read(tmp_path: Path) -> None:
    content = dataclasses.asdict(record())
    del content["init_weights"], content["init_cases"]
    (tmp_path / RECORD_FILE).write_text(json.dumps(content))
    assert read_record(tmp_path / RECORD_FILE) == record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {**record().settings, "spacing": [1.0, 1.0, 3.0]}}, r"spacing: \[1.0, 1.0, 3.0\] here"),
        ({"settings": {"spacing": [1.0, 1.0, 2.0]}}, "network_def: null here"),
        ({"fold": 1}, "fold: 1 here, 0 in"),
        ({"seed": 4}, "seed: 4 here, 3 in"),
        ({"train_cases": [{**CASE, "image": "1" * 64}]}, "train_cases: a differ"),
        ({"validation_cases": [CASE]}, "validation_cases: a differ"),
        ({"train_cases": [{**CASE, "class": "normal"}]}, "train_cases: a differ"),
        ({"train_cases": [{**CASE, "label_code": "brats2023"}]}, "train_cases: a differ"),
    ],
)
def test_resuming_another_training_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        record(**change).check_resumes(record(train_cases=[OTHER_CASE]), Path("run.json"))


def test_resuming_a_record_without_classes_is_allowed() -> None:
    record(train_cases=[OTHER_CASE]).check_resumes(record(), Path("run.json"))


def test_a_record_keeps_what_changes_at_each_resumption() -> None:
    before = record(training={"learning_rate": 0.1, "max_epochs": 5})
    other = record(training={"learning_rate": 0.2, "max_epochs": 5})
    once = before.resumed(other, 3)
    assert once.training == before.training
    assert once.changes == [{"epoch": 3, "training": {"learning_rate": 0.2}}]
    assert once.resumed(other, 4) == once
    back = once.resumed(before, 4)
    assert back.changes == [*once.changes, {"epoch": 4, "training": {"learning_rate": 0.1}}]


def test_a_record_knows_its_weights_and_those_before(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    digests = []
    for value in range(3):
        torch.save({"a": torch.tensor(value)}, weights)
        digests.append(made_by(weights)["weights"])
    first = record().with_weights("model.pt", digests[0])
    second = first.with_weights("model.pt", digests[1])
    assert second.with_weights("model.pt", digests[1]) == second
    second.write(tmp_path)
    for value in range(2):
        torch.save({"a": torch.tensor(value)}, weights)
        assert record_of(weights) == second
    torch.save({"a": torch.tensor(2)}, weights)
    with pytest.raises(InputError, match=r"run.json: the record of other weights than model.pt \(SHA-256 \w{8} here"):
        record_of(weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"model.pt: not a complete file"):
        record_of(weights)
    weights.write_bytes(whole)
    second.with_weights("model.pt", digests[2]).write(tmp_path)
    assert record_of(weights) is not None


def test_a_record_of_a_network_of_a_program_is_replaced(tmp_path: Path) -> None:
    """Expect that a network that a program has set does not end its training."""
    written = record(settings={"network_def": "torch.nn.Conv3d"})
    written.write(tmp_path)
    written.with_weights("model.pt", "0" * 64).write(tmp_path)
    (tmp_path / RECORD_FILE).write_text("{}")
    with pytest.raises(InputError, match="another file of this name"):
        written.write(tmp_path)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"image": "0" * 64}, "b, with the same image as a"),
        ({"patient": "P1"}, "b, of the same patient P1 as a"),
        ({}, ""),
    ],
)
def test_a_case_in_two_lists_is_found(change: dict, shared: str) -> None:
    case = {**CASE, "case": "b", "image": "1" * 64, **change}
    assert first_shared([case], [{**CASE, "patient": "P1"}]) == shared


def test_resuming_with_another_learning_rate_is_allowed() -> None:
    record(training={"learning_rate": 0.01}, command="python -m other", versions={}).check_resumes(record(), Path("x"))


def test_same_setting_ignores_package_names_and_json_types() -> None:
    packed = {"_target_": "net_v1.networks.Net", "channels": (2, 4), "_requires_": "@bundle_code"}
    assert same_setting(packed, record().settings["network_def"])
    assert not same_setting({**packed, "channels": [2, 5]}, record().settings["network_def"])
    assert not same_setting({**packed, "norm": "batch"}, record().settings["network_def"])
    assert not same_setting({**packed, "_target_": "common.methods.net.Other"}, record().settings["network_def"])


def test_components_within_a_setting_keep_their_package() -> None:
    inner = {"_target_": "net_v1.rivals.inner", "width": 8, "_requires_": "@bundle_code"}
    packed = {"_target_": "net_v1.rivals.Outer", "network": inner, "_requires_": "@bundle_code"}
    parser = ConfigParser({"network_def": packed, "normalize": [dict(inner), {"_target_": "Flip"}]})
    inner = {"_target_": "common.rivals.inner", "width": 16}
    outer = {"_target_": "common.rivals.Outer", "network": inner}
    settings = {"network_def": outer, "normalize": [inner, {"_target_": "Flip", "axis": 1}]}
    apply_settings(parser, settings, parser.get(""), (), Path("run.json"), {})
    wider = {"_target_": "net_v1.rivals.inner", "width": 16, "_requires_": "@bundle_code"}
    assert parser["network_def"] == {**packed, "network": wider}
    assert parser["normalize"] == [wider, {"_target_": "Flip", "axis": 1}]


def test_order_of_labels_counts() -> None:
    one, other = {"liver": 1, "tumour": 2}, {"tumour": 2, "liver": 1}
    assert same_setting(one, dict(one)) and not same_setting(one, other)
    message = difference("labels", one, other)
    assert message == 'labels: {"liver": 1, "tumour": 2} here, {"tumour": 2, "liver": 1} in the record'


def test_digest_of_gz_is_that_of_its_content(tmp_path: Path) -> None:
    for name, level in (("a", 1), ("b", 9)):
        (tmp_path / f"{name}.nii.gz").write_bytes(gzip.compress(b"voxels" * 100, level))
    (tmp_path / "c.nii").write_bytes(b"voxels" * 100)
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-9])
    (tmp_path / "plain.nii.gz").write_bytes(b"voxels" * 100)
    names = ("a.nii.gz", "b.nii.gz", "c.nii", "plain.nii.gz", "cut.nii.gz")
    digests = [digest_of(str(tmp_path / name)) for name in names]
    assert len(set(digests[:4])) == 1 and digests[4] != digests[0]


def test_difference_names_the_innermost_key() -> None:
    one, other = {"_target_": "a.Net", "channels": [2]}, {"_target_": "a.Net", "channels": [4], "norm": "batch"}
    assert difference("network_def", one, other) == "network_def::channels: [2] here, [4] in the record"
    assert difference("n", {"a": 1}, {"a": 1, "b": 2}) == "n::b: not set here, 2 in the record"


def test_digest_follows_content_and_order(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in ("a", "b", "series/1", "series/2"):
        (tmp_path / name).write_text(name)
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    assert digest_of([one, other]) != digest_of([other, one])
    assert digest_of([one]) == digest_of(one)
    assert digest_of([one, str(tmp_path / "missing")]) is None
    before = digest_of(str(tmp_path / "series"))
    (tmp_path / "series" / "1").rename(tmp_path / "series" / "z")
    assert digest_of(str(tmp_path / "series")) == before
    (tmp_path / "series" / "2").write_text("changed")
    assert digest_of(str(tmp_path / "series")) != before


def test_weights_and_their_record_identify_a_network(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    alone = made_by(tmp_path / "model.pt")
    record().write(tmp_path)
    recorded = made_by(tmp_path / "model.pt")
    assert alone["weights"] == recorded["weights"] and alone["record"] == "none" != recorded["record"]
    assert made_by("untrained") == {"weights": "untrained", "record": "none"}
    assert made_by([tmp_path / "model.pt"] * 2) != recorded
