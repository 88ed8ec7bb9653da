"""Check the check of a release: this repository passes it, and each disagreement is found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from release import ROOT, faults, unreleased

FILES = {
    "pyproject.toml": '[project]\nversion = "0.2.0"\n',
    "CITATION.cff": "version: 0.2.0\n",
    "CHANGELOG.md": "## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n\n- A change.\n\n## [0.1.0] - 2026-01-01\n",
    "bundles/one/configs/metadata.json": json.dumps({"version": "0.1.0", "changelog": {"0.1.0": "First."}}),
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_versions_of_this_repository_agree() -> None:
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("CITATION.cff", "0.2.0", "0.1.0", "CITATION.cff: version 0.1.0, expected 0.2.0"),
        ("CHANGELOG.md", "## [0.2.0] - 2026-01-31", "", "CHANGELOG.md: the latest dated version is 0.1.0"),
        ("bundles/one/configs/metadata.json", '{"0.1.0"', '{"0.0.1"', "metadata.json: version 0.1.0 is not in its"),
    ],
)
def test_a_disagreement_is_found(repository: Path, name: str, old: str, new: str, message: str) -> None:
    assert faults(repository) == []
    (repository / name).write_text(FILES[name].replace(old, new))
    (fault,) = faults(repository)
    assert message in fault


@pytest.mark.slow
def test_a_release_is_committed_and_has_its_tag(repository: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "--message", "Release")
    assert [fault.partition(":")[0] for fault in unreleased(repository)] == ["tag v0.2.0"]
    git("tag", "v0.2.0")
    assert unreleased(repository) == []
    (repository / "CHANGELOG.md").write_text(FILES["CHANGELOG.md"].replace("ed]\n", "ed]\n\n- More.\n", 1))
    assert [fault.partition(":")[0] for fault in unreleased(repository)] == ["CHANGELOG.md", "M CHANGELOG.md"]
