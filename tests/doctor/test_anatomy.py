"""Test headers that contradict the anatomy, with phantoms in every order of the axes."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.doctor import Findings, examine_data
from common.doctor.anatomy import CheckAnatomyd
from common.methods.mamtln import StomachPhantom
from common.methods.mpunet import LiverPhantom
from common.methods.multirnet import LungPhantom
from common.phantoms import Phantom, PhantomRecipe

PHANTOMS: Mapping[str, PhantomRecipe] = {
    "liver": LiverPhantom(size=(52, 44, 32), spacing=(5.5, 5.5, 6.5)),
    "stomach": StomachPhantom(size=(60, 50, 18), spacing=(5.0, 4.8, 6.5)),
    "lung": LungPhantom(size=(52, 44, 36), spacing=(5.5, 5.4, 6.0)),
}
CLASSES = {"liver": None, "stomach": "positive", "lung": "CAP"}
ORDERS = ["".join(o) for p in itertools.permutations(("LR", "AP", "IS")) for o in itertools.product(*p)]
SPINE, HEAD, LIVER = "the spine lies in front", "the head end lies at the feet", "the liver lies on the left"


@functools.cache
def make(name: str, seed: int) -> Phantom:
    return PHANTOMS[name](np.random.default_rng(seed), CLASSES[name])


def stored(array: np.ndarray, affine: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the same volume with its axes in this order, and its affine."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(order)
    )
    return nib.orientations.apply_orientation(array, turn), affine @ nib.orientations.inv_ornt_aff(turn, array.shape)


def messages(
    case: Phantom, order: str, header: str, caplog: pytest.LogCaptureFixture, change: Callable = lambda hu: hu
) -> str:
    """Return the warnings about a case stored in one order with the header of another."""
    caplog.clear()
    images = {}
    for key, array in {"image": case.images["CT"], "label": case.label}.items():
        voxels, affine = stored(change(array) if key == "image" else array, case.affine, order)
        wrong = stored(np.zeros(voxels.shape), np.eye(4), header)[1] if header != order else np.eye(4)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        affine = affine if header == order else wrong @ np.diag([*spacing, 1])
        images[key] = MetaTensor(torch.as_tensor(voxels.copy())[None], affine=affine)
    CheckAnatomyd(liver=len(np.unique(case.label)) == 3)(images)
    return caplog.text


@pytest.mark.parametrize("name", PHANTOMS)
def test_right_header_passes_in_every_order(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(2):
        case = make(name, seed)
        for order in ORDERS[seed::8]:
            assert messages(case, order, order, caplog) == ""


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize(
    ("order", "header", "expected"),
    [
        ("LPS", "RAS", {SPINE, LIVER}),
        ("RAS", "LPS", {SPINE, LIVER}),
        ("RPS", "RAS", {SPINE}),
        ("LAS", "RAS", {LIVER}),
        ("RAI", "RAS", {HEAD}),
        ("LPI", "RAS", {SPINE, HEAD, LIVER}),
    ],
)
def test_wrong_header_is_found(
    name: str, order: str, header: str, expected: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    seen = {"liver": {SPINE, HEAD, LIVER}, "stomach": {SPINE}, "lung": {SPINE}}[name]  # lungs alone have two ends alike
    for seed in range(2):
        found = messages(make(name, seed), order, header, caplog)
        assert {message for message in (SPINE, HEAD, LIVER) if message in found} == expected & seen
        assert not found or f"the anatomy contradicts the header ({header})" in found


def test_patient_may_lie_prone(caplog: pytest.LogCaptureFixture) -> None:
    case = make("liver", 0)

    def prone(hu: np.ndarray) -> np.ndarray:
        """Move the table from behind the back to the front."""
        hu = stored(hu, case.affine, "RAS")[0].copy()
        depth = int(np.flatnonzero((hu > 0).sum((0, 2)) > 200)[0])  # of the first slab of skin
        table = hu[:, :depth].copy()
        hu[:, :depth] = -1000
        hu[:, -depth:] = np.where(hu[:, -depth:] > -500, hu[:, -depth:], table[:, ::-1])
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(case.affine)
        )
        return nib.orientations.apply_orientation(hu, back)

    assert messages(case, "RAS", "RAS", caplog, prone) == ""
    assert SPINE not in messages(case, "RPS", "RAS", caplog, prone)


@pytest.mark.parametrize("empty", [-1000.0, 40.0])
def test_volume_without_a_trunk_passes(empty: float, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).normal(empty, 20, (1, 30, 28, 20))
    CheckAnatomyd(liver=True)({"image": MetaTensor(torch.as_tensor(noise), affine=np.diag([5.0, 5, 5, 1]))})
    assert caplog.text == ""


def test_doctor_notes_a_wrong_header(bundle: Path, tmp_path: Path, write_nifti: Callable) -> None:
    train = json.loads((bundle / "configs" / "train.json").read_text())
    train |= {"modalities": ["CT"], "labels": {"liver": 1, "tumour": 2}}
    train["load"][4] = {"_target_": "common.transforms.CheckHounsfieldd", "keys": "image"}
    (bundle / "configs" / "train.json").write_text(json.dumps(train))
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").write_text(json.dumps({**inference, "modalities": ["CT"]}))
    lists: dict[str, list] = {}
    for seed, section in enumerate(("training", "validation", "test")):
        case, name = make("liver", seed), section[0]
        order = "LPS" if section == "validation" else "RAS"
        for key, array in {"": case.images["CT"], "_seg": case.label}.items():
            write_nifti(f"data/{name}{key}.nii.gz", stored(array, case.affine, order)[0], np.diag([5.5, 5.5, 6.5, 1]))
        lists[section] = [{"case": name, "image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"}]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(lists))
    findings = Findings()
    examine_data(findings, bundle, tmp_path / "data")
    notes = [(where, what) for kind, where, what in findings.found if kind == "note" and "header" in what]
    ((where, what),) = notes
    assert where == "validation v" and f"(RAS): {SPINE} and {LIVER}; if so in the whole data set" in what
