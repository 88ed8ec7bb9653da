"""Lint the Dockerfile, and run its steps without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ..warm_python import WarmPython
from ..workflows import PLAIN

ROOT = Path(__file__).parents[2]
KNOWN = ("FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT")


class Step(NamedTuple):
    """Hold an instruction of a Dockerfile."""

    name: str
    value: str


def steps() -> list[Step]:
    """Return the instructions of the Dockerfile in their order."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line and not line.startswith("#")]
    return [Step(*line.split(" ", 1)) for line in lines]


def values(name: str) -> list[str]:
    return [step.value for step in steps() if step.name == name]


def variables() -> dict[str, str]:
    """Return the environment that the Dockerfile sets."""
    return dict(part.split("=", 1) for value in values("ENV") for part in shlex.split(value))


def entry_point(folders: dict[str, Path]) -> list[str]:
    """Return the command of the image with other folders than the container's."""
    command = json.loads(values("ENTRYPOINT")[0])
    for inside, outside in folders.items():
        command = [re.sub(rf"^{inside}(?=/|$)", str(outside), word) for word in command]
    return [sys.executable, *command[1:]]


def test_the_instructions_are_known_and_in_order() -> None:
    names = [step.name for step in steps()]
    assert set(names) <= set(KNOWN)
    assert names[0] == "FROM" and names[-1] == "ENTRYPOINT"
    assert len(values("FROM")) == len(values("ENTRYPOINT")) == len(values("USER")) == 1
    assert re.fullmatch(r"[\w/.-]+:(?!latest)[\w.-]+", values("FROM")[0])


def test_every_argument_is_declared_before_its_use() -> None:
    declared: set[str] = set()
    for step in steps():
        if step.name == "ARG":
            declared.add(step.value.partition("=")[0])
        assert set(re.findall(r"\$\{(\w+)\}", step.value)) <= declared, step
    assert declared == {"TORCH", "PACKAGE"}


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for value in values("COPY"):
        *sources, _ = value.split()
        for source in sources:
            assert source.partition("/")[0] in allowed
            assert source.startswith("dist/") or (ROOT / source).exists(), source


def test_versions_come_from_the_constraints() -> None:
    (install,) = (value for value in values("RUN") if " pip install " in value)
    words = shlex.split(install)
    assert "--no-cache-dir" in words and words[words.index("--constraint") + 1] == "constraints.txt"
    extras = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])
    assert extras is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*extras[1].split(",")} <= project["optional-dependencies"].keys()
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    named = [*project["dependencies"], *(p for e in extras[1].split(",") for p in project["optional-dependencies"][e])]
    assert {re.split(r"[><=!~]", package)[0].lower() for package in named} <= pinned


def test_the_user_has_a_number_and_is_not_root() -> None:
    user, group = values("USER")[0].split(":")
    assert int(user) > 0 and int(group) > 0
    assert variables().keys() >= {"USER", "HOME"}


@pytest.mark.slow
def test_the_project_installs_from_the_copied_files_alone(tmp_path: Path) -> None:
    """It starts pip without its dependencies, which need a network."""
    for value in values("COPY"):
        *sources, target = value.split()
        for source in (ROOT / name for name in sources if not name.startswith("dist/")):
            if source.is_dir():
                shutil.copytree(source, tmp_path / "source" / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (tmp_path / "source").mkdir(exist_ok=True)
                shutil.copy(source, tmp_path / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(tmp_path / "source")], check=True)
    installed = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site" / "common").rglob("*.*")}
    for path in (ROOT / "common").rglob("*.*"):
        if path.suffix != ".pyc":
            assert path.relative_to(ROOT) in installed, path


def test_the_entry_point_infers_as_a_user_without_name(
    packed: Callable[[Path], Path],
    cohort: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    bundle = shutil.copytree(packed(PLAIN), tmp_path / "bundle")
    home, results = tmp_path / "tmp", tmp_path / "results"
    home.mkdir()
    results.mkdir(mode=0o777)
    command = entry_point({"/bundle": bundle, "/scans": cohort(PLAIN) / "images", "/results": results})
    nameless = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*nameless, "true"], capture_output=True, check=False).returncode:
        nameless = []
    options = ["--device", "cpu", "--status", str(results / "status.csv"), "--resume", "true"]
    environment = {**variables(), "HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    for path in [bundle, *bundle.rglob("*")]:  # read-only
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run(
        [*nameless, *command, *options], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    scans = sorted((cohort(PLAIN) / "images").iterdir())
    assert len([*results.glob("*_seg.nii.gz")]) == len(scans)
    assert len((results / "status.csv").read_text().splitlines()) == 1 + len(scans)


def test_the_check_of_the_package_passes(
    packed: Callable[[Path], Path], tmp_path: Path, warm_python: WarmPython
) -> None:
    (verify,) = (shlex.split(value) for value in values("RUN") if "verify" in value)
    bundle = shutil.copytree(packed(PLAIN), tmp_path / "bundle")
    command = [sys.executable, *verify[1:-1], str(bundle)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables(), "HOME": str(tmp_path)}
    done = warm_python.run(command, tmp_path, environment)
    assert done.returncode == 0, done.stderr
