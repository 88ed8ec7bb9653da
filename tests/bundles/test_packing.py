"""Test what packing one bundle writes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from common.__main__ import main
from common.errors import InputError
from common.methods.mpunet import MPUNet
from common.packaging import pack_bundle, write

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mpunet.tiny import MPUNET
from .packed import pack_tiny, parser_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("warm_packing"),
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI's, of any config
]


def test_packing_again_replaces_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    folder = tmp_path / "dist" / MPUNET.name
    pack_tiny(MPUNET, tmp_path / "dist", {})
    before = (folder / "SHA256SUMS").read_bytes()
    (folder / "configs" / "__pycache__").mkdir()
    (folder / "configs" / "__pycache__" / "a.pyc").touch()
    pack_tiny(MPUNET, tmp_path / "dist", {"precision": "float32"})
    assert (folder / "SHA256SUMS").read_bytes() != before and not list(folder.rglob("*.pyc"))
    assert {p.name for p in (tmp_path / "dist").iterdir()} == {MPUNET.name, f"{MPUNET.name}_v0.1.0.zip"}


def test_packing_overwrites_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    (tmp_path / "dist" / MPUNET.name).mkdir(parents=True)
    with pytest.raises(InputError, match="is not a packed bundle; choose another --out"):
        pack_tiny(MPUNET, tmp_path / "dist", {})
    pack_tiny(MPUNET, tmp_path / "mine", {})
    mask = tmp_path / "mine" / MPUNET.name / "eval" / "P1_seg.nii.gz"
    mask.parent.mkdir()
    mask.touch()
    with pytest.raises(InputError, match=r"P1_seg\.nii\.gz: not a file of the package .*; move it"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    shutil.rmtree(mask.parent)
    card = tmp_path / "mine" / MPUNET.name / "docs" / "README.md"
    card.write_text("My own card.")
    with pytest.raises(InputError, match=r"README\.md: changed since it was packed; move it elsewhere"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    assert card.read_text() == "My own card."
    shutil.rmtree(tmp_path / "mine" / MPUNET.name)
    archive = next((tmp_path / "mine").glob("*.zip"))
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr(f"{MPUNET.name}/notes.txt", "mine")
    before = archive.read_bytes()
    with pytest.raises(InputError, match=r"\.zip: another file of this name, or one that was changed since"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    assert archive.read_bytes() == before


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ('{"spacng": 1}', r"unknown setting 'spacng' of liver_ct_mpunet, in .*overlay\.json"),
        ('{"target": [0, 1, 2]}', "unknown setting 'target' of liver_ct_mpunet, .*; use labels and label_map"),
        ('{"version": "0.2.0"}', "unknown setting 'version' of liver_ct_mpunet"),  # the right name is "_meta_::version"
        ("[1]", r"overlay\.json: expected a JSON object of settings"),
        ("{", r"overlay\.json: not valid JSON"),
    ],
)
def test_wrong_overlay_is_refused(tmp_path: Path, overlay: str, message: str) -> None:
    (tmp_path / "overlay.json").write_text(overlay)
    with pytest.raises(InputError, match=message):
        pack_bundle(MPUNET, "model.pt", tmp_path / "dist", tmp_path / "overlay.json")
    assert not (tmp_path / "dist").exists()


def test_a_note_in_an_overlay_needs_no_setting(tmp_path: Path) -> None:
    (tmp_path / "overlay.json").write_text('{"_note": "mine"}')
    with pytest.raises(InputError, match=r"model\.pt: no such file"):  # the next thing that packing reads
        pack_bundle(MPUNET, "model.pt", tmp_path / "dist", tmp_path / "overlay.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_meta_::version": "0.2.0"},
            'version 0.2.0 is not in the changelog .* overlay by "_meta_::changelog::0.2.0"',
        ),
        ({"_meta_::version": "../0.2.0"}, "version '../0.2.0' in the metadata; expected text such as"),
        (
            {"network_def::out_channels": 3},
            "network_def::out_channels is 3, but labels are liver 1: expected 2, the background included",
        ),
        (
            {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}},
            "segments: codes for liver, but labels are kidney 1, tumour 2; give the codes of these labels",
        ),
        (
            {"_meta_::network_data_format::post_processed_outputs::pred::channel_def": {"0": "background", "1": "cat"}},
            r"channel_def of the label map in metadata\.json is 0 background, 1 cat, but labels are liver 1",
        ),
        (
            {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}, "segments": {}},
            r"from_liver_ct_mpunet/model\.pt: the bundle's network could not be scripted .*: weights of another",
        ),
        ({"_meta_::verzion": "0.2.0"}, r"unknown setting 'verzion' of metadata\.json, .*; did you mean 'version'\?"),
        (
            {"network_def::channels": [2, 2, 4, 4, 16]},
            r"from_liver_ct_mpunet/model\.pt: the bundle's network could not be scripted .*: weights of another",
        ),
    ],
)
def test_refused_package_leaves_no_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack_tiny(MPUNET, tmp_path / "dist", changes)
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").iterdir())


def test_network_must_match_the_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"returns \(1, 2, 32, 32, 8\), but metadata.json has 5 channels"):
        pack_tiny(MPUNET, tmp_path / "dist", {"_meta_::network_data_format::outputs::pred::num_channels": 5})


def test_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["common", "pack", MPUNET.name, "--weights", "no.pt", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: no\.pt: no such file; train the bundle, or give --weights FILE"):
        main()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: b holds values that are not finite"):
        pack_bundle(MPUNET, tmp_path / "model.pt", tmp_path / "dist")
    with pytest.raises(InputError, match="a folder; train the bundle, or give --weights FILE"):
        pack_bundle(MPUNET, tmp_path, tmp_path / "dist")


def test_metadata_and_card_have_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    (tmp_path / "scores.csv").write_text("case,Dice tumour,HD95 tumour,AP\na,0.5,nan,nan\nb,1.0,3.0,nan\n")
    (tmp_path / "class_scores.csv").write_text("name,value\naccuracy,0.75\n")
    pack_tiny(MAMTLN_CT, tmp_path / "dist", {}, scores=tmp_path)
    folder = tmp_path / "dist" / MAMTLN_CT.name
    metrics = {"Dice tumour": 0.75, "HD95 tumour": 3.0, "AP": None, "class accuracy": 0.75}
    assert json.loads((folder / "configs" / "metadata.json").read_text())["eval_metrics"] == metrics
    card = (folder / "docs" / "README.md").read_text()
    assert "| class accuracy | 0.75 |" in card and "| 1 | tumour |" in card
    assert re.match(r"---\nlicense: apache-2.0\n(.+\n)+---\n\n# MA-MTLN.*\n\n## This package\n", card)
    assert "![" not in card and "python -m common" not in card
    assert not [line for line in re.findall(r"```\n(.*?)```", card, re.DOTALL)[0].splitlines() if len(line) > 98]
    assert "none are shipped. The terms of your data" not in card and "- **Weights:** `models/model.pt`" in card
    (tmp_path / "scores.csv").write_text("case,Dice liver\na,0.5\n")
    with pytest.raises(InputError, match=r"scores\.csv: no score for region tumour; found Dice liver"):
        pack_tiny(MAMTLN_CT, tmp_path / "dist", {}, scores=tmp_path)


def test_a_package_takes_the_scores_of_nnu_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    cases = [{"prediction_file": f"{n}.nii.gz", "metrics": {"1": {"Dice": n / 4, "IoU": n / 8}}} for n in (1, 2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1}}))
    (tmp_path / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    pack_tiny(MAMTLN_CT, tmp_path / "dist", {}, scores=tmp_path)
    metadata = tmp_path / "dist" / MAMTLN_CT.name / "configs" / "metadata.json"
    assert json.loads(metadata.read_text())["eval_metrics"] == {"Dice tumour": 0.375, "IoU tumour": 0.1875}


def test_metadata_and_card_have_other_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack weights that segment kidneys and their tumours with the liver's bundle."""
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    (tmp_path / "from_liver_ct_mpunet").mkdir()
    network = MPUNet(out_channels=3, channels=(2, 2, 4, 4, 8))
    torch.save(network.state_dict(), tmp_path / "from_liver_ct_mpunet" / "model.pt")
    changes = {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}, "segments": {}}
    pack_tiny(MPUNET, tmp_path / "dist", changes)
    folder = tmp_path / "dist" / MPUNET.name
    parser = parser_of(folder)
    about = json.loads((folder / "configs" / "metadata.json").read_text())
    for tensor in (about["network_data_format"][key]["pred"] for key in ("outputs", "post_processed_outputs")):
        assert tensor["channel_def"] == {"0": "background", "1": "kidney", "2": "tumour"}
    assert about["network_data_format"]["outputs"]["pred"]["num_channels"] == 3
    assert "Dice kidney" in about["eval_metrics"] and not [name for name in about["eval_metrics"] if "liver" in name]
    assert (parser["labels"], parser["segments"]) == (changes["labels"], {})
    assert "| 1 | kidney |\n| 2 | tumour |" in (folder / "docs" / "README.md").read_text()
