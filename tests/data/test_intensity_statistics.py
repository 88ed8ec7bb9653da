from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import CastToTyped

from common.data import intensity_of, keep_intensity, load_cases, read_intensity
from common.data import intensity_statistics as module
from common.errors import InputError
from common.transforms import ClipStandardized
from common.verbs.data_sets import intensity as verb

NUMBERS = {"low": -80.5, "high": 200, "mean": 61.25, "sd": 30.0}


@pytest.fixture
def cohort(tmp_path: Path, write_nifti: Callable[..., Path]) -> Path:
    """Write eight cases of different brightness in four folds, with air around and one voxel beyond 16 bits."""
    rng = np.random.default_rng(0)
    entries = []
    for i in range(8):
        image = rng.normal(20 * i, 40, size=(9, 8, 7)).round().astype(np.int32)
        label = (rng.random((9, 8, 7)) < 0.4).astype(np.float32)
        label[0, 0, 0], image[0, 0, 0] = 2, 70000 * (i == 0)
        image[label == 0] = -3024
        write_nifti(f"c{i}.nii.gz", image)
        write_nifti(f"c{i}_seg.nii.gz", label)
        entries.append({"image": f"c{i}.nii.gz", "label": f"c{i}_seg.nii.gz", "fold": i % 4, "order": i})
    lists = {"training": entries[:5], "validation": entries[5:6], "test": entries[6:]}
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    return tmp_path


def expected(cohort: Path, fold: int | None) -> dict[str, float]:
    """Compute the statistics of all voxels at once, in NumPy."""
    values = []
    for case in load_cases(cohort, "training", fold=fold):
        image, label = (module.VolumeReader([key]).get_data([Path(case[key])])[0] for key in ("image", "label"))
        values.append(image[label > 0])
    foreground = np.concatenate(values).astype(np.float64)
    foreground = foreground[abs(foreground) <= 32767]  # the one voxel beyond 16 bits is damaged
    low, high = np.percentile(foreground, (0.5, 99.5))
    return {"low": low, "high": high, "mean": foreground.mean(), "sd": foreground.std()}


@pytest.mark.parametrize(("fold", "name", "cases"), [(None, "intensity.json", 5), (1, "intensity_fold1.json", 4)])
def test_statistics_are_of_the_foreground_of_the_training_cases(
    cohort: Path, fold: int | None, name: str, cases: int
) -> None:
    found = intensity_of(cohort, fold)
    assert {key: found[key] for key in NUMBERS} == pytest.approx(expected(cohort, fold))
    assert found["low"] > -200 and found["low"] % 1 and found["cases"] == cases
    assert read_intensity(cohort / name) == found
    assert [p.name for p in cohort.glob("intensity*")] == [name]


def test_folds_have_their_own(cohort: Path) -> None:
    found = [intensity_of(cohort, fold) for fold in (None, 0, 1)]
    assert len({f["digest"] for f in found}) == len({f["mean"] for f in found}) == 3


def test_a_value_mapped_to_background_does_not_count(cohort: Path) -> None:
    found = intensity_of(cohort, None, ("CT",), {"tumour": 1}, {"1": 1, "2": 0})
    with pytest.raises(InputError, match=r"5 other training cases .* label_map; remove this file"):
        intensity_of(cohort)
    for path in cohort.glob("c*_seg.nii.gz"):
        relabel(path, 2, 0)
    assert {key: found[key] for key in NUMBERS} == pytest.approx(expected(cohort, None))


def test_mean_and_deviation_are_of_the_voxels_before_clipping(tmp_path: Path, write_nifti: Callable[..., Path]) -> None:
    """Expect 19.9 and 98.5 for 990 voxels of 10 HU and 10 of 1000 HU."""
    image = np.full((10, 10, 10), 10, dtype=np.int16)
    image[0, 0] = 1000
    write_nifti("a.nii.gz", image)
    write_nifti("a_seg.nii.gz", np.ones((10, 10, 10), dtype=np.uint8))
    case = {"image": "a.nii.gz", "label": "a_seg.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [case], "validation": [case]}))
    found = intensity_of(tmp_path)
    assert (found["mean"], found["sd"]) == (pytest.approx(19.9), pytest.approx(98.5038, abs=1e-3))


def test_a_corrected_label_needs_new_statistics(cohort: Path) -> None:
    intensity_of(cohort)
    relabel(cohort / "c7_seg.nii.gz", 2, 0)  # a test case
    intensity_of(cohort)
    relabel(cohort / "c0_seg.nii.gz", 2, 0)
    with pytest.raises(InputError, match="from other labels or with another label_map; remove this file"):
        intensity_of(cohort)


def relabel(path: Path, before: int, after: int) -> None:
    label = nib.load(path)
    values = np.asarray(label.dataobj).copy()
    values[values == before] = after
    nib.save(nib.Nifti1Image(values, label.affine), path)


def test_the_file_is_read_again_for_the_same_cases_alone(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = intensity_of(cohort)
    monkeypatch.setattr(module, "_foreground_counts", lambda *_: pytest.fail("computed again"))
    assert intensity_of(cohort) == found
    lists = json.loads((cohort / "dataset.json").read_text())
    lists["training"].reverse()
    (cohort / "dataset.json").write_text(json.dumps(lists))
    assert intensity_of(cohort) == found
    lists["training"][0], lists["test"][0] = lists["test"][0], lists["training"][0]
    (cohort / "dataset.json").write_text(json.dumps(lists))
    with pytest.raises(
        InputError, match=r"intensity.json: .*5 other training cases than the 5 of .*; remove this file"
    ):
        intensity_of(cohort)
    assert read_intensity(cohort / "intensity.json") == found


def test_a_read_only_folder_does_not_stop_the_run(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = intensity_of(cohort)
    (cohort / "intensity.json").unlink()

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.replace", read_only)
    assert intensity_of(cohort) == expected
    assert not (cohort / "intensity.json").exists()
    assert "cannot be written (Read-only file system)" in caplog.text


def test_the_first_process_computes_and_the_others_wait(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def barrier() -> None:
        """Write the file as the first process does before it comes to its own barrier."""
        monkeypatch.setattr("ignite.distributed.utils.barrier", lambda: None)
        with monkeypatch.context() as first:
            first.setattr("ignite.distributed.utils.get_world_size", lambda: 1)
            first.setattr("ignite.distributed.utils.get_rank", lambda: 0)
            done.append(intensity_of(cohort))
        monkeypatch.setattr(module, "_foreground_counts", lambda *_: pytest.fail("computed again"))

    monkeypatch.setattr("ignite.distributed.utils.barrier", barrier)
    monkeypatch.setattr("ignite.distributed.utils.get_world_size", lambda: 2)
    monkeypatch.setattr("ignite.distributed.utils.get_rank", lambda: 1)
    found = intensity_of(cohort)
    assert done == [found]


def test_cases_without_foreground_or_contrast_are_refused(cohort: Path, write_nifti: Callable[..., Path]) -> None:
    for i in range(5):
        write_nifti(f"c{i}_seg.nii.gz", np.zeros((9, 8, 7), dtype=np.uint8))
    with pytest.raises(InputError, match="no training case has a foreground voxel"):
        intensity_of(cohort)
    label = np.zeros((9, 8, 7), dtype=np.uint8)
    label[3, 3, 3] = 1
    write_nifti("c0_seg.nii.gz", label)
    with pytest.raises(InputError, match="has no contrast: nearly all voxels are"):
        intensity_of(cohort)
    write_nifti("c1_seg.nii.gz", label[:8])
    with pytest.raises(InputError, match=r"c1_seg.nii.gz: shape \[8, 8, 7\], but its image has \[9, 8, 7\]"):
        intensity_of(cohort)
    assert not (cohort / "intensity.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "intensity.json: no such file; training writes it beside its weights"),
        ("{", "intensity.json: not valid JSON"),
        ("[]", "intensity.json: expected an object with the numbers low, high, mean, sd"),
        (json.dumps({"low": 0, "high": 1, "mean": 0}), "expected an object with the numbers"),
        (json.dumps({**NUMBERS, "sd": "30"}), "expected an object with the numbers"),
        (json.dumps({**NUMBERS, "sd": float("nan")}), "expected an object with the numbers"),
        (json.dumps({**NUMBERS, "sd": 0}), "expected low below high and sd above 0, found low -80.5, .* sd 0"),
        (json.dumps({**NUMBERS, "low": 200}), "expected low below high"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "intensity.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_intensity(path)


def test_they_are_kept_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, steps = tmp_path / "models", [CastToTyped("image"), ClipStandardized("image", NUMBERS)]
    with monkeypatch.context() as another:
        another.setattr("ignite.distributed.get_rank", lambda: 1)
        keep_intensity(steps, models)
    keep_intensity(steps[:1], models)  # uses no statistics
    assert not models.exists()
    keep_intensity(steps, models)
    keep_intensity(steps, models)
    assert read_intensity(models / "intensity.json") == NUMBERS
    with pytest.raises(InputError, match=r"mean 61.25, .*training cases have .*mean 3, .*choose another --ckpt_dir"):
        keep_intensity([ClipStandardized("image", {**NUMBERS, "mean": 3})], models)
    assert read_intensity(models / "intensity.json") == NUMBERS


def test_the_command_prints_the_numbers_and_the_file(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb(str(cohort), fold=2)
    numbers = expected(cohort, 2)
    line, file = capsys.readouterr().out.splitlines()
    assert line == ", ".join(f"{key} {value:.6g}" for key, value in numbers.items())
    assert file == f"{cohort / 'intensity_fold2.json'}: statistics of 4 training cases"


def test_known_statistics_need_no_data_list(tmp_path: Path) -> None:
    known = {"low": -60.0, "high": 180.0, "mean": 80.0, "sd": 50.0}
    assert intensity_of(tmp_path, pretrained="model.pt", known=known) == known
