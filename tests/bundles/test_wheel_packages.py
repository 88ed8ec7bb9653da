"""Test that a package without code runs where its wheel is installed, and that its zip can lack the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest

from common.errors import InputError
from common.packaging import verify_package
from common.packaging.wheel import is_unchanged_wheel

from ..methods.mpunet.tiny import MPUNET
from ..packaging.grammar import violations
from ..warm_python import WarmPython
from .packed import pack_tiny

pytestmark = pytest.mark.slow
NAME = MPUNET.name


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Path:
    """Pack MPU-Net as a wheel and a package without code and without large files."""
    out = tmp_path_factory.mktemp("wheel") / "dist"
    with warm_python.in_packing():
        pack_tiny(MPUNET, out, {}, code="wheel", large_files="https://example.org/liver")
    return out


def test_package_has_no_code(dist: Path, packed: Callable[[Path], Path]) -> None:
    names = {path.relative_to(dist / NAME).as_posix() for path in (dist / NAME).rglob("*") if path.is_file()}
    own = packed(MPUNET)
    with_code = {path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()}
    assert with_code - names == {name for name in with_code if name.startswith(f"{NAME}_v0_1_0/")}
    assert names - with_code == {"large_files.yml"}
    wheel = dist / f"{NAME}-0.1.0-py3-none-any.whl"
    assert is_unchanged_wheel(wheel)
    with zipfile.ZipFile(wheel) as archive:
        for name in with_code - names:
            assert archive.read(name) == (own / name).read_bytes()
    configs = [json.loads(path.read_text()) for path in (dist / NAME / "configs").rglob("*.json")]
    before = [json.loads(path.read_text()) for path in (own / "configs").rglob("*.json")]
    assert [violations(config) for config in configs] == [violations(config) for config in before]
    with zipfile.ZipFile(dist / NAME / "models" / "model.ts") as archive:
        inference = json.loads(archive.read("model/extra/inference.json"))
    assert "packed_code" not in inference and inference["bundle_root"] == "."


def test_monai_runs_it_where_the_wheel_is_installed(
    dist: Path, cohort: Callable, tmp_path: Path, warm_python: WarmPython
) -> None:
    wheel, site, elsewhere = next(dist.glob("*.whl")), tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    config, data = dist / NAME / "configs" / "inference.json", cohort(MPUNET)
    options = {"config_file": config, "dataset_dir": data, "output_dir": tmp_path / "out"}
    run = [sys.executable, "-m", "monai.bundle", "run", *(f"--{key}={value}" for key, value in options.items())]

    def result(path: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": path}
        return warm_python.run(run, cwd=elsewhere, env=environment)

    missing = result("")
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1] == (
        f"error: {NAME} needs its wheel of version 0.1.0; found none; run pip install {wheel.name}"
    )
    done = result(str(site))
    assert done.returncode == 0, done.stderr
    assert all(nib.load(path).shape for path in (tmp_path / "out").glob("*_seg.nii.gz"))
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


@pytest.mark.usefixtures("warm_packing")
def test_verify_passes_with_the_wheel_beside_the_package(dist: Path) -> None:
    assert verify_package(dist / NAME) == f"{NAME} 0.1.0"


def test_zip_lacks_the_large_files_and_verify_says_so(dist: Path) -> None:
    archive = dist / f"{NAME}_v0.1.0.zip"
    with zipfile.ZipFile(archive) as content:
        names = {name.removeprefix(f"{NAME}/") for name in content.namelist()}
    files = {path.relative_to(dist / NAME).as_posix() for path in (dist / NAME).rglob("*") if path.is_file()}
    assert files - names == {"models/model.pt", "models/model.ts"} and names <= files
    with pytest.raises(InputError, match=r"models/model\.pt: not in this package.*download_large_files"):
        verify_package(archive)


def test_card_says_how_to_install_and_download(dist: Path) -> None:
    card = (dist / NAME / "docs" / "README.md").read_text()
    assert f"\npip install {NAME}-0.1.0-py3-none-any.whl\n" in card and "configs and weights. Whoever" in card
    assert "\npython -m monai.bundle download_large_files --bundle_path .\nsha256sum --check" in card
