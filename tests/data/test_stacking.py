from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import EnsureChannelFirst, LoadImage

from common.__main__ import main
from common.data import VolumeReader, find_cases
from common.data.stacking import stack_volumes, unstack_volume
from common.errors import InputError

from ..conftest import BUNDLES

SHAPE = (7, 6, 5)
VOLUMES = np.random.default_rng(0).integers(0, 900, (3, *SHAPE)).astype(np.int16)
OBLIQUE = np.array([[0.0, -2, 0.3, 5], [1.5, 0, 0, 6], [0, 0.4, 3, 7], [0, 0, 0, 1]])

Write = Callable[..., Path]


def write_case(
    write: Write, names: str = "T1 T2 CE", dtype: str = "i2", affine: np.ndarray | None = None
) -> list[Path]:
    volumes = (VOLUMES % 120).astype(dtype)
    return [write(f"P_{name}.nii.gz", volume, affine) for name, volume in zip(names.split(), volumes)]


def stored(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4"])
def test_unstacked_is_what_was_stacked(write_nifti: Write, tmp_path: Path, dtype: str, ending: str) -> None:
    files = write_case(write_nifti, dtype=dtype, affine=OBLIQUE)
    out = tmp_path / "out" / f"P{ending}"
    assert stack_volumes(files, out) == ("T1", "T2", "CET1")
    found = unstack_volume(out, tmp_path / "back")
    assert [path.name for path in found] == ["P_T1.nii.gz", "P_T2.nii.gz", "P_CET1.nii.gz"]
    for path, file in zip(found, files):
        np.testing.assert_array_equal(stored(path), stored(file))
        np.testing.assert_array_equal(nib.load(path).affine, nib.load(file).affine)
        assert nib.load(path).get_data_dtype() == np.dtype(dtype).newbyteorder("=")
    assert sorted(path.name for path in tmp_path.rglob("*.nii*") if path.parent != tmp_path) == sorted(
        [out.name, *(path.name for path in found)]
    )


def test_integers_beyond_those_of_float32_are_kept(write_nifti: Write, tmp_path: Path) -> None:
    large = VOLUMES[0].astype(np.int32) + 2**24 + 1
    stack_volumes([write_nifti("a.nii", large), write_nifti("b.nii", VOLUMES[1])], tmp_path / "c.nii")
    np.testing.assert_array_equal(stored(tmp_path / "c.nii"), np.stack([large, VOLUMES[1]], axis=3))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("u1", "i2"), "i2"),
        (("u2", "i2"), "i4"),
        (("u4", "i2"), "i8"),
        (("i2", "f4"), "f4"),
        (("i4", "f4"), "f4"),
        (("f8", "f8"), "f4"),
    ],
)
def test_the_type_holds_all(write_nifti: Write, tmp_path: Path, dtypes: tuple[str, str], expected: str) -> None:
    volumes = [(volume % 200).astype(dtype) for volume, dtype in zip(VOLUMES, dtypes)]
    stack_volumes([write_nifti(f"{i}.nii", v) for i, v in enumerate(volumes)], tmp_path / "c.nii")
    assert nib.load(tmp_path / "c.nii").get_data_dtype() == expected
    np.testing.assert_array_equal(stored(tmp_path / "c.nii"), np.stack(volumes, axis=3))


@pytest.mark.parametrize("signed", ["i8", "i1"])
def test_integers_that_no_type_holds_are_refused(tmp_path: Path, signed: str) -> None:
    large = np.full(SHAPE, 2**60 + 1, np.uint64)
    for name, volume in (("a", large), ("b", VOLUMES[0].astype(signed)), ("c", VOLUMES[1].astype(np.float32))):
        nib.save(nib.Nifti1Image(volume, np.eye(4), dtype=volume.dtype), tmp_path / f"{name}.nii")
    a, b, c = (tmp_path / f"{name}.nii" for name in "abc")
    message = rf"a.nii uint64, b.nii {np.dtype(signed)}: no integer type .*; convert unsigned files to"
    with pytest.raises(InputError, match=message):
        stack_volumes([a, b], tmp_path / "out" / "d.nii")
    assert not (tmp_path / "out").exists()
    stack_volumes([a, a], tmp_path / "d.nii", ["1", "2"])
    np.testing.assert_array_equal(stored(tmp_path / "d.nii"), np.stack([large, large], axis=3))
    stack_volumes([a, b, c], tmp_path / "e.nii")
    assert nib.load(tmp_path / "e.nii").get_data_dtype() == np.float32


def test_integers_with_slope_and_intercept_are_real_numbers(write_nifti: Write, tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOLUMES[0], np.diag([1.5, 0.75, 4, 1]))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii")
    stack_volumes([tmp_path / "a.nii", write_nifti("b.nii", VOLUMES[1])], tmp_path / "c.nii")
    assert nib.load(tmp_path / "c.nii").get_data_dtype() == np.float32
    np.testing.assert_array_equal(stored(tmp_path / "c.nii")[..., 0], 0.5 * VOLUMES[0] + 3)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_the_reader_makes_the_same_of_the_stack_as_of_the_files(
    write_nifti: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    """For every bundle of several modalities, with one of them on another grid."""
    metadata = [json.loads((bundle / "configs/metadata.json").read_text()) for bundle in BUNDLES]
    channels = [m["network_data_format"]["inputs"]["image"]["channel_def"] for m in metadata]
    several = [list(one.values()) for one in channels if len(one) > 1]
    assert ["T1", "T2", "CET1"] in several
    shifted = OBLIQUE.copy()
    shifted[:3, 3] += 1.3, -0.7, 0.9
    for names in several:
        volumes = np.random.default_rng(1).integers(-30000, 30000, (len(names), *SHAPE)).astype(dtype)
        files = [
            write_nifti(f"{len(names)}/{name}.nii.gz", volume, shifted if i == 1 else OBLIQUE)
            for i, (name, volume) in enumerate(zip(names, volumes))
        ]
        out = tmp_path / f"case of {len(names)}.nii.gz"
        caplog.clear()
        assert stack_volumes(files, out) == tuple(names)
        assert f"{names[1]}.nii.gz: another grid than {names[0]}.nii.gz; resampled onto it" in caplog.text
        assert nib.load(out).get_data_dtype() == np.float32
        load = LoadImage(reader=VolumeReader(names))
        separate, stacked = load(files), load(out)
        np.testing.assert_array_equal(stacked.numpy(), separate.numpy())
        np.testing.assert_allclose(stacked.affine, separate.affine, rtol=0, atol=1e-6)
        plain = EnsureChannelFirst()(LoadImage()(out))  # as other programs read it
        np.testing.assert_array_equal(plain.numpy(), separate.numpy())


def test_resampled_volumes_come_back_on_the_grid_of_the_first(
    write_nifti: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shifted = np.diag([1.5, 0.75, 4, 1])
    shifted[1, 3] = -0.75
    files = [write_nifti("T1.nii", VOLUMES[0]), write_nifti("T2.nii", VOLUMES[1], shifted)]
    with caplog.at_level(logging.WARNING):
        stack_volumes(files, tmp_path / "c.nii")
    assert "T2.nii: another grid than T1.nii; resampled onto it (it covers 88 % of it)" in caplog.text
    one, other = unstack_volume(tmp_path / "c.nii", tmp_path / "back")
    np.testing.assert_array_equal(stored(one), VOLUMES[0])
    np.testing.assert_allclose(stored(other)[:, :-1], VOLUMES[1][:, 1:], atol=1e-3)
    np.testing.assert_array_equal(nib.load(other).affine, np.diag([1.5, 0.75, 4, 1]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with
def test_metaimage_keeps_its_integers(write_nifti: Write, tmp_path: Path) -> None:
    itk = pytest.importorskip("itk", reason="MetaImage needs itk")
    files = write_case(write_nifti)
    itk.imwrite(itk.imread(str(files[0])), str(tmp_path / "T1.mha"))
    assert stack_volumes([tmp_path / "T1.mha", files[1]], tmp_path / "c.nii") == ("T1", "T2")
    np.testing.assert_array_equal(stored(tmp_path / "c.nii"), np.stack([stored(f) for f in files[:2]], axis=3))
    assert nib.load(tmp_path / "c.nii").get_data_dtype() == np.int16


@pytest.mark.parametrize(
    ("stems", "expected"),
    [
        ("P-fla P-t1 P-t1c P-t2", "FLAIR T1 CET1 T2"),
        ("P_T1 Q_T1", "P_T1 Q_T1"),
        ("before after", "before after"),
        ("P_T1 after", "P_T1 after"),
    ],
)
def test_names_of_the_channels(write_nifti: Write, tmp_path: Path, stems: str, expected: str) -> None:
    files = [write_nifti(f"{stem}.nii.gz", VOLUMES[i % 3]) for i, stem in enumerate(stems.split())]
    out = tmp_path / "case.1.nii.gz"
    assert stack_volumes(files, out) == tuple(expected.split())
    description = nib.load(out).header["descrip"].item().decode()
    assert description == "channels: " + expected.replace(" ", ",")
    found = unstack_volume(out, tmp_path / "back")
    assert [path.name for path in found] == [f"case.1_{name}.nii.gz" for name in expected.split()]


def test_unstacked_files_are_a_case_again(write_nifti: Write, tmp_path: Path) -> None:
    names = ("T1", "T2", "CET1")
    stack_volumes(write_case(write_nifti), tmp_path / "P7.nii.gz")
    files = unstack_volume(tmp_path / "P7.nii.gz", tmp_path / "scans")
    assert find_cases(tmp_path / "scans", names) == [{"case": "P7", "image": [str(path) for path in files]}]


@pytest.mark.parametrize("description", ["", "FSL5.0", "channels: a,b", "channels: ../a,b,c", "channels: a,,c"])
def test_a_file_that_names_no_channels(write_nifti: Write, tmp_path: Path, description: str) -> None:
    path = write_nifti("P.nii.gz", np.moveaxis(VOLUMES, 0, 3))
    image = nib.load(path)
    image.header["descrip"] = description
    nib.save(image, tmp_path / "Q.nii")
    found = unstack_volume(tmp_path / "Q.nii", tmp_path / "back")
    assert [path.name for path in found] == [f"Q_000{i}.nii.gz" for i in range(3)]
    np.testing.assert_array_equal([stored(path) for path in found], VOLUMES)
    named = unstack_volume(tmp_path / "Q.nii", tmp_path / "back", ["a", "b", "c"])
    assert [path.name for path in named] == ["Q_a.nii.gz", "Q_b.nii.gz", "Q_c.nii.gz"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["T1", "T2"], "--names T1,T2: expected 3, one for each channel, found 2"),
        (["T1", "T2", "t1"], "channels T1, T2, t1: two have the same name; give distinct names with --names"),
        (["T1", "../T2", "CE"], r"channel '\.\./T2': expected a name of letters"),
        (["T1", "T2,x", "CE"], "channel 'T2,x': expected a name of letters"),
        (["T1", "", "CE"], "channel '': expected a name of letters"),
        (["T1", "Ü", "CE"], "channel 'Ü': expected a name of letters"),
        (
            ["a" * 30, "b" * 30, "c" * 8],
            "70 characters with the commas, expected at most 69 .*; give shorter",
        ),
    ],
)
def test_names_that_do_not_do(write_nifti: Write, tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stack_volumes(write_case(write_nifti), tmp_path / "out" / "c.nii", names)
    assert not (tmp_path / "out").exists()


def test_the_longest_names_fit(write_nifti: Write, tmp_path: Path) -> None:
    names = ("a" * 30, "b" * 30, "c" * 7)
    stack_volumes(write_case(write_nifti), tmp_path / "c.nii", names)
    found = unstack_volume(tmp_path / "c.nii", tmp_path)
    assert [path.name for path in found] == [f"c_{name}.nii.gz" for name in names]


def test_a_file_given_twice_is_noticed(write_nifti: Write, tmp_path: Path) -> None:
    one, other, _ = write_case(write_nifti)
    with pytest.raises(InputError, match="channels P_T1, P_T2, P_T1: two have the same name"):
        stack_volumes([one, other, one], tmp_path / "c.nii")


def test_what_cannot_be_stacked(write_nifti: Write, tmp_path: Path) -> None:
    one, other, _ = write_case(write_nifti)
    several = write_nifti("4d.nii", np.moveaxis(VOLUMES, 0, 3))
    far = np.diag([1.0, 1, 4, 1000])
    far[:3, 3], far[3, 3] = 1000, 1
    elsewhere = write_nifti("far.nii", VOLUMES[0], far)
    for files, out, message in (
        ([], "c.nii", "none: expected at least two volumes"),
        ([one], "c.nii", "P_T1.nii.gz: expected at least two volumes in the order of the network's inputs"),
        ([one, other], "c.mha", r"--out .*c.mha: expected a file name that ends with \.nii or \.nii\.gz"),
        ([one, several], "c.nii", r"4d.nii: 3 channels, expected one, because each of P_T1, 4d .*unstack"),
        ([several, one], "c.nii", "4d.nii: 3 channels, expected one"),
        ([one, elsewhere], "c.nii", r"far.nii: does not overlap .*P_T1.nii.gz"),
        ([one, tmp_path / "no.nii"], "c.nii", "no.nii: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            stack_volumes(files, tmp_path / "out" / out)
        assert not (tmp_path / "out").exists()


def test_a_singleton_fourth_axis_does_not_count(write_nifti: Write, tmp_path: Path) -> None:
    files = [write_nifti(f"T{i + 1}.nii", VOLUMES[i][..., None]) for i in range(2)]
    stack_volumes(files, tmp_path / "c.nii")
    np.testing.assert_array_equal(stored(tmp_path / "c.nii"), np.moveaxis(VOLUMES[:2], 0, 3))


def test_nothing_is_written_over(write_nifti: Write, tmp_path: Path) -> None:
    files = write_case(write_nifti)
    before = files[2].read_bytes()
    with pytest.raises(InputError, match=r"P_CE.nii.gz: already exists and is not overwritten; choose another --out"):
        stack_volumes(files[:2], files[2])
    stack_volumes(files, tmp_path / "P.nii.gz", ["T0", "T2", "CE"])
    with pytest.raises(InputError, match=r"P_T2.nii.gz and 1 more: already exists"):
        unstack_volume(tmp_path / "P.nii.gz", tmp_path)
    assert files[2].read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["P.nii.gz", *(file.name for file in files)])


def test_what_cannot_be_unstacked(write_nifti: Write, tmp_path: Path) -> None:
    one = write_case(write_nifti)[0]
    several = write_nifti("4d.nii", np.moveaxis(VOLUMES, 0, 3))
    with pytest.raises(InputError, match=r"P_T1.nii.gz: one channel, expected a 4-D file"):
        unstack_volume(one, tmp_path / "back")
    with pytest.raises(InputError, match="--names a,b: expected 3, one for each channel, found 2"):
        unstack_volume(several, tmp_path / "back", ["a", "b"])
    with pytest.raises(InputError, match=r"--out .*P_T1.nii.gz is a file, expected a folder"):
        unstack_volume(several, one)
    assert not (tmp_path / "back").exists()


def test_a_stacked_case_is_written_whole_and_reproducibly(
    write_nifti: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_case(write_nifti)
    for hours in (0, 1):
        monkeypatch.setattr("time.time", lambda hours=hours: 1.8e9 + 3600 * hours)
        stack_volumes(files, tmp_path / f"{hours}.nii.gz")
    assert (tmp_path / "0.nii.gz").read_bytes() == (tmp_path / "1.nii.gz").read_bytes()
    write_bytes = Path.write_bytes

    def interrupted(path: Path, content: bytes) -> None:
        write_bytes(path, content[:9])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(InputError, match=r"c\.nii\.gz: cannot be written \(disk full\)"):
        stack_volumes(files, tmp_path / "out" / "c.nii.gz")
    assert not list((tmp_path / "out").iterdir())


def test_verbs(
    write_nifti: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(path) for path in write_case(write_nifti)]
    out = tmp_path / "P.nii.gz"

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["common", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    assert run("stack", *files, "--out", out) == f"{out}: channels T1, T2, CET1\n"
    back = tmp_path / "back"
    assert run("unstack", out, "--out", back) == "".join(f"{back}/P_{n}.nii.gz\n" for n in ("T1", "T2", "CET1"))
    other = tmp_path / "Q.nii"
    assert run("stack", *files, "--out", other, "--names", "1,2,T1 late") == f"{other}: channels 1, 2, T1 late\n"
    assert run("stack", *files, "--names=1,2,3", "--out", tmp_path / "R.nii").endswith("channels 1, 2, 3\n")
    assert run("unstack", other, "--names", "a,b,c", "--out", back) == "".join(f"{back}/Q_{n}.nii.gz\n" for n in "abc")
    with pytest.raises(SystemExit, match=r"^error: .*P.nii.gz: already exists and is not overwritten"):
        run("stack", *files, "--out", out)
    with pytest.raises(SystemExit, match=r"^error: --names 5: expected 3, one for each channel, found 1"):
        run("unstack", out, "--names", 5, "--out", back)
