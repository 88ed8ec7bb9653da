"""Test the command ``doctor``: machine, bundle and data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from common.__main__ import main
from common.doctor import Findings, examine_bundle, examine_data, examine_machine

from ..conftest import BUNDLES


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["common", "doctor", *arguments])
        main()
        return capsys.readouterr().out

    return run


def test_doctor_examines_machine_bundle_and_data(verb: Callable, bundle: Path, listing: dict, tmp_path: Path) -> None:
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    out = verb(str(bundle), "--dataset_dir", "data")
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")][:3] == [
        "machine",
        "bundle",
        "data",
    ]
    assert "cases: 1 training, 1 validation, 1 test" in out and "classes, test: 1 yes" in out
    assert "caching 2 cases for a training: about" in out and "inference of the largest case: about" in out
    assert "note" in out and "failure" not in out


def test_failure_gives_exit_status_one(verb: Callable, bundle: Path, listing: dict, tmp_path: Path) -> None:
    listing["test"][0]["class"] = "maybe"
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(SystemExit, match=r"^error: failures: 1, notes: \d+; see the table above$"):
        verb(str(bundle), "--dataset_dir", "data", "--headers_only")


def test_data_set_needs_a_bundle(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: --dataset_dir data: name a bundle too"):
        verb("--dataset_dir", "data")
    with pytest.raises(SystemExit, match=r"^error: .*nothing"):
        verb("nothing")


def test_missing_or_old_packages_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ["numpy>=99", "no-such-package>=1", "nibabel>=1", 'tqdm>=99; extra == "itk"', 'absent; extra == "itk"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    findings = Findings()
    lines = examine_machine(findings, [tmp_path / "not" / "yet"])
    assert [finding[:2] for finding in findings.found if finding.where.startswith("package")] == [
        ("failure", "package numpy"),
        ("failure", "package no-such-package"),
        ("note", "package tqdm"),
    ]
    assert "absent missing" in next(line for line in lines if line.startswith("extra itk"))
    assert any(line.startswith("disk: ") and line.endswith(f"free at {tmp_path.resolve()}") for line in lines)


def test_versions_and_weights_are_checked(bundle: Path) -> None:
    findings = Findings()
    examine_bundle(findings, bundle)
    assert [finding[:2] for finding in findings.found] == [("note", "package monai"), ("note", "weights")]

    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    about.update(monai_version=metadata.version("monai"), required_packages_version={"no-such-package": "1.2"})
    (bundle / "configs" / "metadata.json").write_text(json.dumps(about))
    (bundle / "models").mkdir()
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), bundle / "models" / "model.pt")
    findings = Findings()
    lines = examine_bundle(findings, bundle)
    assert [finding[:2] for finding in findings.found] == [("failure", "package no-such-package")]
    assert any(line.endswith("load strictly") for line in lines)

    torch.save(torch.nn.Conv3d(2, 4, 1).state_dict(), bundle / "models" / "model.pt")
    findings = Findings()
    examine_bundle(findings, bundle)
    assert findings.found[-1][:2] == ("failure", "weights") and "weights of another network" in findings.found[-1].what


def test_labels_that_do_not_agree_are_found(bundle: Path, listing: dict, tmp_path: Path) -> None:
    """Other labels in the metadata are a failure; other names in a data list are a note."""
    settings = {"labels": {"liver": 1, "tumour": 2}, "regions": {}, "segments": {}, "label_map": {}}
    for name in ("train", "inference"):
        config = json.loads((bundle / "configs" / f"{name}.json").read_text()) | settings
        if name == "train":
            config["load"][3] = {"_target_": "common.transforms.CheckLabeld", "keys": "label"}
            config["load"][3] |= {key: f"@{key}" for key in ("labels", "label_map", "dataset_dir")}
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(config))
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    written = {"pred": {"channel_def": {"0": "background", "1": "kidney", "2": "tumour"}}}
    about["network_data_format"] = {"post_processed_outputs": written}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(about))
    findings = Findings()
    examine_bundle(findings, bundle)
    (failure,) = (finding for finding in findings.found if finding.where == "labels")
    assert failure.kind == "failure" and "1 kidney, 2 tumour, but labels are liver 1, tumour 2" in failure.what
    written["pred"]["channel_def"]["1"] = "liver"
    (bundle / "configs" / "metadata.json").write_text(json.dumps(about))
    findings = Findings()
    examine_bundle(findings, bundle)
    assert not [finding for finding in findings.found if finding.where == "labels"]

    listing["labels"] = {"0": "background", "1": "kidney", "2": "tumor"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    findings = Findings()
    examine_data(findings, bundle, tmp_path / "data")
    (note,) = (finding for finding in findings.found if finding.where == "data list")
    assert note.kind == "note" and "1 kidney where `labels` has liver" in note.what


def test_overlay_changes_what_is_examined(verb: Callable, bundle: Path, listing: dict, tmp_path: Path) -> None:
    overlay = {"load::3::num_classes": 3, "network_def::out_channels": 5}
    (tmp_path / "overlay.json").write_text(json.dumps(overlay))
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    out = verb(str(bundle), "--dataset_dir", "data", "--overlay", "overlay.json")
    assert "network: Conv3d, 15 parameters" in out
    with pytest.raises(SystemExit, match=r"^error: none\.json: not a config that can be read"):
        verb(str(bundle), "--overlay", "none.json")


def test_unknown_settings_of_an_overlay_are_failures(
    verb: Callable, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "overlay.json"
    file.write_text('["spacing"]')
    with pytest.raises(SystemExit, match=r"^error: overlay\.json: a list; expected an object"):
        verb(str(bundle), "--overlay", "overlay.json")
    settings = {"spacng": [1, 1, 1], "zzz::x": 1, "_meta_::version": "2", "load::3::num_classes": "@mine", "mine": 3}
    file.write_text(json.dumps(settings))
    with pytest.raises(SystemExit, match=r"^error: failures: 2"):
        verb(str(bundle), "--overlay", "overlay.json")
    failures = [line.split(None, 2)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("failure")]
    assert failures == [
        ["overlay", "unknown setting 'spacng' of overlay.json; did you mean 'spacing'?"],
        ["overlay", "unknown setting 'zzz::x' of overlay.json; leave it out"],
    ]


def test_error_in_the_data_list_keeps_earlier_findings(
    verb: Callable, bundle: Path, listing: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(SystemExit, match=r"^error: failures: 1, "):
        verb(str(bundle), "--dataset_dir", "data", "--fold", "0")
    out = capsys.readouterr().out
    assert "--fold 0, but its cases have no fold" in out and "note     weights" in out


@pytest.mark.parametrize("word, voxels", [("false", True), ("true", False)])
def test_headers_only_takes_true_or_false(
    verb: Callable, bundle: Path, listing: dict, tmp_path: Path, write_nifti: Callable, word: str, voxels: bool
) -> None:
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    write_nifti("data/test_gtv.nii.gz", np.full((12, 10, 6), 7, np.uint8))
    arguments = (str(bundle), "--dataset_dir", "data", "--headers_only", word)
    if voxels:
        with pytest.raises(SystemExit, match=r"^error: failures: 1, "):
            verb(*arguments)
    else:
        assert "failure" not in verb(*arguments)
    with pytest.raises(SystemExit, match=r"^2$"):
        verb(*arguments[:-1], "maybe")


@pytest.mark.parametrize(("headers_only", "true_class", "estimated"), [(0, "yes", 1), (1, "yes", 0), (0, "maybe", 0)])
def test_time_is_estimated_if_voxels_are_read_and_nothing_fails(
    verb: Callable,
    bundle: Path,
    listing: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    headers_only: int,
    true_class: str,
    estimated: int,
) -> None:
    listing["test"][0]["class"] = true_class
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    monkeypatch.setattr("common.verbs.doctor.estimate_training", lambda *args: ["training: 1 s per update"])
    arguments = [str(bundle), "--dataset_dir", "data", *["--headers_only"] * headers_only]
    if true_class == "yes":
        out = verb(*arguments)
    else:
        with pytest.raises(SystemExit):
            verb(*arguments)
        out = capsys.readouterr().out
    assert out.count("\n  training: 1 s per update\n") == estimated


def test_path_may_hold_a_number_sign(verb: Callable, bundle: Path, listing: dict, tmp_path: Path) -> None:
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    (tmp_path / "data").rename(tmp_path / "data #1")
    assert "failure" not in verb(str(bundle), "--dataset_dir", "data #1")


@pytest.mark.slow
@pytest.mark.parametrize("real", BUNDLES, ids=lambda path: path.name)
def test_memory_is_estimated_for_every_bundle(real: Path, tmp_path: Path, write_nifti: Callable) -> None:
    scan = np.random.default_rng(0).normal(0, 500, (24, 20, 12)).astype(np.float32)
    modalities = json.loads((real / "configs" / "inference.json").read_text())["modalities"]
    for name in modalities:
        write_nifti(f"scans/P1_{name}.nii.gz", scan)
    findings = Findings()
    lines = examine_data(findings, real, tmp_path / "scans", headers_only=True)
    assert not [finding for finding in findings.found if finding.kind == "failure"]
    assert lines[-1].startswith("inference of the largest case: ")
