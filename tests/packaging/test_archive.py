"""Test that zip files have reproducible bytes and are unpacked safely."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import InputError
from common.packaging.archive import leaves_folder, strip_debugging, unpack_zip, write_zip


def test_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    write_zip(tmp_path / "one.zip", {"top/a": b"a", "top/b": tmp_path / "b.txt"})
    (tmp_path / "b.txt").chmod(0o600)
    os.utime(tmp_path / "b.txt", (0, 0))
    write_zip(tmp_path / "two.zip", {"top/b": tmp_path / "b.txt", "top/a": b"a"})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    folder = unpack_zip(tmp_path / "one.zip", tmp_path / "out")
    assert folder == tmp_path / "out" / "top"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    "name", ["../a", "top/../../a", "/a", "..\\a", "C:\\a", "C:/a", "top\\..\\..\\a", "\\\\server\\a"]
)
def test_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert leaves_folder(name)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("top/good", "")
        entry = zipfile.ZipInfo()
        entry.filename = name  # zipfile would correct the name in the constructor
        archive.writestr(entry, "bad")
    with pytest.raises(InputError, match="outside of the folder"):
        unpack_zip(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "a").exists() and not (tmp_path / "out").exists()


def test_dots_in_a_name_do_not_leave_the_folder() -> None:
    assert not leaves_folder("top/a..b/..c")


def test_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        entry = zipfile.ZipInfo("top/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "target")
    with pytest.raises(InputError, match="is a link"):
        unpack_zip(tmp_path / "bad.zip", tmp_path / "out")


def test_second_file_of_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("top/a", "good")
        archive.writestr("top/a", "bad")
    with pytest.raises(InputError, match="two files of the same name"):
        unpack_zip(tmp_path / "bad.zip", tmp_path / "out")


def test_two_top_folders_are_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "bad.zip", {"a/a": b"", "b/b": b""})
    with pytest.raises(InputError, match="holds a, b; expected one folder"):
        unpack_zip(tmp_path / "bad.zip", tmp_path / "out")


def test_zip_bomb_is_refused_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.packaging.archive.ALWAYS_FITS", 10_000)
    write_zip(tmp_path / "text.zip", {"top/a": b"".join(b"%d " % n for n in range(20_000))})
    assert unpack_zip(tmp_path / "text.zip", tmp_path / "text").name == "top"
    write_zip(tmp_path / "bad.zip", {"top/a": bytes(3_000_000), "top/b": bytes(3_000_000)})
    with pytest.raises(InputError, match=r"bad\.zip: its 60\d\d bytes unpack to 6 MB; expected at most 20 times"):
        unpack_zip(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zip_larger_than_the_free_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(tmp_path / "good.zip", {"top/a": bytes(5000)})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=4000))
    with pytest.raises(InputError, match=r"good\.zip: unpacks to 5000 bytes, but only 4000 bytes are free"):
        unpack_zip(tmp_path / "good.zip", tmp_path / "out")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_zip_is_refused(tmp_path: Path, compression: int) -> None:
    content = b"".join(n.to_bytes(2, "big") for n in range(0, 60000, 7))
    write_zip(tmp_path / "good.zip", {"top/a": content}, compression)
    whole = (tmp_path / "good.zip").read_bytes()
    flipped = [whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :] for place in range(40, 2000, 70)]
    for bad in (b"", b"no zip", whole[:-30], *flipped):
        (tmp_path / "bad.zip").write_bytes(bad)
        with pytest.raises(InputError, match=r"bad\.zip: not a complete zip file"):
            unpack_zip(tmp_path / "bad.zip", tmp_path / "out")


def test_scripted_network_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    network = torch.nn.Conv1d(1, 1, 1)
    torch.jit.save(torch.jit.script(network), path, _extra_files={"note.json": "{}"})
    strip_debugging(path)
    source = str(Path(torch.nn.__file__).parent).encode()
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if source in archive.read(name) or "debug" in name]
        assert archive.read("model/extra/note.json") == b"{}"
    x = torch.ones(1, 1, 3)
    torch.testing.assert_close(torch.jit.load(path)(x), network(x))
