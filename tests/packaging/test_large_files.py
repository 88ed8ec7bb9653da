"""Test that a package can list its large files as the Model Zoo does, so that its zip lacks them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from monai.bundle import download_large_files

from common.errors import InputError, UsageError
from common.files import sha256
from common.packaging.checksums import check_checksums, write_checksums
from common.packaging.large_files import check_url, large_files, write_large_files


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Write a folder with two large files, their list and the check sums, and move the files to a server's folder."""
    folder, server = tmp_path / "lung", tmp_path / "server"
    (folder / "models").mkdir(parents=True)
    server.mkdir()
    for name in ("model.pt", "model.ts"):
        (folder / "models" / name).write_bytes(name.encode() * 1000)
    write_large_files(folder, f"{server.as_uri()}/")
    write_checksums(folder)
    for name in ("model.pt", "model.ts"):
        (folder / "models" / name).rename(server / name)
    return folder


def test_list_has_path_url_and_hash(package: Path) -> None:
    server = package.parent / "server"
    entries = yaml.safe_load((package / "large_files.yml").read_text())["large_files"]
    assert entries == [
        {
            "path": f"models/{name}",
            "url": f"{server.as_uri()}/{name}",
            "hash_val": sha256(server / name),
            "hash_type": "sha256",
        }
        for name in ("model.pt", "model.ts")
    ]
    assert large_files(package) == ["models/model.pt", "models/model.ts"]


def test_large_files_alone_may_be_missing(package: Path) -> None:
    check_checksums(package, large_files(package))
    with pytest.raises(InputError, match=r"model\.pt: missing"):
        check_checksums(package)
    (package / "models" / "model.pt").write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.pt: changed"):
        check_checksums(package, large_files(package))


def test_monai_downloads_the_listed_files(package: Path) -> None:
    download_large_files(str(package))
    check_checksums(package)


def test_folder_without_a_list_has_no_large_files(tmp_path: Path) -> None:
    assert large_files(tmp_path) == []


@pytest.mark.parametrize("url", ["true", "models", "ftp://host/x", "https://", 'https://host/"'])
def test_other_text_than_a_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--large_files .*: expected the URL of a folder"):
        check_url(url)
