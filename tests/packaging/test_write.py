"""Test that a package appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from common.packaging import write
from common.packaging.contents import Contents


@pytest.fixture
def contents(contents_with: Callable[..., Contents], monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Return small contents; scripting and trial are left out."""
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    return contents_with({"version": "0.1.0"}, {"LICENSE": b"free", "configs/inference.json": b"{}"})


def test_folder_and_zip_appear(contents: Contents, tmp_path: Path) -> None:
    assert write.write_package(contents, tmp_path / "dist") == tmp_path / "dist" / "lung_v0.1.0.zip"
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {"lung", "lung_v0.1.0.zip"}
    assert (tmp_path / "dist" / "lung" / "LICENSE").read_bytes() == b"free"


def test_failed_trial_leaves_the_old_package(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_package(contents, tmp_path / "dist")
    before = {path: path.read_bytes() for path in (tmp_path / "dist").rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise InputError("no mask")

    monkeypatch.setattr(write, "try_package", fail)
    contents.files["LICENSE"] = b"other"
    with pytest.raises(InputError, match="no mask"):
        write.write_package(contents, tmp_path / "dist")
    assert {path: path.read_bytes() for path in (tmp_path / "dist").rglob("*") if path.is_file()} == before
    assert len(list((tmp_path / "dist").iterdir())) == 2


def test_failed_move_puts_the_old_package_back(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_package(contents, tmp_path / "dist")
    before = {path: path.read_bytes() for path in (tmp_path / "dist").rglob("*") if path.is_file()}
    contents.files["LICENSE"] = b"other"
    replace = Path.replace

    def fail_for_the_new_zip(path: Path, target: Path) -> Path:
        if target == tmp_path / "dist" / "lung_v0.1.0.zip" and path.parent.name != "before":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_zip)
    with pytest.raises(InputError, match="cannot be written"):
        write.write_package(contents, tmp_path / "dist")
    assert {path: path.read_bytes() for path in (tmp_path / "dist").rglob("*") if path.is_file()} == before
