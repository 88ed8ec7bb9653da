"""Test the wheel of a package, and that configs without code end with one line unless it is installed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.errors import InputError
from common.files import sha256
from common.packaging.configs import FIND_IMPORTS, WHEEL_IMPORTS, find_wheel
from common.packaging.contents import Contents
from common.packaging.wheel import ENTRY, installed_wheel, is_unchanged_wheel, wheel_bytes, wheel_file

CODE = {"lung_v0_2_0/__init__.py": b"", "lung_v0_2_0/network.py": b"WIDTH = 7\n"}
FILE = "lung-0.2.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path, contents_with: Callable[..., Contents]) -> Path:
    """Write a wheel of two small modules."""
    versions = {"monai_version": "1.6.1", "pytorch_version": "2.13.0", "numpy_version": "2.4.6"}
    metadata = {"version": "0.2.0", **versions, "required_packages_version": {"nibabel": "5.4.2"}}
    contents = contents_with(metadata, {"LICENSE": b"free"})
    path = tmp_path / wheel_file("lung", "0.2.0")
    path.write_bytes(wheel_bytes(contents, CODE))
    assert wheel_bytes(contents, dict(reversed(CODE.items()))) == path.read_bytes()
    return path


def config() -> ConfigParser:
    network = {"_target_": "lung_v0_2_0.network.Network", "_requires_": "@bundle_code"}
    return ConfigParser(
        {"imports": [*FIND_IMPORTS, *WHEEL_IMPORTS], "network": network, **find_wheel("lung", "0.2.0", FILE)}
    )


def test_wheel_has_code_licence_and_requirements(wheel: Path) -> None:
    assert wheel.name == FILE
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    info = "lung-0.2.0.dist-info"
    assert {*content} == {*CODE, *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE"))}
    assert {name: content[name] for name in CODE} == CODE
    lines = content[f"{info}/METADATA"].decode().splitlines()
    assert (
        "Version: 0.2.0" in lines
        and "Requires-Dist: nibabel>=5.4.2" in lines
        and "Requires-Dist: torch>=2.13.0" in lines
    )


def test_changed_wheel_is_not_one_that_may_be_replaced(wheel: Path, tmp_path: Path) -> None:
    assert is_unchanged_wheel(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more.py", "")
    assert not is_unchanged_wheel(wheel)
    (tmp_path / "text.whl").write_text("notes")
    assert not is_unchanged_wheel(tmp_path / "text.whl")


def test_config_without_its_wheel_ends_with_one_line() -> None:
    with pytest.raises(SystemExit) as end:
        config().get_parsed_content("network")
    expected = f"error: lung needs its wheel of version 0.2.0; found none; run pip install {FILE}"
    assert end.value.code == expected


def test_config_with_another_version_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("0.3.0", "0.1.0"):
        info = tmp_path / version / f"lung-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: lung\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path / version)
    with pytest.raises(SystemExit, match=r"version 0\.2\.0; found 0\.1\.0, 0\.3\.0; run pip install lung-0\.2\.0"):
        config().get_parsed_content("network")


def test_installed_wheel_satisfies_the_config(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {ENTRY: {"file": f"../elsewhere/{FILE}", "sha256": sha256(wheel)}}
    with installed_wheel(about, wheel.parent) as folder:
        assert folder is not None and (folder / "lung_v0_2_0" / "network.py").read_bytes() == b"WIDTH = 7\n"
        monkeypatch.syspath_prepend(folder)
        assert config().get_parsed_content("bundle_code") is True
    assert not folder.exists()


def test_wheel_of_another_package_is_refused(wheel: Path) -> None:
    with (
        pytest.raises(InputError, match=r"whl: not the wheel of this package; its SHA-256 is \w{64}, expected 00"),
        installed_wheel({ENTRY: {"file": FILE, "sha256": "00"}}, wheel.parent),
    ):
        pass


@pytest.mark.parametrize("entry", [None, 1, {"file": FILE}, {"file": "other.whl", "sha256": "00"}])
def test_package_without_a_wheel_beside_it_uses_none(wheel: Path, entry: object) -> None:
    with installed_wheel({ENTRY: entry}, wheel.parent) as folder:
        assert folder is None
