"""Test the list of a package's files with their SHA-256."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from common.packaging.checksums import LIST, check_checksums


def test_list_has_the_format_of_sha256sum(folder: Path) -> None:
    expected = (
        f"{hashlib.sha256(b'free').hexdigest()}  LICENSE\n{hashlib.sha256(b'weights').hexdigest()}  models/model.pt\n"
    )
    assert (folder / LIST).read_text() == expected
    check_checksums(folder)
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "--check", "--status", LIST], cwd=folder, check=False).returncode == 0


def _rewritten(folder: Path, change: Callable[[str], str]) -> None:
    (folder / LIST).write_text(change((folder / LIST).read_text()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "LICENSE").write_text("fre"), "LICENSE: changed since it was packed"),
        (lambda f: (f / "models" / "model.pt").write_bytes(b""), r"model\.pt: changed since it was packed"),
        (lambda f: (f / "LICENSE").unlink(), "LICENSE: missing"),
        (lambda f: (f / "models" / "other.pt").write_bytes(b""), r"other\.pt: not one of the package's files"),
        (lambda f: (f / LIST).unlink(), f"no {LIST}"),
        (lambda f: _rewritten(f, lambda s: s.replace("  LICENSE", "  ../LICENSE")), "line 1: ../LICENSE is outside"),
        (lambda f: _rewritten(f, lambda s: s.replace("  LICENSE", "  /LICENSE")), "line 1: /LICENSE is outside"),
        (lambda f: _rewritten(f, lambda s: s + s), "line 3"),
        (lambda f: _rewritten(f, lambda s: "nonsense\n" + s), "line 1"),
        (lambda f: _rewritten(f, lambda s: s.splitlines()[1] + "\n"), "LICENSE: not one of the package's files"),
    ],
)
def test_changed_folder_is_refused(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message):
        check_checksums(folder)


def test_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """Refuse it even if the contents are equal, because the linked file can change later."""
    (tmp_path / "outside").write_text("free")
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="LICENSE: is a link"):
        check_checksums(folder)


def test_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "models").rename(tmp_path / "models")
    (folder / "models").symlink_to(tmp_path / "models")
    with pytest.raises(InputError, match="is a link"):
        check_checksums(folder)


def test_files_that_use_adds_are_ignored(folder: Path) -> None:
    for name in ("eval/case_seg.nii.gz", "README.md", "demo/models/model.pt", "models/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    check_checksums(folder)


@pytest.mark.parametrize("name", ["code_v1/data/volumes/__init__.py", "code_v1/__pycache__/a.pyc", "configs/README.md"])
def test_unlisted_code_is_refused(folder: Path, name: str) -> None:
    """Refuse code that Python would import in place of a listed file."""
    (folder / name).parent.mkdir(parents=True)
    (folder / name).touch()
    with pytest.raises(InputError, match=f"{Path(name).name}: not one of the package's files"):
        check_checksums(folder)
